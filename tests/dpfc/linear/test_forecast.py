"""Forecasts: closed forms, what they are made from, and that they spend and keep nothing."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    PrivacyLedger,
)
from dpfc.accounting import gaussian_epsilon, gaussian_mu
from dpfc.linear.forecast import Outcomes, interval, outcomes_of
from dpfc.linear.forecast_rows import PublicRows, SimulatedRows, _separation

X, Y = load_digits(return_X_y=True)
X, Y = X[:400], Y[:400]
PUBLIC = {"public_features": X, "public_labels": Y}
MOMENTS = {"n_features": 12, "n_classes": 3, "accuracy": 0.9}


def outcomes(accuracies, gained=0.0, share=1.0, n_test=10**9, n_scored=math.inf):
    return Outcomes(np.array(accuracies), gained, share, n_test, n_scored)


def test_without_noise_it_is_what_fits_without_noise_reach():
    model = DPLeastSquaresClassifier(classes=range(10))
    found = model.forecast(200, epsilons=[math.inf], repeats=2, **PUBLIC)
    source = PublicRows(X, Y, range(10), 0)
    scores = []
    for repeat in range(2):
        split = source.split(repeat, 200)
        exact = clone(model).set_params(epsilon=math.inf).fit(split.X, split.y)
        scores.append(exact.score(split.X_test, split.y_test))
    (cell,) = found.cells
    assert cell.accuracy == pytest.approx(np.mean(scores), abs=1e-12)
    assert cell.low <= cell.accuracy <= cell.high


def test_more_rows_than_there_are_have_the_noise_of_their_number():
    source, model = PublicRows(X, Y, range(10), 0), DPLeastSquaresClassifier(classes=range(10))
    n_here = len(source.split(0, 10**6).y)
    epsilon = gaussian_epsilon(3.0 * gaussian_mu(0.5, 1e-5), 1e-5)
    wanted = outcomes_of(model, source, [3 * n_here], [0.5], 4, 0)[3 * n_here, 0.5]
    here = outcomes_of(model, source, [n_here], [epsilon], 4, 0)[n_here, epsilon]
    np.testing.assert_allclose(wanted.accuracies, here.accuracies, atol=0.02)
    assert wanted.share == pytest.approx(1 / 3) and here.share == 1.0
    assert wanted.gained > 0.0 and here.gained == 0.0


@pytest.mark.slow
def test_accuracy_grows_with_epsilon_and_with_rows():
    found = DPFCClassifier(classes=range(10)).forecast(
        [100, 3_000], epsilons=[0.1, 8.0], repeats=4, **PUBLIC
    )
    few_private, few, many_private, many = (cell.accuracy for cell in found.cells)
    assert few > few_private + 0.2 and many_private > few_private + 0.2 and many > few
    assert [(c.n_samples, c.epsilon) for c in found.cells] == [
        (100, 0.1),
        (100, 8.0),
        (3_000, 0.1),
        (3_000, 8.0),
    ]


def test_growth_carries_a_power_law_on():
    def accuracy(n):
        return 0.9 - 6.0 * n**-0.75

    m, n = 400, 5_000
    found = outcomes([accuracy(m)] * 3, accuracy(m) - accuracy(m / 4), m / n)
    assert found.mean == pytest.approx(accuracy(n), abs=1e-12)


def test_the_interval_of_equal_fits_is_the_normal_law_of_its_errors():
    p, allowance, n_scored, n_test = 0.7, 0.1, 500, 200
    error = math.sqrt(p * (1 - p) * (allowance**2 + 1 / n_scored + 1 / n_test))
    low, high = interval(outcomes([p] * 4, n_scored=n_scored), allowance, n_test)
    assert (low, high) == pytest.approx(
        (p + norm.ppf(0.1) * error, p + norm.ppf(0.9) * error), abs=1e-5
    )


def test_the_interval_holds_what_four_of_five_fits_reach():
    generator = np.random.default_rng(0)
    low, high = interval(outcomes(generator.normal(0.6, 0.05, 400)), 1e-6)
    assert norm.cdf((high - 0.6) / 0.05) - norm.cdf((low - 0.6) / 0.05) == pytest.approx(
        0.8, abs=0.05
    )
    # Where noise alone decides, two classes have one accuracy or the other.
    low, high = interval(outcomes([0.35, 0.65] * 10), 0.01)
    assert low < 0.36 and high > 0.64


def test_scatter_of_the_scoring_rows_is_taken_off():
    generator = np.random.default_rng(0)
    scored = generator.binomial(50, 0.8, 200) / 50
    wide = interval(outcomes(scored), 0.02)
    narrow = interval(outcomes(scored, n_test=50), 0.02)
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.97])
def test_two_simulated_classes_are_as_far_apart_as_the_normal_law_says(accuracy):
    generator = np.random.default_rng(0)
    means = generator.normal(size=(2, 5))
    factor = _separation(means, np.array([0.5, 0.5]), accuracy, generator)
    distance = factor * np.linalg.norm(means[0] - means[1])
    assert norm.cdf(distance / 2) == pytest.approx(accuracy, abs=0.03)


def test_simulated_rows_are_what_was_stated():
    shares, decay = [0.5, 0.3, 0.2], 1.0
    source = SimulatedRows(6, 3, 0.85, shares, decay, 0)
    split = source.split(0, 8_000)
    np.testing.assert_allclose(np.bincount(split.y) / len(split.y), shares, atol=0.03)
    reached = LinearDiscriminantAnalysis().fit(split.X, split.y).score(split.X_test, split.y_test)
    assert reached == pytest.approx(0.85, abs=0.03)
    within = np.concatenate([split.X[split.y == k] - split.X[split.y == k].mean(0) for k in (0, 1)])
    np.testing.assert_allclose(within.var(0), np.arange(1, 7) ** -decay, rtol=0.15)


@pytest.mark.parametrize("kind", [DPFCClassifier, DPGradientClassifier, DPNewtonClassifier])
def test_every_learner_forecasts_from_numbers_alone(kind):
    found = kind(classes=["a", "b", "c"]).forecast(
        500, n_features=12, accuracy=0.9, epsilons=[4.0], repeats=3
    )
    (cell,) = found.cells
    assert 0.5 < cell.accuracy < 1.0 and cell.low < cell.accuracy < cell.high
    assert found.n_classes == 3 and found.constant == pytest.approx(1 / 3)
    assert "simulated rows" in str(found) and "simulated rows" in found._repr_html_()
    assert found.to_dict()["cells"][0]["n_samples"] == 500


def test_rows_of_one_whole_have_a_narrower_interval_around_the_same_accuracy():
    model = DPLeastSquaresClassifier(classes=range(10))
    (one,), (other,) = (
        model.forecast(250, epsilons=[4.0], repeats=2, same_source=same, **PUBLIC).cells
        for same in (True, False)
    )
    assert one.accuracy == other.accuracy
    assert other.low < one.low - 0.02 and one.high < other.high - 0.02


def test_classes_keep_their_names_and_weights():
    named = DPLeastSquaresClassifier(classes=["b", "a"], class_weight={"a": 1.0, "b": 0.5})
    found = named.forecast(200, n_features=6, accuracy=0.9, epsilons=[8.0], repeats=2)
    assert found.n_classes == 2 and found.cells[0].accuracy > 0.6
    with pytest.raises(ValueError, match="n_classes is 3"):
        named.forecast(200, n_features=6, n_classes=3, accuracy=0.9)


def test_it_spends_nothing_and_keeps_nothing(tmp_path):
    book = tmp_path / "ledger.db"
    PrivacyLedger(book).create_budget("d", epsilon=1.0, delta=1e-5)
    before = book.read_bytes()
    model = DPLeastSquaresClassifier(ledger=book, dataset="d", random_state=3, n_samples=900)
    parameters = model.get_params()
    model.forecast(500, epsilons=[1.0], repeats=2, **MOMENTS)
    assert book.read_bytes() == before
    assert model.get_params() == parameters and not hasattr(model, "coef_")
    absent = DPLeastSquaresClassifier(ledger=tmp_path / "none.db", dataset="d")
    absent.forecast(500, epsilons=[1.0], repeats=2, **MOMENTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.db"]


def test_the_same_number_gives_the_same_forecast():
    def cells(random_state):
        model = DPLeastSquaresClassifier()
        return model.forecast(
            300, epsilons=[1.0], repeats=3, random_state=random_state, **MOMENTS
        ).cells

    assert cells(1) == cells(1) != cells(2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "publicly known"),
        ({"n_features": 3, "n_classes": 2}, "publicly known"),
        ({"n_features": 3, "n_classes": 2, "accuracy": 0.4}, r"accuracy must be .*\(0.5, 1\)"),
        ({"n_features": 0, "n_classes": 2, "accuracy": 0.9}, "n_features must be"),
        ({**MOMENTS, "class_shares": [0.5, 0.5]}, "class_shares must be 3"),
        ({**MOMENTS, "class_shares": [0.5, 0.4, 0.4]}, "add up to 1"),
        ({**MOMENTS, "spectrum_decay": -1.0}, "spectrum_decay must be"),
        ({**MOMENTS, "repeats": 1}, "repeats must be"),
        ({**MOMENTS, "n_test": 0}, "n_test must be"),
        ({**MOMENTS, "epsilons": [-1.0]}, "epsilons must be"),
        ({**MOMENTS, "epsilons": []}, "epsilons must"),
        ({**MOMENTS, "random_state": -1}, "random_state must be"),
        ({**PUBLIC, "n_features": 64}, "public_features tell n_features"),
        ({**MOMENTS, "same_source": True}, "same_source goes with"),
        ({"public_labels": Y}, "go with public_features"),
        ({"public_features": X}, "y must be given"),
        ({"public_features": X[:19], "public_labels": Y[:19]}, "20 rows or more"),
        ({"public_features": X[:, :0], "public_labels": Y}, "feature"),
    ],
)
def test_what_is_wrong_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        DPLeastSquaresClassifier().forecast(100, **given)


@pytest.mark.parametrize("n_samples", [1, 0, [], [100, -1], 1.5, "many"])
def test_numbers_of_rows_that_are_none_are_refused(n_samples):
    with pytest.raises((TypeError, ValueError), match="n_samples"):
        DPLeastSquaresClassifier().forecast(n_samples, **MOMENTS)


def test_sampled_gradients_are_refused():
    with pytest.raises(ValueError, match="sampling_probability"):
        DPGradientClassifier(sampling_probability=0.1).forecast(100, **MOMENTS)
