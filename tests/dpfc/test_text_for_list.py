"""A text where a list is meant is refused: Python would take its characters one by one."""

import json

import numpy as np
import pytest

import dpfc
from dpfc.accounting import PrivacyPlan, ReleaseRequest, calibrate, epsilon_by_accountant
from dpfc.features import CacheDescription, FeatureCache, FeatureCacheWriter
from dpfc.features.cache.manifest import _checksum, _encode
from dpfc.features.exceptions import FeatureCacheError

ESTIMATORS = [
    dpfc.DPFCClassifier,
    dpfc.DPLeastSquaresClassifier,
    dpfc.DPNewtonClassifier,
    dpfc.DPGradientClassifier,
    dpfc.DPSGDClassifier,
]
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.array(["a", "b"] * 20)


def plan() -> PrivacyPlan:
    requests = [ReleaseRequest("gram", share=0.5), ReleaseRequest("gradient", share=0.5)]
    return calibrate(
        requests, target_epsilon=1.0, target_delta=1e-5, neighboring_relation="add_or_remove_one"
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("classes", ["ab", b"ab", np.str_("ab")])
def test_no_estimator_takes_a_text_for_its_classes(estimator, classes):
    model = estimator(epsilon=1.0, delta=1e-5, classes=classes)
    with pytest.raises(ValueError, match="classes must be a list, got the text"):
        model.fit(X, Y)


@pytest.mark.parametrize("classes", [["a", "b"], ("a", "b"), {"a", "b"}, np.array(["a", "b"])])
def test_a_list_of_any_kind_is_taken(classes):
    model = dpfc.DPFCClassifier(epsilon=1.0, delta=1e-5, classes=classes).fit(X, Y)
    assert model.classes_.tolist() == ["a", "b"]


def test_no_private_look_takes_a_text_for_a_list():
    model = dpfc.DPFCClassifier(epsilon=1.0, delta=1e-5, classes=["a", "b"]).fit(X, Y)
    budget = {"epsilon": 1.0, "delta": 1e-5}
    with pytest.raises(ValueError, match="metrics must be a list"):
        dpfc.evaluate_privately(model, X, Y, metrics="accuracy", **budget)
    with pytest.raises(ValueError, match="statistics must be a list"):
        dpfc.summarize_privately(X, Y, statistics="count", **budget)
    with pytest.raises(ValueError, match="classes must be a list, got the text"):
        dpfc.summarize_privately(X, Y, statistics=["class_counts"], classes="ab", **budget)
    search = dpfc.DPSearchCV(model, {"loss": "softmax"}, **budget)
    with pytest.raises(ValueError, match="param_grid must be a dict of lists"):
        search.fit(X, Y)


def test_no_function_of_the_accountants_takes_a_text_for_a_list():
    event = plan()["gram"].event
    with pytest.raises(ValueError, match="accountants must be a list of names"):
        epsilon_by_accountant(
            event, 1e-5, neighboring_relation="add_or_remove_one", accountants="exact"
        )
    with pytest.raises(ValueError, match="keep must be a list of names"):
        plan().reallocated("gram", 0.4, keep="gram")


def test_no_cache_takes_a_text_for_its_class_names(tmp_path):
    with pytest.raises(ValueError, match="class_names must be a list of strings"):
        CacheDescription(3, class_names="0123456789")
    with FeatureCacheWriter(tmp_path, CacheDescription(3, class_names=("a", "b"))) as writer:
        writer.write(X, [0, 1] * 20)
        writer.finish()
    path = tmp_path / "manifest.json"
    body = json.loads(path.read_text()) | {"class_names": "0123456789"}
    del body["sha256"]
    path.write_bytes(_encode(body | {"sha256": _checksum(body)}))
    with pytest.raises(FeatureCacheError, match="one of the wrong type"):
        FeatureCache.open(tmp_path)
