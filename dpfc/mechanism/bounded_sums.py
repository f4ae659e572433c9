"""Streaming sums of integer rows: `bound rows` and `accumulate`, no noise.

What is computed here is private. `dpfc.mechanism.gaussian` is the only module that calls it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc._support.memory import available_memory
from dpfc.exceptions import InsufficientMemoryError
from dpfc.mechanism.integer_products import MOST_TERMS, kernel_name
from dpfc.mechanism.integer_rows import BASE, RowGrid
from dpfc.mechanism.people import MOST_ROWS, WHOLE, Members, Shares
from dpfc.mechanism.queries import Query
from dpfc.mechanism.row_map import RowMap

__all__ = ["BoundedRows", "LabeledRows", "n_units_of", "reserve"]

_MAP_ROWS = 4096  # in a piece of rows as they came
_MOST_ROWS = 2**16  # in any piece: sums of products of digits stay below 2³¹
_LEAST_ROWS = 4096
_PIECES = 2  # a thread
_UNDER_WAY = 2**28  # bytes of pieces' sums at a time: large matrices take fewer threads
_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


class LabeledRows(Protocol):
    """Checked private rows with labels as codes 0 … n_classes - 1, in a fixed order."""

    n_samples: int
    n_features: int
    device: torch.device
    codes: NDArray[np.int64]
    shares: Shares | None  # None: each row is a person's only one, and counts fully

    def blocks(self, block_rows: int) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Yield (rows (n, n_features), codes (n,)), the same at every call.

        Rows are arrays, or tensors where they lie on a GPU.
        """
        ...


def n_units_of(rows: LabeledRows) -> int:
    """How many persons rows belong to."""
    return rows.n_samples if rows.shares is None else rows.shares.n_units


