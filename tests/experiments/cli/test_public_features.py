"""`dpfc fit --public-features`: what fits is used, what does not is refused before a spend."""

from __future__ import annotations

import json

import numpy as np

import dpfc as package
from dpfc.features import CacheDescription, FeatureCacheWriter


def test_public_features_are_used_and_not_kept(dpfc, write_cache, cache_path, tmp_path):
    write_cache(tmp_path / "public", n=60, labels=False)
    fit = ["fit", "--features", cache_path, "--epsilon", 1, "--classes", "ant,bee,cow", "--json"]
    out = tmp_path / "model.safetensors"
    result = dpfc(*fit, "--public-features", tmp_path / "public", "--out", out)
    assert result.code == 0, result.err
    assert "public_features hold no private rows" in json.loads(result.out)["privacy"]["rests_on"]
    model = package.load_model(out)
    assert model.public_features is None
    assert model.linear_map_.shape == (6, 6)
    predicted = dpfc(
        "predict", "--model", out, "--features", cache_path, "--out", tmp_path / "p.csv"
    )
    assert predicted.code == 0


def test_what_does_not_fit_is_refused(dpfc, write_cache, cache_path, tmp_path):
    write_cache(tmp_path / "wide", width=7)
    description = CacheDescription(6, backbone={"spec": "another"}, has_labels=False)
    with FeatureCacheWriter(tmp_path / "same", description) as writer:
        writer.write(np.ones((9, 6), dtype=np.float32), None, None)
        writer.finish()
    fit = ["fit", "--features", cache_path, "--epsilon", 1, "--out", tmp_path / "model"]
    for folder, method, words in (
        ("wide", "fc", "7 features and X has 6"),
        ("same", "fc", "another backbone"),
        ("wide", "ls", "--public-features is for --method fc"),
        ("absent", "fc", "absent"),
    ):
        result = dpfc(*fit, "--method", method, "--public-features", tmp_path / folder)
        assert result.code != 0
        assert words in " ".join(result.err.split())
        assert not (tmp_path / "model").exists()
    assert "use --public-features" in dpfc(*fit, "--set", "public_features=1").err


def test_labels_of_a_public_cache_are_not_looked_at(dpfc, write_cache, cache_path, tmp_path):
    models = []
    for labels in (True, False):
        write_cache(tmp_path / f"public-{labels}", labels=labels)
        out = tmp_path / f"model-{labels}"
        fit = ["fit", "--features", cache_path, "--epsilon", 1, "--seed", 0, "--out", out]
        assert dpfc(*fit, "--public-features", tmp_path / f"public-{labels}").code == 0
        models.append(package.load_model(out))
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)
