"""A test of noise that has power: it accepts a standard deviation, and refuses others."""

from __future__ import annotations

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-7


def variance_p_value(draws, sigma):
    draws = np.asarray(draws).ravel()
    law = stats.chi2(draws.size)
    statistic = float((draws**2).sum()) / sigma**2
    return 2 * min(law.cdf(statistic), law.sf(statistic))


def assert_noise(draws, sigma):
    """Accept sigma, and show that the same check refuses 0.8 and 1.25 times sigma."""
    assert np.asarray(draws).size >= 1500
    assert variance_p_value(draws, sigma) > FALSE_ALARM
    assert variance_p_value(draws, 0.8 * sigma) < FALSE_ALARM
    assert variance_p_value(draws, 1.25 * sigma) < FALSE_ALARM
