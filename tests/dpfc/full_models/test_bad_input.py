"""What cannot be trained privately is refused in plain words, before anything is spent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dpfc
from dpfc import DPSGDClassifier
from dpfc.features import MissingDependencyError


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 3, dtype=torch.complex64))

    def forward(self, x):
        return (x.to(torch.complex64) @ self.weight).real


class Mixing(nn.Linear):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Counting(nn.Linear):
    def __init__(self):
        super().__init__(5, 3)
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, x):
        self.seen += x.detach().sum(0)
        return super().forward(x)


class Unused(nn.Linear):
    def __init__(self):
        super().__init__(5, 3)
        self.other = nn.Linear(2, 2)


class Tied(nn.Module):
    """One layer's weight is read by another's forward pass, behind the hooks' back."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.layer(x) + x @ self.layer.weight.T)


def frozen():
    return nn.Linear(5, 3).requires_grad_(False)


def broken(value):
    layer = nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight[0, 0] = value
    return layer


MODULES = {
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        "normalises over the rows of a batch.*GroupNorm",
    ),
    "frozen batch norm": (
        lambda: nn.Sequential(
            nn.Linear(5, 4), nn.BatchNorm1d(4).requires_grad_(False), nn.Linear(4, 3)
        ),
        "keeps statistics of private rows",
    ),
    "running instance norm": (
        lambda: nn.Sequential(nn.InstanceNorm1d(5, track_running_stats=True), nn.Linear(5, 3)),
        "track_running_stats=False",
    ),
    "lstm": (lambda: nn.LSTM(5, 3), "opacus.layers.DPLSTM"),
    "attention": (lambda: nn.MultiheadAttention(5, 1), "DPMultiheadAttention"),
    "complex": (Complex, "too little noise"),
    "half": (lambda: nn.Linear(5, 3).half(), "use float32"),
    "frozen everything": (frozen, "no parameter to train"),
    "nan": (lambda: broken(float("nan")), "NaN or infinity before training"),
    "infinity": (lambda: broken(float("inf")), "NaN or infinity before training"),
    "mixing": (Mixing, lambda: None),
    "counting": (Counting, "keeps something of the rows.*'seen' of the module changes"),
    "unused": (Unused, "has no part in the scores"),
    "tied": (Tied, "does not give the right gradients"),
    "wrong width": (lambda: nn.Linear(4, 3), "does not take rows of shape"),
    "wrong classes": (lambda: nn.Linear(5, 4), r"scores of shape \(n_rows, 3\)"),
    "no parameters": (lambda: nn.Identity(), "no parameter to train"),
    "two outputs": (
        lambda: nn.Sequential(nn.Linear(5, 3), nn.Unflatten(1, (1, 3))),
        "one a class",
    ),
}
MODULES["mixing"] = (lambda: Mixing(5, 3), "depend on the other rows")


@pytest.fixture
def fit(rows, tmp_path):
    """Try to fit with a ledger; nothing may be on record afterwards."""
    ledger = dpfc.PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("d", epsilon=20, delta=1e-5, filter="renyi")

    def run(module="linear", X=rows[0], y=rows[1], **options):
        defaults = {
            "epsilon": 4.0, "classes": range(3), "n_steps": 20, "sampling_probability": 0.5,
            "ledger": ledger.path, "dataset": "d",
        }  # fmt: skip
        model = DPSGDClassifier(module, **defaults | options)
        try:
            return model.fit(X, y)
        finally:
            fitted = hasattr(model, "privacy_")
            assert len(ledger.history("d")) == fitted
            assert fitted == hasattr(model, "module_")

    return run


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_cannot_be_trained_privately_is_refused(fit, name):
    make, words = MODULES[name]
    with pytest.raises(ValueError, match=words):
        fit(make())


