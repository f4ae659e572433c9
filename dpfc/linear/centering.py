"""How much of the budget the rows' mean is worth; public quantities only."""

from __future__ import annotations

import math

__all__ = ["mean_share"]

# Assumed share of a row's energy that is left when the mean is taken off. Measured: 0.5 to 0.85
# for pooled activations and pixels without three quarters of each row's mean, 0.7 to 0.9
# for sentence embeddings.
_CENTRED_ENERGY = 0.5


def mean_share(signal_to_noise: float, n_features: int) -> float:
    """Share of μ² for the mean that leaves the most signal for the solver.

    Rows of length 1 have a centred part of energy v. A mean bought with a share s of the
    budget is off by d / ((nμ)² s) in squared norm; that error stays in every row and takes
    its part of a row's bounded length. What the solver sees of a class, squared, is then

        (1 - s) v / (v + d / ((nμ)² s)) = (1 - s) / (1 + a/s),   a = d / (v (nμ)²),

    which is largest at s = √(a² + a) - a. Rows that are not centred keep v of their signal:
    where the best share gives less than that, nothing is spent.

    Parameters
    ----------
    signal_to_noise : float
        nμ over the sensitivity of a sum of unit rows.
    n_features : int
        d.

    Returns
    -------
    float in [0, 0.5)
        0 where centring does not pay.
    """
    # A floor, so that any noise multiplier that follows is a finite number.
    a = max(n_features / _CENTRED_ENERGY / signal_to_noise / signal_to_noise, 1e-24)
    share = 1.0 / (1.0 + math.sqrt(1.0 + 1.0 / a))
    worth = (1.0 - share) / (1.0 + a / share)
    return share if worth > _CENTRED_ENERGY else 0.0
