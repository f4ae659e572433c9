"""What rows add to a sum of gradients: each part knows its lengths, and adds itself up.

A part holds the gradients g_i of rows i with regard to one layer's parameters, either as numbers
(`HeldGradients`) or as sums of outer products g_i = sum_t b_it a_it^T (`ProductGradients`: linear
and convolution layers; `TokenGradients`: embeddings, where a_it is one-hot). The float32 numbers
that a part is made of are taken as exact: what follows from them is computed in float64, and its
error is bounded.

| | length l_i, not below ||g_i|| | extent e_i |
|---|---|---|
| held | ||g_i|| of the numbers that are summed | l_i |
| products, one a row | ||b_i|| ||a_i|| | l_i |
| products, T a row | sqrt(sum_ts <a_t, a_s><b_t, b_s> + γ e_i²) | sum_t ||b_t|| ||a_t|| |

γ = 2 k u with u = 2^-53 and k = T² + d_in + d_out + 16 covers the rounding of the sum of T²
products of inner products (Higham 2002, section 3.1: k operations on terms whose sizes add up to
e_i² err by at most k u e_i² / (1 - k u)). Products of large numbers may cancel in g_i; they do
not in e_i. A sum of f_i g_i is computed with an error of at most `DEPTH` u sum_i f_i e_i: this is
why clipping looks at e_i as well as at l_i.

References
----------
Li, Tramèr, Liang, Hashimoto (2022), Large Language Models Can Be Strong Differentially Private
Learners, section 4 (lengths without gradients).
Bu, Mao, Xu (2022), Scalable and Efficient Training of Large Convolutional Neural Networks with
Differential Privacy (which of two ways is cheaper, layer by layer).
Higham (2002), Accuracy and Stability of Numerical Algorithms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional

__all__ = ["DEPTH", "HeldGradients", "ProductGradients", "RowPart", "TokenGradients", "factored"]

Totals = Mapping[nn.Parameter, torch.Tensor]

_UNIT = 2.0**-53
# Additions that one number of a part's sum goes through, at most: within a chunk, and of chunks.
_CHUNK = 2**11
DEPTH = 2 * _CHUNK + 16
# Numbers in a float64 copy: what a core's cache holds, and little of a GPU's memory.
_PIECE, _CUDA_PIECE = 2**17, 2**24
# Numbers in a product of factors, for which the caches matter less than the calls.
_PRODUCT_PIECE = 2**22


class RowPart(ABC):
    """Gradients of rows with regard to some parameters."""

    n_rows: int

    @abstractmethod
    def lengths(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Length and extent of each row's gradient: float64, shape (n_rows,) each."""

    @abstractmethod
    def add(self, factors: torch.Tensor, totals: Totals) -> None:
        """Add the gradients, each times its float64 factor, to float64 totals.

        A row whose factor is zero adds nothing, whatever it holds.
        """

    @abstractmethod
    def numbers(self) -> list[torch.Tensor]:
        """What rows add up from, with one entry a row along the first axis."""


