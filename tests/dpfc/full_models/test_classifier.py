"""`DPSGDClassifier` as a user has it: exact without noise, stated with it, saved and loaded."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.nn import functional

import dpfc
from dpfc import DPSGDClassifier, PrivacyWarning
from dpfc.accounting import compute_epsilon
from dpfc.exceptions import ModelFileError
from dpfc.full_models.dp_sgd.mechanism import GradientMechanism

CLASSES = range(3)


def classifier(module="linear", **options):
    defaults = {"epsilon": 4.0, "classes": CLASSES, "n_steps": 5, "sampling_probability": 0.5}
    return DPSGDClassifier(module, **defaults | options)


def seeded(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)
        return classifier(random_state=0, **options).fit(*args)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# -- without noise and clipping, it is plain training --------------------------------

PLAIN = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0),
}


@pytest.mark.parametrize("clipping", ["hooks", "functorch", "ghost"])
@pytest.mark.parametrize("optimizer", PLAIN)
def test_it_follows_plain_training_step_for_step(module, rows, optimizer, clipping):
    X, y = rows
    plain = copy.deepcopy(module)
    steps = PLAIN[optimizer](plain.parameters())
    for n_steps in range(1, 11):
        steps.zero_grad()
        functional.cross_entropy(plain(torch.from_numpy(X)), torch.from_numpy(y)).backward()
        steps.step()
        if n_steps in (1, 2, 10):
            model = classifier(
                module, epsilon=math.inf, l2_clip_norm=math.inf, sampling_probability=1.0,
                n_steps=n_steps, optimizer=optimizer, learning_rate=0.1, clipping=clipping,
                n_samples=60,
            ).fit(X, y)  # fmt: skip
            # Adam divides by roots of small squares, which magnifies rounding at its start.
            assert torch.allclose(weights(model.module_), weights(plain), atol=2e-5)
    assert not model.privacy_.private


def test_schedule_free_follows_the_authors_own_loop(module, rows):
    schedulefree = pytest.importorskip("schedulefree")
    X, y = rows
    plain = copy.deepcopy(module)
    steps = schedulefree.SGDScheduleFree(plain.parameters(), lr=0.5, momentum=0.9)
    steps.train()
    for _ in range(10):
        steps.zero_grad()
        functional.cross_entropy(plain(torch.from_numpy(X)), torch.from_numpy(y)).backward()
        steps.step()
    steps.eval()
    model = classifier(
        module, epsilon=math.inf, l2_clip_norm=math.inf, sampling_probability=1.0, n_steps=10,
        optimizer="schedule-free-sgd", learning_rate=0.5, n_samples=60,
    ).fit(X, y)  # fmt: skip
    assert torch.allclose(weights(model.module_), weights(plain), atol=1e-5)


# -- what it gives -------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "schedule-free-sgd", "o2nc"])
def test_it_learns_what_can_be_learnt(rows, optimizer):
    X, y = rows
    X, y = np.tile(X, (20, 1)), np.tile(y, 20)
    model = seeded(X, y, module="mlp", epsilon=8.0, n_steps=60, optimizer=optimizer)
    assert model.score(X, y) > 0.9
    assert model.predict_proba(X).sum(1) == pytest.approx(1)
    assert (model.predict_proba(X).argmax(1) == model.predict(X)).all()
    assert model.decision_function(X).shape == (1200, 3)
    assert len(model.gradient_norms_) == 60


def test_the_users_module_stays_as_it_was(module, rows):
    before = weights(module).clone()
    model = seeded(*rows, module=module)
    assert torch.equal(weights(module), before)
    assert not torch.equal(weights(model.module_), before)
    assert not any(hasattr(p, "grad_sample") for p in model.module_.parameters())
    assert clone(model).get_params()["n_steps"] == 5


def test_two_classes_and_names(rows):
    X, y = rows
    names = np.array(["no", "yes"])[(y > 0).astype(int)]
    model = seeded(X, names, classes=["no", "yes"])
    assert set(model.predict(X)) <= {"no", "yes"}
    assert model.decision_function(X).shape == (60,)
    assert ((model.decision_function(X) > 0) == (model.predict(X) == "yes")).all()


def test_bytes_are_scaled_and_tokens_go_through_as_they_are():
    images = np.arange(8 * 64, dtype=np.uint8).reshape(8, 1, 8, 8)
    labels = np.arange(8) % 3
    of_bytes = seeded(images, labels, module="cnn")
    of_floats = seeded((images / np.float32(255)).astype(np.float32), labels, module="cnn")
    assert torch.allclose(weights(of_bytes.module_), weights(of_floats.module_), atol=1e-6)
    tokens = np.arange(8 * 10).reshape(8, 10) % 5
    model = seeded(tokens, labels, module="dlr", vocabulary_size=5, n_steps=2)
    assert model.predict(tokens).shape == (8,)


def test_a_seed_gives_the_same_bits_and_none_gives_others(rows):
    first, second = seeded(*rows), seeded(*rows)
    assert torch.equal(weights(first.module_), weights(second.module_))
    fresh = [classifier().fit(*rows) for _ in range(2)]
    assert not torch.equal(weights(fresh[0].module_), weights(fresh[1].module_))
    assert fresh[0].privacy_.private and not first.privacy_.private
    with pytest.warns(PrivacyWarning, match="random_state was given"):
        classifier(random_state=0).fit(*rows)


def test_an_average_of_weights_is_published(rows):
    last, average = seeded(*rows), seeded(*rows, ema_decay=0.9)
    assert not torch.equal(weights(last.module_), weights(average.module_))
    assert last.gradient_norms_ == average.gradient_norms_


# -- what is trained -----------------------------------------------------------------


def moved(module, fitted):
    before, after = dict(module.named_parameters()), dict(fitted.named_parameters())
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ("head", {"3.weight", "3.bias"}),
        ("norm-and-head", {"1.weight", "1.bias", "3.weight", "3.bias"}),
        (["0"], {"0.weight", "0.bias"}),
        (["3.bias"], {"3.bias"}),
    ],
)
def test_only_what_is_trainable_moves(rows, trainable, expected):
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 6), torch.nn.LayerNorm(6), torch.nn.Tanh(), torch.nn.Linear(6, 3)
    )
    model = seeded(*rows, module=module, trainable=trainable)
    assert moved(module, model.module_) == expected
    (gradient,) = [r for r in model.privacy_.releases if r.name == "gradient"]
    parameters = dict(module.named_parameters())
    assert gradient.shape == [sum(parameters[name].numel() for name in expected)]


def test_adapters_train_beside_frozen_layers(module, rows, tmp_path):
    pytest.importorskip("peft")
    model = seeded(*rows, module=module, trainable="lora")
    trained = {name for name, p in model.module_.named_parameters() if p.requires_grad}
    assert {name.split(".")[-2] for name in trained} >= {"default"}
    assert any(name.startswith("2.") for name in trained)
    base = model.module_.get_parameter("0.base_layer.weight")
    assert torch.equal(base, module[0].weight)
    model.save(tmp_path / "model")
    again = dpfc.load_model(tmp_path / "model", module=module)
    assert (again.predict(rows[0]) == model.predict(rows[0])).all()


# -- what is stated ------------------------------------------------------------------


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_the_statement_adds_up_what_ran(rows, relation):
    model = classifier(neighboring_relation=relation).fit(*rows)
    statement = model.privacy_
    assert statement.private and statement.accountant == "pld"
    renyi = statement.epsilon_by_accountant["rdp"]
    assert isinstance(renyi, float) == (relation == "add_or_remove_one")
    assert statement.epsilon_by_accountant["pld"] <= 4.0
    assert [r.name for r in statement.releases] == (
        ["count", "gradient"] if relation == "add_or_remove_one" else ["gradient"]
    )
    plan = model.privacy_plan()
    assert compute_epsilon(plan.event, 1e-5, neighboring_relation=relation) <= 4.0
    statement.verify()


def test_n_samples_that_is_public_costs_nothing(rows):
    model = classifier(n_samples=60).fit(*rows)
    assert [r.name for r in model.privacy_.releases] == ["gradient"]
    assert any("stated as public knowledge" in words for words in model.privacy_.rests_on)


def test_nothing_but_releases_decides_a_model(rows, monkeypatch):
    """With all sums replaced by fixed numbers, other rows give the same bits."""
    monkeypatch.setattr(
        GradientMechanism,
        "_clipped_sum",
        lambda self, places: torch.ones(self._n_entries, dtype=torch.float64),
    )
    monkeypatch.setattr(GradientMechanism, "_sampled_rows", lambda self: torch.arange(1))
    X, y = rows
    models = [
        seeded(data, labels, module="mlp", n_samples=60, mechanic=True)
        for data, labels in ((X, y), (X[:20] * 100, 2 - y[:20]))
    ]
    assert torch.equal(*(weights(model.module_) for model in models))
    assert models[0].gradient_norms_ == models[1].gradient_norms_
    first, second = (model.privacy_.model_dump() for model in models)
    assert first == second


def test_a_ledger_pays_once_and_refuses_what_does_not_fit(rows, tmp_path):
    path = tmp_path / "ledger.db"
    ledger = dpfc.PrivacyLedger(path)
    ledger.create_budget("d", epsilon=5, delta=1e-5, filter="renyi")
    options = {"ledger": path, "dataset": "d", "n_steps": 20}
    model = classifier(**options).fit(*rows)
    (spend,) = ledger.history("d")
    assert spend.statement == model.privacy_ and spend.purpose == "fit DPSGDClassifier"
    with pytest.raises(dpfc.BudgetExceeded):
        classifier(**options).fit(*rows)
    assert len(ledger.history("d")) == 1


def test_progress_says_what_is_spent(rows, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    classifier(verbose=True, n_steps=3).fit(*rows)
    assert "so far" in capsys.readouterr().err
    # There is no Rényi bound for it.
    classifier(verbose=True, n_steps=3, neighboring_relation="replace_one").fit(*rows)
    assert "private steps" in capsys.readouterr().err


# -- model file ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "mlp", "dlr"])
def test_a_network_by_name_comes_back_from_its_file(rows, tmp_path, name):
    X, y = rows
    model = seeded(X, y, module=name, n_steps=2)
    model.save(tmp_path / "model")
    again = dpfc.load_model(tmp_path / "model")
    assert isinstance(again, DPSGDClassifier)
    assert np.array_equal(again.decision_function(X), model.decision_function(X))
    assert again.privacy_ == model.privacy_ and again.module == name


def test_a_module_of_ones_own_has_to_be_given_again(module, rows, tmp_path):
    model = seeded(*rows, module=module)
    model.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="module=…"):
        dpfc.load_model(tmp_path / "model")
    with pytest.raises(ModelFileError, match="not the one that was saved"):
        dpfc.load_model(tmp_path / "model", module=torch.nn.Linear(5, 3))
    again = dpfc.load_model(tmp_path / "model", module=module)
    assert (again.predict(rows[0]) == model.predict(rows[0])).all()


def test_a_changed_file_is_refused(rows, tmp_path):
    model = seeded(*rows)
    path = tmp_path / "model"
    model.save(path)
    data = path.read_bytes()
    for changed in (data.replace(b'"network":"linear"', b'"network":"linfar"'), data[:-4]):
        assert changed != data
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            dpfc.load_model(path)


def test_numbers_beyond_the_input_bound_count_as_it_at_the_fit_and_after():
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = np.arange(60) % 2
    X[0] = 1e9
    cut = np.clip(X, -3, 3)
    module = torch.nn.Linear(4, 2)
    fits = [
        DPSGDClassifier(
            module,
            epsilon=math.inf,
            classes=[0, 1],
            n_steps=3,
            sampling_probability=1.0,
            input_bound=3.0,
        ).fit(rows, y)
        for rows in (X, cut)
    ]
    assert np.array_equal(fits[0].predict_proba(X), fits[1].predict_proba(cut))
    assert any("bounded to 3 either way" in line for line in fits[0].privacy_.rests_on)
    assert X[0, 0] == 1e9  # the user's rows stay as they are
