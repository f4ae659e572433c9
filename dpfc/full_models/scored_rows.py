"""What a public network says about private test rows; see `dpfc.scored_rows`."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dpfc.full_models.module_rows import as_input, check_labels, check_rows
from dpfc.full_models.network_prediction import NetworkPredictor

__all__ = ["ScoredNetworkRows"]

_LARGEST = 1e30


class ScoredNetworkRows:
    """Predicted class and probabilities of each test row, as `dpfc.scored_rows.ScoredRows`.

    Rows go through the network one at a time, on the CPU: of a batch, kernels may round a row's
    scores otherwise with other rows beside it, and one removed row could then tip the
    predictions of others.

    Parameters
    ----------
    model : NetworkPredictor
        Fitted, and public.
    X, y
        Private test rows, as for `DPSGDClassifier.fit`.

    Raises
    ------
    ValueError
        As in `fit`, and if the rows are not of the model's shape.
    """

    device = torch.device("cpu")

    def __init__(self, model: NetworkPredictor, X: Any, y: ArrayLike | None):
        rows = check_rows(X, y)
        model.check_shape(rows.X)
        self._rows = rows.X
        self._module = copy.deepcopy(model.module_).cpu().eval()
        self.codes = check_labels(rows.labels, model.classes_)
        self.n_samples = len(self.codes)
        self.n_features = 1 + len(model.classes_)

    @property
    def central_logits(self) -> NDArray[np.float64]:
        """Logits of equal probabilities, shape (n_classes,); public."""
        n_classes = self.n_features - 1
        return np.full(n_classes, -math.log(n_classes - 1))

    def blocks(self, block_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (scored rows (n, 1 + n_classes) float64, codes (n,))."""
        parts = zip(
            torch.split(self._rows, block_rows), torch.split(self.codes, block_rows), strict=True
        )
        for rows, codes in parts:
            with torch.no_grad():
                scored = [self._scored(row) for row in torch.split(as_input(rows, self.device), 1)]
            yield torch.cat(scored), codes

    def _scored(self, row: torch.Tensor) -> torch.Tensor:
        # A row of huge numbers may have scores that are none; it must not spoil sums of others.
        scores = torch.nan_to_num(self._module(row).double(), nan=0.0).clamp(-_LARGEST, _LARGEST)
        predicted = scores.argmax(dim=1, keepdim=True)
        return torch.cat([predicted.double(), torch.softmax(scores, dim=1)], dim=1)
