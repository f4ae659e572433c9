"""Model cards, read by the hub's own parser."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import dpfc
from dpfc.accounting.statements.markdown import escape
from dpfc.accounting.statements.wording import clean, content

hub = pytest.importorskip("huggingface_hub")


def fitted(seed=None, epsilon=2.0):
    X, y = np.eye(30, 4), np.array(["no", "yes_*<b>"])[np.arange(30) % 2]
    model = dpfc.DPLeastSquaresClassifier(
        epsilon, classes=["no", "yes_*<b>"], random_state=seed, neighboring_relation="replace_one"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the seed
        return model.fit(X, y)


@pytest.fixture
def opened(tmp_path):
    """Write a card, and let the hub's library read it."""

    def read(text):
        path = tmp_path / "README.md"
        path.write_text(text, encoding="utf-8")
        return hub.ModelCard.load(path), hub.metadata_load(path)

    return read


def test_the_hub_reads_the_card_and_finds_the_guarantee(opened):
    model = fitted()
    card, facts = opened(dpfc.model_card(model, license="apache-2.0"))
    assert card.data.library_name == "dpfc" and card.data.license == "apache-2.0"
    assert card.data.tags == ["dpfc", "differential-privacy", "DPLeastSquaresClassifier"]
    assert facts["dpfc"] == {
        "version": dpfc.__version__,
        "private": True,
        "epsilon": 2.0,
        "delta": 1e-5,
        "neighboring_relation": "replace_one",
        "unit_of_privacy": "one row",
    }
    assert "license" not in opened(dpfc.model_card(model))[1]


def test_the_whole_statement_is_in_the_card_below_the_headings_of_its_own(opened):
    model = fitted()
    card, _ = opened(dpfc.model_card(model))
    headings = [line for line in card.text.splitlines() if line.startswith("#")]
    assert [line for line in headings if line.startswith("# ")] == ["# DPLeastSquaresClassifier"]
    for section in content(model.privacy_).sections:
        assert f"### {section.heading}" in headings
    for release in model.privacy_.releases:
        assert f"| {release.name} |" in card.text
    assert len(model.privacy_.rests_on) > 1
    for sentence in (*model.privacy_.rests_on, model.privacy_.random_source):
        assert escape(clean(sentence)) in card.text


@pytest.mark.parametrize("options", [{"seed": 3}, {"epsilon": float("inf")}])
def test_a_card_of_what_is_not_private_says_so_at_its_top(opened, options):
    card, facts = opened(dpfc.model_card(fitted(**options)))
    first, second = [line for line in card.text.splitlines() if line.strip()][:2]
    assert first.startswith("# ⚠ NOT PRIVATE") and second.startswith("> **⚠ NOT PRIVATE**")
    assert facts["dpfc"]["private"] is False
    assert "not-private" in facts["tags"] and "differential-privacy" not in facts["tags"]


def test_classes_are_text_whatever_they_hold():
    text = dpfc.model_card(fitted())
    assert "<b>" not in text and "yes\\_\\*&lt;b&gt;" in text


def test_a_model_that_is_not_fitted_has_no_card():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        dpfc.model_card(dpfc.DPFCClassifier())
