"""Unlabelled features that are public: what they tell of where private rows lie.

Public rows are bounded, centred by their own mean and bounded again, like private ones.
Their covariance costs no budget. It is used twice: directions in which rows hardly vary
are taken out of the rows before these are bounded, so that less of a row's bounded length
is spent on them, and it is what a noisy Gram matrix is shrunk to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.utils import check_array

from dpfc._support.late import torch
from dpfc.mechanism.row_map import RowMap, exact_linear_map
from dpfc.mechanism.rows import FLOAT_DTYPES, BlockSource

__all__ = ["PublicFeatures"]

_ALIKE = 1e-9  # of a row's length


class PublicFeatures:
    """Public rows as a fit sees them.

    Parameters
    ----------
    features : array-like of shape (n_public, n_features), or FeatureCache
    n_features : int
        Width of the private rows.
    row_map : RowMap
        How private rows are bounded; `normalize` is needed.

    Attributes
    ----------
    center : torch.Tensor of shape (n_features,)
        Mean of the public rows, bounded to length 1.

    Raises
    ------
    ValueError
        If the features are not finite numbers in two dimensions, are fewer than two rows,
        have another width, or if rows are not normalised.
    """

    def __init__(self, features: Any, n_features: int, row_map: RowMap):
        if not row_map.normalize:
            raise ValueError("public_features need normalize=True.")
        if isinstance(features, BlockSource):
            blocks = [np.asarray(block) for block, _ in features.blocks(4096)]
            features = np.concatenate(blocks) if blocks else np.empty((0, features.n_features))
        elif isinstance(features, torch.Tensor):
            features = features.detach().to("cpu", torch.float64).numpy()
        try:
            array = check_array(
                features, dtype=FLOAT_DTYPES, ensure_min_samples=2, input_name="public_features"
            )
        except (OverflowError, RuntimeError):
            raise ValueError("public_features must hold finite numbers only.") from None
        if array.shape[1] != n_features:
            raise ValueError(
                f"public_features have {array.shape[1]} features and X has {n_features}: embed "
                "both with the same backbone."
            )
        bounded = replace(row_map, l2_clip_norm=1.0, intercept_scaling=0.0, length_scaling=0.0)
        rows = torch.from_numpy(np.asarray(array, dtype=np.float64))
        self.center = bounded(rows).mean(dim=0)
        self._row_map = replace(bounded, center=self.center)
        # A row that is the mean but for rounding would be blown up to length 1.
        differs = torch.linalg.vector_norm(bounded(rows) - self.center, dim=1) > _ALIKE
        self._rows = rows[differs]

    def covariance(self, linear: torch.Tensor | None = None) -> torch.Tensor:
        """Second moments of the mapped public rows, of trace 1, shape (n_features, n_features).

        Few rows tell little of the small eigenvalues: they are shrunk to the mean eigenvalue
        as Ledoit and Wolf (2004) do.
        """
        rows = replace(self._row_map, linear=linear)(self._rows)
        trace = float((rows**2).sum())
        if trace <= 0.0:  # all rows are alike: they tell nothing
            return torch.eye(rows.shape[1], dtype=torch.float64) / rows.shape[1]
        moments, _ = ledoit_wolf(rows.numpy(), assume_centered=True)
        trace = float(np.trace(moments))
        return torch.from_numpy(np.asarray(moments / trace))

    def linear_map(self, threshold: float) -> torch.Tensor:
        """Damp directions that hold less than `threshold` of a row's energy.

        An eigenvalue v of the covariance becomes the factor v / (v + threshold).
        """
        values, vectors = torch.linalg.eigh(self.covariance())
        values = values.clamp(min=0.0)
        return exact_linear_map((vectors * (values / (values + threshold))) @ vectors.T)
