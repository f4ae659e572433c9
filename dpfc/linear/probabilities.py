"""From linear scores to class probabilities."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Link", "logistic_probabilities", "probabilities", "squared_probabilities"]

Link = Literal["softmax", "sigmoid", "squared"]


def probabilities(scores: NDArray[np.float64], link: Link) -> NDArray[np.float64]:
    """Probabilities by the kind of the scores: of a logistic loss, or of least squares.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_classes), or (n_rows, 1) for two classes
    link : {"softmax", "sigmoid", "squared"}

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
    """
    if link == "squared":
        return squared_probabilities(scores)
    return logistic_probabilities(scores, link)


def logistic_probabilities(scores: NDArray[np.float64], loss: str) -> NDArray[np.float64]:
    """Probabilities of the logistic losses.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_classes), or (n_rows, 1) for two classes
    loss : {"softmax", "sigmoid"}
        "sigmoid" scores are one-versus-rest; their probabilities are scaled to sum to 1.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
    """
    from scipy.special import expit, softmax  # here: classes alone are predicted without SciPy

    if scores.shape[1] == 1:
        return np.hstack([expit(-scores), expit(scores)])
    if loss == "softmax":
        return np.asarray(softmax(scores, axis=1))
    positive = np.maximum(expit(scores), np.finfo(np.float64).tiny)  # no row sums to 0
    return np.asarray(positive / positive.sum(axis=1, keepdims=True))


def squared_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities from regression scores that estimate P(y = k | x) up to shrinkage.

    softmax(K s) has slope 1 in s at equal scores, so it agrees with p = s to first
    order there, keeps the order of the scores, and never leaves [0, 1].

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_classes), or (n_rows, 1) of differences for two

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
    """
    from scipy.special import expit, softmax  # here: classes alone are predicted without SciPy

    if scores.shape[1] == 1:
        return np.hstack([expit(-2.0 * scores), expit(2.0 * scores)])
    return np.asarray(softmax(scores.shape[1] * scores, axis=1))
