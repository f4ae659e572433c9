"""Decoding batches of rows into what a backbone takes: in the calling thread or in processes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.base import Backbone
from dpfc.features.datasets.base import Item
from dpfc.features.exceptions import UnreadableItemError

__all__ = ["Batch", "Preparation", "prepare_in_processes", "stack_rows"]

Rows = NDArray[Any] | list[NDArray[Any]]


@dataclass(frozen=True)
class Batch:
    """Rows ready for a backbone.

    Attributes
    ----------
    rows : ndarray of shape (n, ...), or list of n one-dimensional ndarrays
        Images stacked, or token ids of texts.
    unreadable : dict of int to UnreadableItemError
        Why an item of the batch is not among the rows, by its place in the batch.
    """

    rows: Rows
    unreadable: dict[int, UnreadableItemError]


@dataclass(frozen=True)
class Preparation:
    """From items to a `Batch`; holds no weights, so a worker process gets it cheaply.

    Parameters
    ----------
    backbone : Backbone
        Its `preparer` and `decode_size` are kept.
    """

    preparer: Any
    decode_size: int | None
    stacked: bool

    @classmethod
    def of(cls, backbone: Backbone) -> "Preparation":
        """What a backbone wants done to its inputs."""
        return cls(backbone.preparer, backbone.decode_size, backbone.modality == "image")

    def __call__(self, items: Sequence[Item]) -> Batch:
        """Decode and prepare; what cannot be decoded is noted, not raised."""
        rows: list[NDArray[Any]] = []
        unreadable: dict[int, UnreadableItemError] = {}
        for place, item in enumerate(items):
            try:
                content = item.decode(at_least=self.decode_size)
            except UnreadableItemError as error:
                unreadable[place] = error.with_traceback(None)
            else:
                rows.append(self.preparer(content))
        return Batch(stack_rows(rows) if rows and self.stacked else rows, unreadable)


def stack_rows(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One array of prepared images.

    Raises
    ------
    ValueError
        If they differ in shape or dtype.
    """
    kinds = {f"{row.dtype} {list(row.shape)}": None for row in rows}
    if len(kinds) > 1:
        raise ValueError(
            "the backbone's preparer must give arrays of one shape and dtype for all images, "
            f"got {' and '.join(list(kinds)[:2])}."
        )
    return np.stack(rows)


class _InWorker:
    """A data set for torch's loader, whose keys are the items themselves.

    So the data set is read once, in the main process, and encoded bytes travel to the workers.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    def __getitems__(self, items: Sequence[Item]) -> tuple[Any, dict[int, UnreadableItemError]]:
        import torch

        batch = self._preparation(items)
        # A tensor comes back through shared memory, and can be pinned.
        stacked = isinstance(batch.rows, np.ndarray)
        return torch.from_numpy(batch.rows) if stacked else batch.rows, batch.unreadable


def prepare_in_processes(
    preparation: Preparation, batches: Iterable[Sequence[Item]], workers: int
) -> Iterator[Batch]:
    """Prepare batches in worker processes, in order, a few ahead of the caller.

    Images arrive in pinned memory where there is a GPU: a copy to it needs no detour.

    Parameters
    ----------
    preparation : Preparation
    batches : iterable of sequences of Item
        Read in this process, as far ahead as the workers can take.
    workers : int
        Processes. They are spawned: CUDA and threads do not survive a fork.
    """
    import torch

    loader: Any = torch.utils.data.DataLoader(
        _InWorker(preparation),  # type: ignore[arg-type]
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn",
    )
    for rows, unreadable in loader:
        yield Batch(rows.numpy() if isinstance(rows, torch.Tensor) else rows, unreadable)


def _as_it_is(batch: Any) -> Any:
    return batch