def test_no_module_at_all(fit):
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        fit(lambda x: x)
    with pytest.raises(ValueError, match="'cnn'"):
        fit("cnm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 0}, "epsilon must be"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"sampling_probability": 0}, "sampling_probability must be"),
        ({"sampling_probability": 1.5}, "sampling_probability must be"),
        ({"l2_clip_norm": -1}, "l2_clip_norm must be"),
        ({"l2_clip_norm": float("inf")}, "must be finite unless epsilon is inf"),
        ({"clipping": "flat"}, "clipping must be one of"),
        ({"optimizer": "adm"}, "'adam'"),
        ({"schedule": "linea"}, "'linear'"),
        ({"learning_rate": -0.1}, "learning_rate must be"),
        ({"learning_rate": 1e31}, "learning_rate must be"),
        ({"optimizer": "schedule-free-sgd", "mechanic": True}, "mechanic"),
        ({"schedule": "refined"}, "schedule_norms"),
        ({"augmentation": "flipp"}, "augmentation must be one of"),
        ({"augmentation_multiplicity": 4}, "needs an augmentation"),
        (
            {"augmentation": "flip", "augmentation_multiplicity": 4, "clipping": "ghost"},
            "cannot average copies",
        ),
        ({"ema_decay": 1.0}, "ema_decay must be"),
        ({"trainable": ["2"]}, "no parameter '2'"),
        ({"trainable": "heads"}, "trainable"),
        ({"device": "gpu"}, "device must be one of"),
        ({"accountant": "exact"}, "exact"),
        ({"ledger": None}, "go together"),
        ({"classes": [0, 1]}, "not in classes, the first in row 2"),
        ({"physical_batch_size": 0}, "physical_batch_size must be"),
        ({"random_state": "seed"}, "random_state must be"),
    ],
)
def test_parameters_are_checked(fit, options, words):
    with pytest.raises(ValueError, match=words):
        fit(**options)


def with_value(X, value):
    changed = X.copy()
    changed[7, 2] = value
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda X, y: (with_value(X, np.nan), y), "NaN or infinity, first in row 7"),
        (lambda X, y: (with_value(X, np.inf), y), "NaN or infinity, first in row 7"),
        (lambda X, y: (with_value(X.astype(float), 1e300), y), "NaN or infinity, first in row 7"),
        (lambda X, y: (X, y[:-1]), "one label a row"),
        (lambda X, y: (X, np.c_[y, y]), "y should be a 1d array"),
        (lambda X, y: (X, None), "requires y"),
        (lambda X, y: (X, y + 1), "not in classes, the first in row 2"),
        (lambda X, y: (X, y.astype(str)), "different types|not in classes"),
        (lambda X, y: (X[:0], y[:0]), "one row or more"),
        (lambda X, y: (X[:, 0], y), "one row or more, each an array"),
        (lambda X, y: (X.astype(str), y), "numbers only"),
        (lambda X, y: (X.astype(complex), y), "numbers only"),
        (lambda X, y: ([[1, 2], [3]], y), "X|numbers|sequence"),
    ],
)
def test_data_are_checked_and_never_shown(fit, rows, change, words):
    with pytest.raises(ValueError, match=words) as error:
        X, y = change(*rows)
        fit(X=X, y=y)
    for value in rows[0].ravel()[:40]:
        assert f"{value:.4f}" not in str(error.value)


def test_a_label_out_of_range_is_named_by_its_row_alone(fit, rows):
    y = rows[1].copy()
    y[41] = 98765
    with pytest.raises(ValueError, match="first in row 41") as error:
        fit(y=y)
    assert "98765" not in str(error.value)


def test_a_fit_that_diverges_says_so_and_is_on_record(rows, tmp_path):
    ledger = dpfc.PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("d", epsilon=20, delta=1e-5, filter="renyi")
    model = DPSGDClassifier(
        "linear", epsilon=4.0, classes=range(3), optimizer="sgd", learning_rate=1e30, n_steps=20,
        l2_clip_norm=1e12, sampling_probability=0.5, ledger=ledger.path, dataset="d",
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match="diverged"):
        model.fit(*rows)
    assert len(ledger.history("d")) == 1 and not hasattr(model, "module_")


def test_a_missing_package_is_named_with_what_to_install(fit, monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"dpfc\[full-models\]"):
        fit(optimizer="schedule-free-sgd")
    with pytest.raises(MissingDependencyError, match=r"dpfc\[lora\]"):
        fit("mlp", trainable="lora")


def test_a_prediction_needs_rows_of_the_same_shape(fit, rows):
    model = fit()
    with pytest.raises(ValueError, match=r"expecting \(5,\)"):
        model.predict(rows[0][:, :4])