class BoundedRows:
    """Rows on a grid of integers, kept where further sums read them.

    They take a byte for each digit of an entry: in memory, where half of what is free holds them,
    else in a temporary file that has no name and nobody else can read.

    Parameters
    ----------
    source : LabeledRows
    row_map : RowMap
    n_classes : int
    shares : Shares, optional
        Of rows that are weighed, or belong to persons who have several.
    n_threads : int, default=1
        That take blocks of rows; sums are the same for any number. A GPU has its own.
    store : array or tensor, optional
        From `reserve`: where rows are kept. Rows that were kept there before are lost.
    """

    def __init__(
        self,
        source: LabeledRows,
        row_map: RowMap,
        n_classes: int,
        *,
        shares: Shares | None = None,
        n_threads: int = 1,
        store: Any = None,
    ):
        self.source = source
        self.row_map = row_map
        self.n_classes = n_classes
        self.grid = RowGrid.of(row_map, source.n_features)
        self._store = store
        self._filled = False
        self._members: dict[int, Members] = {}  # of pieces of kept rows, by their first row
        self.shares = shares
        order = None if shares is None else shares.order()
        self._order = np.arange(source.n_samples) if order is None else order
        self._n_threads = n_threads if source.device.type == "cpu" else 1

    def sum(self, query: Query, selected: NDArray[np.bool_] | None = None) -> torch.Tensor:
        """Sum the query over all rows, or those that a mask (n_samples,) selects; int64."""
        grid = query.grid(self.row_map, self.source.n_features)
        summand = query.summand(grid, self.n_classes)
        total = torch.zeros(
            query.shape(self.grid.n_columns, self.n_classes), dtype=torch.int64, device="cpu"
        )

        def summed(piece: tuple[Any, Any, Members | None]) -> torch.Tensor:
            part = summand(*piece)
            return torch.from_numpy(part) if isinstance(part, np.ndarray) else part.cpu()

        n_threads = min(self._n_threads, max(2, _UNDER_WAY // (8 * total.numel())))
        for part in _worked(summed, self._pieces(query, selected), n_threads):
            total += part.reshape(total.shape)
        return total

    def _pieces(
        self, query: Query, selected: NDArray[np.bool_] | None
    ) -> Iterator[tuple[Any, Any, Members | None]]:
        """Rows as a query reads them, with their codes and whose they are."""
        if query.reads == "digits":
            return self._kept_pieces(selected)
        shares = self.shares
        even = None if shares is None else shares.even
        if query.reads == "codes":
            keep = slice(None) if selected is None else selected
            members = None if even is None else Members.of(even[keep])
            return iter([(None, self.source.codes[keep], members)])
        return self._pieces_as_they_came(selected, even)

    def _kept_pieces(
        self, selected: NDArray[np.bool_] | None
    ) -> Iterator[tuple[Any, Any, Members | None]]:
        store, codes, shares = self._filled_store(), self.source.codes, self.shares
        for place in self._places():
            rows = self._order[place]
            members = None if shares is None else self._members_of(place, shares, store)
            if selected is not None:
                keep = selected[rows]
                rows, place = rows[keep], place.start + np.flatnonzero(keep)
                members = None if members is None else members.select(keep)
            yield [digit[:, place] for digit in store], self._on_device(codes[rows]), members

    def _places(self) -> Iterator[slice]:
        """Pieces of the kept rows, none of which divides a person."""
        n_samples, shares = self.source.n_samples, self.shares
        size = -(-n_samples // (_PIECES * self._n_threads))
        size = max(_LEAST_ROWS, min(_MOST_ROWS - MOST_ROWS, size))
        if shares is None or shares.units is None:
            yield from (slice(start, start + size) for start in range(0, n_samples, size))
            return
        kept = Members(np.zeros(n_samples, np.float32), shares.units[self._order])
        yield from kept.places(size)

    def _members_of(self, place: slice, shares: Shares, store: Any) -> Members:
        """A piece's persons, with the inner products of their rows; worked out once."""
        members = self._members.get(place.start)
        if members is None:
            rows = self._order[place]
            weights = np.full(len(rows), WHOLE) if shares.weights is None else shares.weights[rows]
            units = None if shares.units is None else shares.units[rows]
            members = Members.of(weights, units, [digit[:, place] for digit in store], BASE)
            self._members[place.start] = members
        return members

    def _pieces_as_they_came(
        self, selected: NDArray[np.bool_] | None, even: NDArray[np.int64] | None
    ) -> Iterator[tuple[Any, Any, Members | None]]:
        start = 0
        for block, codes in self.source.blocks(_MAP_ROWS):
            place = slice(start, start + len(block))
            members = None if even is None else Members.of(even[place])
            start += len(block)
            if selected is not None:
                keep = selected[place]
                block, codes = block[self._on_device(keep)], codes[keep]
                members = None if members is None else members.select(keep)
            yield block, self._on_device(codes), members

    def _filled_store(self) -> Any:
        """Every row's digits, (n_digits, n_columns, n_samples) int8; mapped once.

        A person's rows lie next to each other.
        """
        if self._store is None:
            self._store = reserve(self.source, self.row_map)
        grid, store, n_samples = self.grid, self._store, self.source.n_samples
        if self._filled:
            return store
        sorted_already = self.shares is None or self.shares.units is None
        places = np.empty(n_samples, dtype=np.int64)
        places[self._order] = np.arange(n_samples)

        def placed() -> Iterator[tuple[int, Any]]:
            start = 0
            for block, _ in self.source.blocks(_MAP_ROWS):
                yield start, block
                start += len(block)
            if start != n_samples:
                raise RuntimeError("the source does not yield the number of rows that it states.")

        def put(piece: tuple[int, Any]) -> None:
            start, block = piece
            where: Any = slice(start, start + len(block))
            where = where if sorted_already else self._on_device(places[where])
            for target, digit in zip(store, grid.rows(block), strict=True):
                target[:, where] = digit

        for _ in _worked(put, placed(), self._n_threads):
            pass
        self._filled = True
        return store

    def _on_device(self, values: NDArray[Any]) -> Any:
        if self.source.device.type == "cpu":
            return values
        return torch.from_numpy(values).to(self.source.device)


def reserve(source: LabeledRows, row_map: RowMap) -> Any:
    """Room for the digits of rows, and a kernel to multiply them with: before anything is spent.

    Parameters
    ----------
    source : LabeledRows
    row_map : RowMap
        What it centres by or multiplies with may come later.

    Returns
    -------
    array or tensor of shape (n_digits, n_columns, n_samples), int8

    Raises
    ------
    InsufficientMemoryError, OSError
        If there is no room.
    ValueError
        If the environment names no kernel that is exact here, or rows have too many columns.
    """
    kernel_name(source.device.type)
    grid = RowGrid.of(row_map, source.n_features)
    if grid.n_columns > MOST_TERMS:
        raise ValueError(f"rows must have at most {MOST_TERMS - 3} features.")
    return _room((grid.n_digits, grid.n_columns, source.n_samples), source.device)


def _room(shape: tuple[int, ...], device: torch.device) -> Any:
    """Bytes in memory where half of what is free holds them, else in a file without a name."""
    if math.prod(shape) <= 0.5 * available_memory(device):
        if device.type == "cpu":
            return np.empty(shape, dtype=np.int8)
        return torch.empty(shape, dtype=torch.int8, device=device)
    if device.type != "cpu":
        raise InsufficientMemoryError(
            f"rows take {math.prod(shape) / 2**30:.1f} GiB on the GPU, more than half of what is "
            "free there: pass them in the main memory, X.cpu()."
        )
    # Made with mode 0600, and unlinked at once.
    with tempfile.TemporaryFile(prefix="dpfc-") as file:
        if hasattr(os, "posix_fallocate"):  # else a full disk is met while rows are mapped
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        return np.memmap(file, dtype=np.int8, mode="w+", shape=shape)


def _worked(
    work: Callable[[_Piece], _Result], pieces: Iterable[_Piece], n_threads: int
) -> Iterator[_Result]:
    """Work on pieces in threads, whose results come in order; few are under way at a time.

    Threads take pieces, and operations of PyTorch in them take one thread each: small operations
    that many threads share wait for each other.
    """

    def quietly(piece: _Piece) -> _Result:
        with np.errstate(all="ignore"):  # warnings would tell of rows
            return work(piece)

    if n_threads == 1:
        yield from map(quietly, pieces)
        return
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(quietly, piece))
                if len(waiting) > n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
