"""Streaming sums of bounded rows: `bound rows` and `accumulate`, no noise.

What is computed here is private. `dpfc.mechanism.gaussian` is the only module that calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from dpfc._support.late import torch
from dpfc._support.memory import available_memory
from dpfc.mechanism.queries import Query
from dpfc.mechanism.row_map import RowMap

__all__ = ["BoundedRows", "LabeledRows"]

_MAP_ROWS = 512  # rows mapped at once: a block stays in a core's cache while it is worked on


class LabeledRows(Protocol):
    """Checked private rows with labels as codes 0 … n_classes - 1, in a fixed order."""

    n_samples: int
    n_features: int
    device: torch.device
    codes: torch.Tensor

    def blocks(self, block_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (rows (n, n_features), codes (n,)), the same at every call."""
        ...


class BoundedRows:
    """Rows mapped by a `RowMap`, kept in memory as float64 where they fit.

    Parameters
    ----------
    source : LabeledRows
    row_map : RowMap
    n_classes : int
    keep : bool
        Keep the mapped rows for further sums, if half of the free memory holds them.
    """

    def __init__(self, source: LabeledRows, row_map: RowMap, n_classes: int, keep: bool = True):
        self.source = source
        self.row_map = row_map
        self.n_classes = n_classes
        self.n_columns = row_map.n_columns(source.n_features)
        fits = source.n_samples * (self.n_columns + 1) * 8 <= 0.5 * available_memory(source.device)
        self._kept = self._map_all() if keep and fits else None

    def sum(self, query: Query) -> torch.Tensor:
        """Sum the query over all rows, in float64."""
        if not query.reads_rows:
            codes = self.source.codes
            return query.block_sum(codes.unsqueeze(1), codes, self.n_classes)
        return self._accumulate(query, self._blocks(query.block_rows))

    def sum_subset(self, query: Query, selected: torch.Tensor) -> torch.Tensor:
        """Sum the query over the rows that a mask (n_samples,) selects."""
        return self._accumulate(query, self._selected_blocks(query.block_rows, selected))

    def _accumulate(
        self, query: Query, blocks: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        shape = query.shape(self.n_columns, self.n_classes)
        total = torch.zeros(shape, dtype=torch.float64, device=self.source.device)
        for rows, codes in blocks:
            total += query.block_sum(rows, codes, self.n_classes)
        return total

    def _map_all(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Map every row once, into one array."""
        n_samples, device = self.source.n_samples, self.source.device
        rows = torch.empty((n_samples, self.n_columns), dtype=torch.float64, device=device)
        codes = torch.empty(n_samples, dtype=torch.int64, device=device)
        start = 0
        for block, block_codes in self.source.blocks(_MAP_ROWS):
            stop = start + len(block)
            rows[start:stop] = self.row_map(block)
            codes[start:stop] = block_codes
            start = stop
        if start != n_samples:
            raise RuntimeError("the source does not yield the number of rows that it states.")
        return rows, codes

    def _blocks(self, block_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if self._kept is not None:
            rows, codes = self._kept
            for start in range(0, len(rows), block_rows):
                yield rows[start : start + block_rows], codes[start : start + block_rows]
        else:
            for block, block_codes in self.source.blocks(block_rows):
                yield self.row_map(block), block_codes

    def _selected_blocks(
        self, block_rows: int, selected: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if self._kept is not None:
            rows, codes = self._kept
            picked = torch.nonzero(selected).flatten()
            for start in range(0, len(picked), block_rows):
                index = picked[start : start + block_rows]
                yield rows[index], codes[index]
        else:
            start = 0
            for block, block_codes in self.source.blocks(block_rows):
                keep = selected[start : start + len(block)]
                start += len(block)
                yield self.row_map(block[keep]), block_codes[keep]
