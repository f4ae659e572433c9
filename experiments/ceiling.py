"""What is reached without privacy: scikit-learn's logistic regression on the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bound_rows", "logistic_ceiling"]


def logistic_ceiling(
    X: NDArray[np.floating],
    y: NDArray[Any],
    X_test: NDArray[np.floating],
    y_test: NDArray[Any],
    inverse_strengths: Sequence[float] = (10.0,),
    max_iter: int = 300,
) -> tuple[float, float]:
    """Fit logistic regression on the rows as the private classifiers see them; not private.

    Rows are scaled to length 1, centred by the exact mean of the training rows, and scaled
    again.

    Parameters
    ----------
    X, X_test : ndarray of shape (n_samples, n_features)
    y, y_test : ndarray of shape (n_samples,)
    inverse_strengths : sequence of float
        Values of scikit-learn's C. The best is chosen on the test rows, so that the result is
        a ceiling and not an estimate.
    max_iter : int

    Returns
    -------
    (float, float)
        The best C, and the accuracy on the test rows with it.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    rows, test_rows = bound_rows(X, X_test)
    found = []
    for strength in inverse_strengths:
        # Products this slim gain nothing from threads, and lose much where cores are shared.
        with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
            # Accuracy stands still long before the weights do.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=strength, max_iter=max_iter, tol=1e-3).fit(rows, y)
        found.append((float(model.score(test_rows, y_test)), strength))
    accuracy, strength = max(found)
    return strength, accuracy


def bound_rows(
    X: NDArray[np.floating], X_test: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Map rows as the estimators do by default, centred by the exact mean of `X`; float32."""
    import torch

    from dpfc.mechanism.row_map import RowMap

    rows, test_rows = torch.from_numpy(X), torch.from_numpy(X_test)
    row_map = RowMap(nonnegative_root=True)
    row_map = replace(row_map, center=row_map(rows).mean(dim=0), length_scaling=0.2)
    return row_map(rows).float().numpy(), row_map(test_rows).float().numpy()
