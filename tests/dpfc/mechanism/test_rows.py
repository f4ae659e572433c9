from __future__ import annotations

import math

import numpy as np
import pytest

from dpfc import DPFCClassifier
from dpfc.mechanism.rows import encode_labels


def test_a_caches_values_survive_whether_it_is_streamed_or_read(make_cache, monkeypatch):
    """A value beyond float32 must not become infinite, nor memory decide what a row is."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 2
    X[3] *= 1e60
    options = {"epsilon": math.inf, "classes": [0, 1], "n_steps": 3}
    expected = DPFCClassifier(**options).fit(X, y)
    for memory in (0, 2**40):
        monkeypatch.setattr("dpfc.mechanism.rows.available_memory", lambda device, m=memory: m)
        model = DPFCClassifier(**options).fit(make_cache(X, y))
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-10)


def test_rows_of_a_cache_do_not_depend_on_its_blocks(make_cache):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(700, 4)).astype(np.float16), np.arange(700) % 2

    class Shards(make_cache):
        def blocks(self, block_rows=4096):
            for X_block, y_block in super().blocks(7):
                yield X_block[:block_rows], y_block[:block_rows]

    options = {"epsilon": math.inf, "classes": [0, 1], "n_steps": 3}
    expected = DPFCClassifier(**options).fit(X, y)
    model = DPFCClassifier(**options).fit(Shards(X, y))
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9)


@pytest.mark.parametrize("classes", [[0, 1, 2], ["a", "b", "c"], [-3, 5, 7], [False, True]])
def test_codes_are_positions_in_the_sorted_classes(classes):
    classes = np.array(classes)
    codes = np.arange(50) % len(classes)
    np.testing.assert_array_equal(encode_labels(classes[codes], classes), codes)


def test_an_unknown_label_is_reported_by_position_only():
    with pytest.raises(ValueError, match="row 12") as raised:
        encode_labels(np.array([0, 1, 77777, 0]), np.array([0, 1]), first_row=10)
    assert "77777" not in str(raised.value)
