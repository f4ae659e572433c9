"""What a public network says about private test rows; see `dpfc.evaluation.scored_rows`."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dpfc.full_models.dp_sgd.dry_run import check_evaluation, failed_on_row
from dpfc.full_models.dp_sgd.module_state import difference, module_state
from dpfc.full_models.dp_sgd.rows import as_input, check_labels
from dpfc.full_models.silence import in_silence
from dpfc.mechanism.people import Shares

if TYPE_CHECKING:
    from dpfc.full_models.classifier import DPSGDClassifier

__all__ = ["ScoredNetworkRows"]

_LARGEST = 1e30


class ScoredNetworkRows:
    """Predicted class and probabilities of each test row, as `ScoredRows` has them.

    A row's scores are a bit-exact function of the row, on one machine: it is copied into memory
    of its own (contiguous, and aligned to 64 bytes, as all that PyTorch allocates), and goes
    through the network alone, on one thread of the CPU. Kernels round otherwise by the rows
    beside a row, by the place in memory where it begins, and by the number of threads; one
    removed row could then tip the predictions of others.

    All rows are scored when this is made, which is before anything is spent: whatever a row may
    do to a module of the user's own shows then.

    Parameters
    ----------
    model : DPSGDClassifier
        Fitted, and public.
    X, y
        Private test rows, as for `DPSGDClassifier.fit`.

    Raises
    ------
    ValueError
        As in `fit`; if the rows are not of the model's shape; if the module fails on a row,
        whose position is named; or if it keeps something of rows.
    """

    device = torch.device("cpu")

    def __init__(self, model: DPSGDClassifier, X: Any, y: ArrayLike | None):
        rows = model.check_rows(X, y)
        self.codes = check_labels(rows.labels, model.classes_).numpy()
        self.n_samples = len(self.codes)
        self.n_features = 1 + len(model.classes_)
        self.shares: Shares | None = None
        module = copy.deepcopy(model.module_).cpu().eval()
        by_name = isinstance(model.module, str) and model.trainable != "lora"
        with _alone():
            if by_name:  # networks by name are tested with dpfc
                scored = _scored(module, rows.X, self.n_features)
            else:
                check_evaluation(module, rows.X[:1])
                scored = _scored_and_forgotten(module, rows.X, self.n_features)
        self._scored: NDArray[np.float64] = scored.numpy()

    @property
    def central_logits(self) -> NDArray[np.float64]:
        """Logits of equal probabilities, shape (n_classes,); public."""
        n_classes = self.n_features - 1
        return np.full(n_classes, -math.log(n_classes - 1))

    def blocks(self, block_rows: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Yield (scored rows (n, 1 + n_classes) float64, codes (n,))."""
        for start in range(0, self.n_samples, block_rows):
            place = slice(start, start + block_rows)
            yield self._scored[place], self.codes[place]


def _scored(module: torch.nn.Module, X: torch.Tensor, n_columns: int) -> torch.Tensor:
    """Predicted class and probabilities, (n_rows, n_columns) float64."""
    scored = torch.empty((len(X), n_columns), dtype=torch.float64)
    for place, row in enumerate(X):
        own = torch.empty((1, *row.shape), dtype=row.dtype)
        own[0] = row
        _seed()  # for a module that draws in evaluation, too
        try:
            scores = module(as_input(own, own.device)).double()
        except Exception as error:  # whatever a module of the user's own raises
            raise ValueError(failed_on_row(place, error)) from None
        # A row of huge numbers may have scores that are none; it must not spoil sums of others.
        scores = torch.nan_to_num(scores, nan=0.0).clamp(-_LARGEST, _LARGEST)
        if scores.shape != (1, n_columns - 1):
            raise ValueError(
                f"the module must return one score a class for each row; for row {place} it "
                "returned another shape."
            )
        scored[place, 0] = scores.argmax(dim=1)[0]
        scored[place, 1:] = torch.softmax(scores, dim=1)[0]
    return scored


def _scored_and_forgotten(module: torch.nn.Module, X: torch.Tensor, n_columns: int) -> torch.Tensor:
    """Scores of a module that is left as it was; a row may leave something that no made-up did."""
    before = module_state(module)
    scored = _scored(module, X, n_columns)
    changed = difference(before, module_state(module))
    if changed is not None:
        raise ValueError(
            f"the module keeps something of the rows that go through it: {changed} changes as rows "
            "are scored, so that the score of a row may depend on earlier ones. Remove it. Nothing "
            "was spent."
        )
    return scored


def _seed() -> None:
    """Let every row see the same numbers of the global generators."""
    torch.default_generator.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (which modules of users' own draw from)


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, no gradients or warnings, and the global generators as they were afterwards."""
    threads = torch.get_num_threads()
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), in_silence():
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
