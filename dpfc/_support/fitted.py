"""What a fit leaves on its estimator: everything, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["fitted_or_nothing"]


@contextmanager
def fitted_or_nothing(estimator: object, names: Iterable[str] = ()) -> Iterator[None]:
    """Forget what an older fit left before the block, and what this one set if the block fails.

    NumPy does not say meanwhile that numbers under- or overflow, whatever the caller's `seterr`:
    single rows decide that, and an error would come after the spend.

    Parameters
    ----------
    estimator : object
        Its fitted attributes end with an underscore, as in scikit-learn.
    names : iterable of str
        Further ones.
    """
    _forget(estimator, names)
    try:
        with np.errstate(all="ignore"):
            yield
    except BaseException:  # Ctrl-C as well
        _forget(estimator, names)
        raise


def _forget(estimator: object, names: Iterable[str]) -> None:
    kept = estimator.__dict__
    for name in [*names, *(n for n in kept if n.endswith("_") and not n.startswith("_"))]:
        kept.pop(name, None)
