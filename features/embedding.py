"""Forward passes that shrink when the device's memory is short."""

import threading

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.loading import Backbone
from dpfc.features.backbones.row_independence import check_rows, one_by_one
from dpfc.features.exceptions import OutOfDeviceMemoryError
from dpfc.features.extraction_workers import Rows

__all__ = ["Embedder"]


class Embedder:
    """A backbone whose batches are halved, down to one row, when they do not fit.

    Once halved, later batches are cut to that size as well. Cuts fall at multiples of the size
    from a batch's first row, so a resumed run that meets the same limit makes the same passes.

    Parameters
    ----------
    backbone : Backbone
        Looked at here for rows that depend on each other, on made-up rows; see `check_rows`.
    batch_size : int
        Rows a forward pass to begin with.

    Attributes
    ----------
    limit : int
        Rows a forward pass now.
    check : RowCheck
        How rows go through the backbone.
    """

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self._backbone = backbone
        self._lock = threading.Lock()
        self.check = check_rows(backbone, batch_size)
        # Where two rows have no room, one goes at a time from the start.
        self.limit = 1 if self.check.n_rows == 1 else batch_size

    def __call__(self, rows: Rows) -> NDArray[np.float32]:
        """Features, shape (n, n_features), of n prepared rows; may be called by several threads.

        Raises
        ------
        OutOfDeviceMemoryError
            If not even one row fits.
        """
        while True:
            limit = self.limit
            parts = [rows[i : i + limit] for i in range(0, len(rows), limit)]
            try:
                # From the first row again after a halving: a batch is cut in one way only.
                features = [one_by_one(self._backbone, part, self.check) for part in parts]
            except OutOfDeviceMemoryError:
                failed = min(limit, len(rows))
                if failed == 1:
                    raise
                with self._lock:  # unless another thread has gone below
                    self.limit = min(self.limit, failed // 2)
                continue
            return features[0] if len(features) == 1 else np.concatenate(features)
