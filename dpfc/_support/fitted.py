"""What a fit leaves on its estimator: everything, or nothing; and what may not disturb a spend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np

from dpfc._support.late import torch

__all__ = ["fitted_or_nothing", "undisturbed"]


@contextmanager
def fitted_or_nothing(estimator: object, names: Iterable[str] = ()) -> Iterator[None]:
    """Forget what an older fit left before the block, and what this one set if the block fails.

    Numbers are as in `undisturbed`.

    Parameters
    ----------
    estimator : object
        Its fitted attributes end with an underscore, as in scikit-learn.
    names : iterable of str
        Further ones.
    """
    _forget(estimator, names)
    try:
        with undisturbed():
            yield
    except BaseException:  # Ctrl-C as well
        _forget(estimator, names)
        raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep what a caller has set for numbers from a block that spends.

    NumPy does not say meanwhile that numbers under- or overflow, whatever the caller's `seterr`:
    single rows decide that, and an error would come after the spend. For that, too, PyTorch puts
    nothing on another device than the CPU that is not said to lie there, whatever its default.
    """
    cpu = torch.device("cpu")
    with np.errstate(all="ignore"), cpu if torch.get_default_device() != cpu else nullcontext():
        yield


def _forget(estimator: object, names: Iterable[str]) -> None:
    kept = estimator.__dict__
    for name in [*names, *(n for n in kept if n.endswith("_") and not n.startswith("_"))]:
        kept.pop(name, None)
