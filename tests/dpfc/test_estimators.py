"""The four classifiers as scikit-learn estimators, and as private ones."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from dpfc import (
    BudgetWarning,
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    PrivacyWarning,
)
from dpfc.mechanism.bounded_sums import BoundedRows

ESTIMATORS = [
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
]
# Checks that privacy itself makes impossible, with the reason; all else that noise does, the tags
# `poor_score` and `non_deterministic` of a finite budget say.
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "a row of weight 4 is one row, whose noise is "
    "four times as large; four rows are four",
}
SEEDED = "ignore:random_state was given"


@pytest.mark.filterwarnings("ignore::dpfc.PrivacyWarning")
@parametrize_with_checks(
    [estimator(epsilon=epsilon) for estimator in ESTIMATORS for epsilon in (1.0, math.inf)],
    expected_failed_checks=lambda estimator: (
        {} if math.isinf(estimator.epsilon) else EXPECTED_FAILURES
    ),
)
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


# -- predictions ---------------------------------------------------------------------


def fit(estimator_class, data, **options):
    X, y = data
    options = {"classes": sorted(set(np.asarray(y).tolist())), "epsilon": 8.0, **options}
    return estimator_class(**options).fit(X, y)


@pytest.mark.parametrize("which", ["two_classes", "three_classes"])
def test_probabilities_sum_to_one_and_agree_with_scores_and_labels(estimator_class, which, request):
    X, y = data = request.getfixturevalue(which)
    model = fit(estimator_class, data)
    P, scores = model.predict_proba(X), model.decision_function(X)
    np.testing.assert_allclose(P.sum(axis=1), 1.0, rtol=1e-12)
    assert P.min() >= 0.0
    if which == "two_classes":
        assert scores.shape == (80,)
        np.testing.assert_array_equal(np.argsort(scores), np.argsort(P[:, 1]))
        np.testing.assert_array_equal(model.predict(X), (scores > 0).astype(int))
        assert model.coef_.shape == (1, 4)
    else:
        assert scores.shape == (90, 3)
        np.testing.assert_array_equal(np.argsort(scores, axis=1), np.argsort(P, axis=1))
        np.testing.assert_array_equal(model.predict(X), scores.argmax(axis=1))
        assert model.coef_.shape == (3, 6)
    assert model.intercept_.shape == (len(model.coef_),)
    assert model.score(X, y) == np.mean(model.predict(X) == y)


def test_without_noise_the_classes_are_learnt(estimator_class, three_classes):
    assert fit(estimator_class, three_classes, epsilon=math.inf).score(*three_classes) > 0.9


def test_extreme_scores_still_give_probabilities(estimator_class, three_classes):
    model = fit(estimator_class, three_classes)
    model.coef_ = model.coef_ * 1e6
    P = model.predict_proba(three_classes[0])
    assert np.isfinite(P).all()
    np.testing.assert_allclose(P.sum(axis=1), 1.0, rtol=1e-9)
    model.intercept_ = np.full(3, -1e6)
    np.testing.assert_allclose(model.predict_proba(three_classes[0]).sum(axis=1), 1.0, rtol=1e-9)


def test_an_unfitted_classifier_says_so(estimator_class):
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(estimator_class(), method)(np.zeros((1, 2)))


# -- containers and dtypes -----------------------------------------------------------

LABELS = {
    "strings": np.array(["cat", "dog"]),
    "objects": np.array(["cat", "dog"], dtype=object),
    "bools": np.array([False, True]),
    "negative ints": np.array([-5, -2]),
    "uint8": np.array([3, 255], dtype=np.uint8),
    "floats": np.array([-1.0, 1.0]),
    "float32": np.array([-1.0, 1.0], dtype=np.float32),
}


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "read"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_of_every_kind_are_learnt_and_predicted(two_classes, labels, stated):
    X, codes = two_classes
    model = DPFCClassifier(math.inf, classes=list(labels) if stated else None)
    if stated:
        model.fit(X, labels[codes])
    else:
        with pytest.warns(PrivacyWarning, match="classes were read from the private labels"):
            model.fit(X, labels[codes])
    assert model.classes_.tolist() == labels.tolist()
    predicted = model.predict(X)
    assert set(predicted.tolist()) <= set(labels.tolist())
    assert np.mean(predicted == labels[codes]) > 0.7


def test_which_of_the_stated_classes_occur_decides_nothing_that_shows(two_classes):
    X, codes = two_classes
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn's of many classes among few rows
        warnings.simplefilter("ignore", BudgetWarning)  # ours of the same, from the noisy count
        DPLeastSquaresClassifier(classes=range(80)).fit(X, np.arange(80))
        for occurring in ([0.5, 1.0], [1.0, 2.0]):  # it takes fractions for a regression's target
            DPLeastSquaresClassifier(classes=[0.5, 1.0, 2.0]).fit(X, np.array(occurring)[codes])


def test_stated_classes_may_come_in_any_order_and_container(two_classes):
    X, y = two_classes
    for classes in ([1, 0], (0, 1), {0, 1}, np.array([1, 0]), range(2)):
        model = DPFCClassifier(math.inf, classes=classes).fit(X, y)
        assert model.classes_.tolist() == [0, 1]
        assert model.score(X, y) > 0.7


def test_a_class_without_rows_is_kept(estimator_class, three_classes):
    X, y = three_classes
    model = estimator_class(epsilon=math.inf, classes=range(5)).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2, 3, 4]
    assert model.predict_proba(X).shape == (90, 5)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.score(X, y) > 0.85


@pytest.mark.parametrize("epsilon", [1.0, math.inf])
def test_a_single_row_is_enough(estimator_class, epsilon):
    model = estimator_class(epsilon=epsilon, classes=[0, 1]).fit(np.ones((1, 3)), [1])
    assert np.isfinite(model.predict_proba(np.eye(3))).all()


@pytest.mark.parametrize("epsilon", [1.0, math.inf])
def test_rows_of_zeros_are_enough(estimator_class, epsilon):
    model = estimator_class(epsilon=epsilon, classes=[0, 1]).fit(np.zeros((6, 3)), [0, 1] * 3)
    assert np.isfinite(model.predict_proba(np.eye(3))).all()


def containers(X, y, tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, X)
    yield "list", X.tolist(), y.tolist()
    yield "fortran", np.asfortranarray(X), y
    yield "column of labels", X, y[:, None]
    yield "tensor", torch.from_numpy(X), torch.from_numpy(y)
    yield "memory map", np.load(path, mmap_mode="r"), y
    yield "strided", np.repeat(X, 2, axis=0)[::2], np.repeat(y, 2)[::2]
    frozen = X.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen, y


@pytest.mark.filterwarnings("ignore:A column-vector y", SEEDED)
def test_every_container_gives_the_same_model(estimator_class, three_classes, tmp_path):
    X, y = three_classes
    options = {"epsilon": 4.0, "classes": range(3), "random_state": 0}
    expected = estimator_class(**options).fit(X, y)
    for name, other_X, other_y in containers(X, y, tmp_path):
        model = estimator_class(**options).fit(other_X, other_y)
        np.testing.assert_array_equal(model.coef_, expected.coef_, err_msg=name)
        np.testing.assert_array_equal(model.predict(other_X), expected.predict(X), err_msg=name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_narrow_features_give_the_model_of_the_widened_ones(estimator_class, three_classes, dtype):
    X, y = three_classes
    X = (X * 10).astype(dtype)
    options = {"epsilon": math.inf, "classes": range(3)}
    narrow = estimator_class(**options).fit(X, y)
    wide = estimator_class(**options).fit(X.astype(np.float64), y)
    np.testing.assert_array_equal(narrow.coef_, wide.coef_)
    np.testing.assert_array_equal(narrow.predict_proba(X), wide.predict_proba(X))


def test_data_frames_leave_their_feature_names(estimator_class, three_classes):
    pd = pytest.importorskip("pandas")
    X, y = three_classes
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(6)])
    model = estimator_class(classes=range(3)).fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list(frame.columns)
    model.predict(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"f0": "g0"}))


@pytest.mark.parametrize("dtype", ["string", "category", "object"])
def test_pandas_labels_are_learnt(three_classes, dtype):
    pd = pytest.importorskip("pandas")
    X, y = three_classes
    names = pd.Series(np.array(["cat", "dog", "owl"])[y]).astype(dtype)
    model = DPFCClassifier(math.inf, classes=["cat", "dog", "owl"]).fit(X, names)
    assert model.score(X, names) > 0.9


def test_parameters_are_numbers_of_any_type(two_classes):
    X, y = two_classes
    model = DPFCClassifier(
        np.float64(1.0), np.float32(1e-5), l2_clip_norm=np.float32(2.0), n_samples=np.int64(80),
        n_steps=np.int32(2), classes=[0, 1],
    )  # fmt: skip
    assert model.fit(X, y).privacy_.private


# -- caches --------------------------------------------------------------------------


@pytest.mark.filterwarnings(SEEDED)
@pytest.mark.parametrize("streamed", [True, False])
def test_a_cache_gives_the_model_of_its_arrays(
    estimator_class, three_classes, make_cache, streamed, monkeypatch
):
    X, y = three_classes
    X = X.astype(np.float32)
    options = {"epsilon": 4.0, "classes": range(3), "random_state": 0}
    expected = estimator_class(**options).fit(X, y)
    if streamed:
        monkeypatch.setattr("dpfc.mechanism.rows.available_memory", lambda device: 0)
        monkeypatch.setattr("dpfc.mechanism.bounded_sums.available_memory", lambda device: 0)
    cache = make_cache(X, y)
    model = estimator_class(**options).fit(cache)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(model.predict(cache), model.predict(X))
    assert model.score(cache) == model.score(X, y)
    assert model.n_features_in_ == 6


def test_a_cache_names_its_classes(three_classes, make_cache):
    X, y = three_classes
    cache = make_cache(X.astype(np.float32), y.astype(np.int32), ["owl", "cat", "dog"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = DPFCClassifier(math.inf).fit(cache)
    assert model.classes_.tolist() == ["cat", "dog", "owl"]
    assert model.score(cache) > 0.9
    assert set(model.predict(cache)[y == 0]) == {"owl"}


# -- scikit-learn's tools ------------------------------------------------------------


def test_a_clone_has_the_parameters_and_nothing_else(estimator_class, three_classes):
    model = fit(estimator_class, three_classes, delta=1e-7, verbose=False)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "coef_")
    assert not hasattr(copy, "privacy_")


def test_pickling_keeps_predictions_and_statement(estimator_class, three_classes):
    X, _ = three_classes
    model = fit(estimator_class, three_classes)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.privacy_ == model.privacy_


@pytest.mark.filterwarnings("ignore:this fit runs inside scikit-learn")
def test_pipelines_searches_and_cross_validation_work(estimator_class, three_classes):
    X, y = three_classes
    model = estimator_class(epsilon=math.inf, classes=range(3))
    pipeline = make_pipeline(StandardScaler().set_output(transform="default"), model).fit(X, y)
    assert pipeline.score(X, y) > 0.9
    search = GridSearchCV(model, {"l2_regularization": [0.0, 1.0]}, cv=3).fit(X, y)
    assert search.best_estimator_.privacy_.target_epsilon == math.inf
    assert cross_val_score(model, X, y, cv=3).mean() > 0.8


def test_set_output_reaches_a_pipeline_of_data_frames(three_classes):
    pd = pytest.importorskip("pandas")
    X, y = three_classes
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(6)])
    pipeline = make_pipeline(StandardScaler(), DPFCClassifier(math.inf, classes=range(3)))
    pipeline.set_output(transform="pandas")
    assert pipeline.fit(frame, y).score(frame, y) > 0.9
    assert pipeline[-1].feature_names_in_.tolist() == list(frame.columns)


def test_fitting_leaves_parameters_and_data_alone(estimator_class, three_classes):
    X, y = three_classes
    before = X.copy(), y.copy()
    model = estimator_class(classes=[2, 1, 0])
    parameters = model.get_params()
    model.fit(X, y)
    assert model.get_params() == parameters
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


@pytest.mark.filterwarnings(SEEDED)
def test_a_progress_bar_does_not_change_the_result(three_classes, capsys):
    options = {"random_state": 0, "epsilon": 1.0}
    silent = fit(DPFCClassifier, three_classes, **options)
    loud = fit(DPFCClassifier, three_classes, verbose=True, **options)
    np.testing.assert_array_equal(silent.coef_, loud.coef_)
    assert capsys.readouterr().out == ""


# -- statements and warnings ---------------------------------------------------------

RELATIONS = ["add_or_remove_one", "replace_one"]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("n_samples", [None, 90])
def test_the_statement_is_what_the_plan_promised(
    estimator_class, three_classes, relation, n_samples
):
    options = {"neighboring_relation": relation, "n_samples": n_samples, "epsilon": 1.0}
    model = fit(estimator_class, three_classes, **options)
    plan = estimator_class(epsilon=1.0, neighboring_relation=relation, classes=range(3),
                           n_samples=n_samples).privacy_plan()  # fmt: skip
    statement = model.privacy_
    assert statement.private
    assert statement.neighboring_relation == relation
    assert 0.99 <= statement.epsilon_by_accountant["exact"] <= 1.0
    drawn = {r.name: r.count for r in statement.releases}
    assert drawn == {r.name: r.count for r in plan.releases}
    # The mean's share follows from the noisy count; what all releases cost together does not.
    assert statement.mu <= plan.mu
    assert statement.mu == pytest.approx(plan.mu, rel=1e-9)
    assert math.fsum(r.share_of_budget for r in statement.releases) == pytest.approx(1.0)
    needs_count = relation == "add_or_remove_one" and n_samples is None
    assert ("count" in drawn) == needs_count
    assert math.fsum(r.share for r in plan.releases) == pytest.approx(1.0)


def test_a_sampled_fit_is_accounted_as_sampled(three_classes):
    model = fit(DPGradientClassifier, three_classes, epsilon=1.0, sampling_probability=0.2,
                n_steps=5)  # fmt: skip
    assert model.privacy_.accountant == "pld"
    assert model.privacy_.mu is None
    assert model.privacy_.epsilon_by_accountant["pld"] <= 1.0
    gradient = model.privacy_.releases[-1]
    assert (gradient.count, gradient.sampling_probability) == (5, 0.2)


def test_a_seeded_fit_is_reproducible_and_not_private(estimator_class, three_classes):
    with pytest.warns(PrivacyWarning, match="random_state was given") as caught:
        first, again, other = (
            fit(estimator_class, three_classes, random_state=seed) for seed in (5, 5, 6)
        )
    assert len(caught) == 3
    np.testing.assert_array_equal(first.coef_, again.coef_)
    assert not np.array_equal(first.coef_, other.coef_)
    assert not first.privacy_.private
    assert any("seed" in reason for reason in first.privacy_.reasons_not_private)
    assert "not private" in first.privacy_.random_source


def test_unseeded_fits_differ_and_do_not_use_global_seeds(estimator_class, three_classes):
    models = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        models.append(fit(estimator_class, three_classes))
    assert not np.array_equal(models[0].coef_, models[1].coef_)
    assert models[0].privacy_.private


def test_an_infinite_budget_is_not_private(estimator_class, three_classes):
    model = fit(estimator_class, three_classes, epsilon=math.inf)
    assert not model.privacy_.private
    assert model.privacy_.epsilon_by_accountant["exact"] == math.inf
    assert all(release.noise_standard_deviation == 0.0 for release in model.privacy_.releases)


def test_classes_read_from_labels_are_warned_about_and_stated(estimator_class, three_classes):
    X, y = three_classes
    with pytest.warns(PrivacyWarning, match="classes") as caught:
        model = estimator_class().fit(X, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert any("NOT COVERED" in line for line in model.privacy_.rests_on)
    stated = estimator_class(classes=range(3)).fit(X, y)
    assert not any("NOT COVERED" in line for line in stated.privacy_.rests_on)


def test_a_plan_needs_no_data(estimator_class):
    plan = estimator_class(epsilon=0.5, delta=1e-6).privacy_plan()
    assert plan.target_epsilon == 0.5
    assert all(release.noise_multiplier > 0 for release in plan.releases)


# -- nothing but releases reaches the model ------------------------------------------


class NoNoise:
    """Noise and coins that do not depend on how often they were asked."""

    description, reproducible = "none", False

    def rounded_gaussian(self, sigma, size):
        return np.rint(np.linspace(-sigma, sigma, size)).astype(np.int64)

    def bernoulli(self, probability, size):
        return np.arange(size) % 2 == 0


def fixed_sum(self, query, selected=None):
    """A sum that no data decides."""
    shape = query.shape(self.grid.n_columns, self.n_classes)
    rng = np.random.default_rng(len(query.name))
    value = torch.from_numpy(rng.normal(size=shape) + 5.0)
    if query.symmetric:
        value = value @ value.mT
    unit = query.unit(query.grid(self.row_map, self.source.n_features))
    return ((40 * value if query.name == "count" else value) / unit).round().long()


def public_state(model):
    """Everything that a fitted model carries, as comparable values."""
    state = dict(vars(model))
    state["privacy_"] = state["privacy_"].to_json()
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}


CONFIGURATIONS = [
    *((estimator, {}) for estimator in ESTIMATORS),
    *((estimator, {"center": False, "normalize": False}) for estimator in ESTIMATORS),
    (DPGradientClassifier, {"sampling_probability": 0.3, "n_steps": 3}),
    (DPLeastSquaresClassifier, {"alpha": 0.5}),
]


@pytest.mark.parametrize("kept", [True, False], ids=["in memory", "streamed"])
@pytest.mark.parametrize("estimator_class, options", CONFIGURATIONS)
def test_the_fitted_model_is_a_function_of_the_releases_alone(
    estimator_class, options, kept, monkeypatch
):
    """Two data sets of different rows and size, equal sums: all that is left is equal."""
    monkeypatch.setattr("dpfc.linear.base.noise_source", lambda seed: NoNoise())
    monkeypatch.setattr(BoundedRows, "sum", fixed_sum)
    if not kept:
        monkeypatch.setattr("dpfc.mechanism.bounded_sums.available_memory", lambda device: 0)
    rng = np.random.default_rng(0)
    states = []
    for n in (40, 41, 5000):
        model = estimator_class(classes=range(3), **options)
        model.fit(rng.normal(size=(n, 6)), rng.integers(3, size=n))
        states.append(public_state(model))
    assert states[0] == states[1] == states[2]


def numbers_in(value):
    """Every number that hangs below a value."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float | np.number):
        yield float(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        yield from value.ravel().tolist()
        yield from value.shape
    elif isinstance(value, dict):
        for item in value.values():
            yield from numbers_in(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from numbers_in(item)


def test_a_fitted_model_holds_no_row_no_label_and_no_number_of_rows(estimator_class):
    n = 1237
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    X[17] = 987654.321
    model = estimator_class(classes=range(3)).fit(X, rng.integers(3, size=n))
    state = vars(model) | {"privacy_": model.privacy_.model_dump()}
    assert n not in set(numbers_in(state))
    pickled = pickle.dumps(model)
    assert np.float64(987654.321).tobytes() not in pickled
    for row in X[:20]:
        assert row.tobytes() not in pickled
        assert (row / np.linalg.norm(row)).tobytes() not in pickled
    assert len(pickled) < 60_000


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_release_passes_through_the_mechanism_with_fresh_noise(
    estimator_class, three_classes, relation, monkeypatch
):
    """As many integers are drawn as the released shapes have free entries."""
    from dpfc.mechanism.noise import SystemNoise

    sizes = []

    class Recorder(SystemNoise):
        def rounded_gaussian(self, sigma, size):
            sizes.append(size)
            return super().rounded_gaussian(sigma, size)

    monkeypatch.setattr("dpfc.linear.base.noise_source", lambda seed: Recorder())
    model = fit(estimator_class, three_classes, epsilon=1.0, neighboring_relation=relation)
    expected = []
    for release in model.privacy_.releases:
        drawn = [math.prod(release.shape)]
        if release.name in ("gram", "class_grams", "hessian"):  # the diagonals, and above them
            d = release.shape[-1]
            matrices = drawn[0] // d**2
            drawn = [matrices * d, matrices * d * (d - 1) // 2]
        expected += drawn * release.count
    assert sorted(sizes) == sorted(expected)


def test_a_failing_noise_source_leaves_no_model_behind(estimator_class, three_classes, monkeypatch):
    class Broken(NoNoise):
        def rounded_gaussian(self, sigma, size):
            raise OSError("no entropy")

    monkeypatch.setattr("dpfc.linear.base.noise_source", lambda seed: Broken())
    X, y = three_classes
    model = estimator_class(classes=range(3))
    with pytest.raises(OSError, match="no entropy"):
        model.fit(X, y)
    assert not any(hasattr(model, name) for name in ("coef_", "center_", "privacy_"))
