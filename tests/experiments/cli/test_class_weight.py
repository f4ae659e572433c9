"""`dpfc fit --class-weight`: what it takes, and what it refuses before a spend."""

from __future__ import annotations

import pytest

from dpfc import load_model


@pytest.mark.parametrize(
    "names, text, weights",
    [
        (["well", "ill", "a=b"], "ill=5, a=b=0.5", {"ill": 5.0, "a=b": 0.5}),
        (["well", "ill", "a=b"], "balanced", "balanced"),
        (None, "1=5", {1: 5.0}),
    ],
)
def test_weights_are_fitted_and_stand_in_the_model(
    dpfc, write_cache, tmp_path, names, text, weights
):
    write_cache(tmp_path / "cache", class_names=names)
    out = tmp_path / "model.safetensors"
    fit = ["fit", "--features", tmp_path / "cache", "--epsilon", 5, "--out", out]
    fit += [] if names else ["--classes", "0,1,2"]
    assert dpfc(*fit, "--class-weight", text).code == 0
    model = load_model(out)
    assert model.class_weight == weights
    drawn = [release.name for release in model.privacy_.releases]
    assert ("class_counts" in drawn) == (text == "balanced")


@pytest.mark.parametrize(
    "text, said",
    [
        ("sick=3", "must name classes of"),
        ("ill=-1", "must be a float"),
        ("ill=nan", "must be a float"),
        ("ill=0,well=0,other=0", "must leave a class with a weight above 0"),
        ("ill", "takes balanced or NAME=WEIGHT"),
        ("ill=", "takes balanced or NAME=WEIGHT"),
        ("ill=5,ill=2", "names a class twice"),
    ],
)
def test_other_weights_are_refused_and_nothing_is_written(dpfc, write_cache, tmp_path, text, said):
    write_cache(tmp_path / "cache", class_names=["well", "ill", "other"])
    out = tmp_path / "model.safetensors"
    fit = ["fit", "--features", tmp_path / "cache", "--epsilon", 5, "--out", out]
    result = dpfc(*fit, "--class-weight", text)
    assert result.code != 0
    assert said in result.err
    assert not out.exists()