class HeldGradients(RowPart):
    """Gradients in memory.

    Parameters
    ----------
    parameter : torch.nn.Parameter
    gradients : torch.Tensor of shape (n_rows, n_entries)
        May share memory with others; it is not written to.
    """

    def __init__(self, parameter: nn.Parameter, gradients: torch.Tensor):
        self.parameter = parameter
        self._gradients = gradients
        self.n_rows = len(gradients)

    def lengths(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RowPart`; the same vector twice."""
        parts = [torch.linalg.vector_norm(piece, dim=1) for _, piece in self._doubled(slice(None))]
        lengths = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        return lengths, lengths

    def add(self, factors: torch.Tensor, totals: Totals) -> None:
        """See `RowPart`."""
        counted = factors.nonzero()[:, 0]
        if len(counted) == 0:
            return
        rows = slice(int(counted[0]), int(counted[-1]) + 1)  # without what fills up a pass
        flat, left_out = totals[self.parameter].view(-1), factors[rows] == 0.0
        broken = bool(left_out.any())
        for columns, piece in self._doubled(rows):
            if broken:  # zero times infinity is no number
                piece[left_out] = 0.0
            flat[columns] += factors[rows] @ piece

    def numbers(self) -> list[torch.Tensor]:
        """See `RowPart`."""
        return [self._gradients]

    def _doubled(self, rows: slice) -> Iterator[tuple[slice, torch.Tensor]]:
        """Float64 copies of some columns of rows at a time.

        All are in the same place: without that, most of a step's time goes into fresh memory.
        """
        gradients = self._gradients[rows]
        n_rows, n_entries = gradients.shape
        width = max(1, (_CUDA_PIECE if gradients.is_cuda else _PIECE) // n_rows)
        place = gradients.new_empty((n_rows, min(width, n_entries)), dtype=torch.float64)
        for start in range(0, n_entries, width):
            columns = slice(start, min(start + width, n_entries))
            yield columns, place[:, : columns.stop - start].copy_(gradients[:, columns])


class ProductGradients(RowPart):
    """Gradients of a matrix and a bias, as sums over T of outer products.

    Parameters
    ----------
    layer : torch.nn.Module
        With a `weight`, whose entries are (d_out, d_in), and a `bias` or none.
    left : torch.Tensor of shape (n_rows, T, d_out)
        Gradients b of the layer's output.
    right : torch.Tensor of shape (n_rows, T, d_in)
        What the layer takes in, a.
    """

    def __init__(self, layer: nn.Module, left: torch.Tensor, right: torch.Tensor):
        self._layer = layer
        self._left, self._right = left, right
        self.n_rows, self._n_terms = left.shape[:2]
        if self.n_rows * self._n_terms > _CHUNK**2:
            raise ValueError(
                f"{self.n_rows} rows of {self._n_terms} places each are too many for one pass; "
                "lower physical_batch_size."
            )

    def lengths(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `RowPart`."""
        lengths, extents = [], []
        for left, right in self._chunks_of_rows():
            terms = torch.linalg.vector_norm(left, dim=2)
            if self._trains("weight"):
                extent = (terms * self._right_lengths(right)).sum(1)
                lengths.append(self._length(left, right, extent))
                extents.append(extent)
            if self._trains("bias"):
                extent = terms.sum(1)
                error = 2.0 * (self._n_terms + 16) * _UNIT * extent
                lengths.append(torch.linalg.vector_norm(left.sum(1), dim=1) + error)
                extents.append(extent)
        return self._joined(lengths), self._joined(extents)

    def add(self, factors: torch.Tensor, totals: Totals) -> None:
        """See `RowPart`."""
        left, right = self._left.flatten(0, 1), self._right.flatten(0, 1)
        weights = factors.repeat_interleave(self._n_terms)
        into = {
            name: totals[getattr(self._layer, name)]
            for name in ("weight", "bias")
            if self._trains(name)
        }
        # Chunks are added up by themselves, so that totals are rounded once a pass.
        several = len(left) > _CHUNK
        sums = {n: torch.zeros_like(total) for n, total in into.items()} if several else into
        for start in range(0, len(left), _CHUNK):
            places = slice(start, start + _CHUNK)
            # Zero times infinity is no number.
            out = (weights[places] == 0.0).unsqueeze(1)
            scaled = left[places].double().masked_fill_(out, 0.0) * weights[places].unsqueeze(1)
            if "weight" in sums:
                self._add_products(scaled, right[places], out, sums["weight"])
            if "bias" in sums:
                sums["bias"] += scaled.sum(0)
        if several:
            for name, total in into.items():
                total += sums[name]

    def numbers(self) -> list[torch.Tensor]:
        """See `RowPart`."""
        return [self._left, self._right, *self.lengths()]

    # -- what tokens do otherwise ----------------------------------------------------

    def _right_lengths(self, right: torch.Tensor) -> torch.Tensor:
        lengths: torch.Tensor = torch.linalg.vector_norm(right, dim=2)
        return lengths

    def _right_products(self, right: torch.Tensor) -> torch.Tensor:
        return right @ right.transpose(1, 2)

    def _add_products(
        self, scaled: torch.Tensor, right: torch.Tensor, out: torch.Tensor, total: torch.Tensor
    ) -> None:
        inputs = right.double().masked_fill_(out, 0.0)
        matrix = total.view(scaled.shape[1], -1)
        height = max(1, _PRODUCT_PIECE // 4 // inputs.shape[1])  # not a second total
        for start in range(0, len(matrix), height):
            columns = slice(start, start + height)
            matrix[columns] += scaled[:, columns].T @ inputs

    # -- lengths ---------------------------------------------------------------------

    def _length(
        self, left: torch.Tensor, right: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Not below the length of sum_t b_t a_t^T, whichever way is cheaper."""
        if self._n_terms == 1:
            return extent
        operations = self._n_terms**2 + left.shape[2] + right.shape[-1] + 16
        if self._by_products(left.shape[2], right.shape[-1]):
            squares = (left @ left.transpose(1, 2)).mul_(self._right_products(right)).sum((1, 2))
            return (squares.clamp(min=0.0) + 2.0 * operations * _UNIT * extent.square()).sqrt()
        lengths: torch.Tensor = torch.linalg.vector_norm(left.transpose(1, 2) @ right, dim=(1, 2))
        return lengths + 2.0 * operations * _UNIT * extent

    def _by_products(self, d_out: int, d_in: int) -> bool:
        return self._n_terms * (d_out + d_in) < d_out * d_in

    def _chunks_of_rows(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        d_out, d_in = self._left.shape[2], self._right.shape[-1]
        held = self._n_terms**2 if self._by_products(d_out, d_in) else d_out * d_in
        rows = max(1, _PRODUCT_PIECE // (self._n_terms * (d_out + d_in) + 2 * held))
        if self._left.is_cuda:  # its batched products round by where a row stands in the batch
            rows = 1
        for start in range(0, self.n_rows, rows):
            places = slice(start, start + rows)
            yield self._left[places].double(), self._doubled_right(self._right[places])

    def _doubled_right(self, right: torch.Tensor) -> torch.Tensor:
        return right.double()

    def _joined(self, of_parameters: list[torch.Tensor]) -> torch.Tensor:
        """Combine what chunks of rows gave, weight and bias in turn."""
        n_parameters = self._trains("weight") + self._trains("bias")
        each = [torch.cat(of_parameters[i::n_parameters]) for i in range(n_parameters)]
        joined: torch.Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
        return joined

    def _trains(self, name: str) -> bool:
        parameter = getattr(self._layer, name, None)
        return parameter is not None and parameter.requires_grad


class TokenGradients(ProductGradients):
    """Gradients of an embedding's table: b_t is added to the entry of token t.

    `right` has the tokens, shape (n_rows, T), and -1 where none is learned.
    """

    def _right_lengths(self, right: torch.Tensor) -> torch.Tensor:
        return (right >= 0).double()

    def _right_products(self, right: torch.Tensor) -> torch.Tensor:
        learned = (right >= 0).unsqueeze(1)
        return ((right.unsqueeze(1) == right.unsqueeze(2)) & learned).double()

    def _add_products(
        self, scaled: torch.Tensor, right: torch.Tensor, out: torch.Tensor, total: torch.Tensor
    ) -> None:
        learned = right >= 0
        tokens, places = torch.unique(right[learned], return_inverse=True)
        sums = scaled.new_zeros((len(tokens), scaled.shape[1]))
        total.index_add_(0, tokens, sums.index_add_(0, places, scaled[learned]))

    def _by_products(self, d_out: int, d_in: int) -> bool:
        return True

    def _doubled_right(self, right: torch.Tensor) -> torch.Tensor:
        return right


def factored(
    layer: nn.Module, inputs: list[torch.Tensor], backprops: torch.Tensor
) -> ProductGradients | None:
    """Factors of a layer's gradients, or None where it has none that are known here.

    Parameters
    ----------
    layer : torch.nn.Module
    inputs : list of torch.Tensor
    backprops : torch.Tensor of shape (n_rows, ...)
        Gradients of the rows' losses with regard to the layer's output.
    """
    if type(layer) is nn.Linear and inputs[0].ndim >= 2:
        a, b = inputs[0], backprops
        return ProductGradients(layer, _by_place(b), _by_place(a))
    if type(layer) is nn.Embedding and inputs[0].ndim >= 1:
        tokens = inputs[0].reshape(len(inputs[0]), -1)
        if layer.padding_idx is not None:
            tokens = tokens.masked_fill(tokens == layer.padding_idx, -1)
        return TokenGradients(layer, _by_place(backprops, len(tokens)), tokens)
    if type(layer) is nn.Conv2d and _is_plain(layer):
        patches = functional.unfold(
            inputs[0], layer.kernel_size, layer.dilation, _both(layer.padding), layer.stride
        )
        left = backprops.flatten(2)
        # Where the patches are larger than the gradients, these are held, by Opacus' rule.
        if patches.shape[2] * (left.shape[1] + patches.shape[1]) < layer.weight.numel():
            return ProductGradients(layer, left.transpose(1, 2), patches.transpose(1, 2))
    return None


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and layer.padding_mode == "zeros" and layer.padding != "same"


def _both(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    return (0, 0) if isinstance(padding, str) else padding


def _by_place(values: torch.Tensor, n_rows: int | None = None) -> torch.Tensor:
    return values.reshape(len(values) if n_rows is None else n_rows, -1, values.shape[-1])
