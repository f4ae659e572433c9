"""Privacy accounting: budgets to noise, noise to guarantees, guarantees to statements."""

from dpfc.accounting.accountants import (
    compute_delta,
    compute_epsilon,
    default_accountant,
    epsilon_by_accountant,
)
from dpfc.accounting.calibration import (
    calibrate,
    calibrate_noise_multiplier,
    calibrate_sampling_probability,
    calibrate_steps,
)
from dpfc.accounting.events import UnsupportedEventError, event_from_json, event_to_json
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from dpfc.accounting.groups import (
    event_of_group,
    group_epsilon,
    group_guarantee,
    row_epsilon,
    row_guarantee,
)
from dpfc.accounting.ledger.ledger import (
    Budget,
    BudgetExceeded,
    LedgerCheck,
    LedgerError,
    ModelFile,
    PrivacyLedger,
    Remaining,
    Spend,
)
from dpfc.accounting.ledger.statement import make_ledger_statement
from dpfc.accounting.plans import PlannedRelease, PrivacyPlan, ReleaseRequest
from dpfc.accounting.profiles import PrivacyProfile, privacy_profile
from dpfc.accounting.statements.statement import (
    PrivacyStatement,
    ReleaseRecord,
    StatementError,
    make_statement,
)

__all__ = [
    "Budget",
    "BudgetExceeded",
    "LedgerCheck",
    "LedgerError",
    "ModelFile",
    "PlannedRelease",
    "PrivacyLedger",
    "PrivacyPlan",
    "PrivacyProfile",
    "PrivacyStatement",
    "ReleaseRecord",
    "ReleaseRequest",
    "Remaining",
    "Spend",
    "StatementError",
    "UnsupportedEventError",
    "calibrate",
    "calibrate_noise_multiplier",
    "calibrate_sampling_probability",
    "calibrate_steps",
    "compute_delta",
    "compute_epsilon",
    "default_accountant",
    "epsilon_by_accountant",
    "event_from_json",
    "event_of_group",
    "event_to_json",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "group_epsilon",
    "group_guarantee",
    "make_ledger_statement",
    "make_statement",
    "privacy_profile",
    "row_epsilon",
    "row_guarantee",
]
