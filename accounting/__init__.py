"""Privacy accounting: budgets to noise, noise to guarantees, guarantees to statements."""

from dpfc.accounting._events import UnsupportedEventError
from dpfc.accounting.accountants import (
    compute_delta,
    compute_epsilon,
    default_accountant,
    epsilon_by_accountant,
)
from dpfc.accounting.calibration import calibrate
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from dpfc.accounting.plans import PlannedRelease, PrivacyPlan, ReleaseRequest
from dpfc.accounting.statements import PrivacyStatement, ReleaseRecord, make_statement

__all__ = [
    "PlannedRelease",
    "PrivacyPlan",
    "PrivacyStatement",
    "ReleaseRecord",
    "ReleaseRequest",
    "UnsupportedEventError",
    "calibrate",
    "compute_delta",
    "compute_epsilon",
    "default_accountant",
    "epsilon_by_accountant",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "make_statement",
]
