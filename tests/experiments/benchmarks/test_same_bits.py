"""A seeded fit has the same bits on any threads, blocks, kernels, and in any order of rows."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc.experiments.benchmarks import same_bits
from dpfc.mechanism import integer_products

SMALL = ["--rows", "700", "--width", "45", "--classes", "3"]


@pytest.mark.parametrize("solver", same_bits.SOLVERS)
def test_every_way_to_work_out_sums_gives_the_same_bits(solver, capsys):
    assert same_bits.main([*SMALL, "--solvers", solver]) == 0
    out = capsys.readouterr().out
    assert out.count("same") >= 13
    assert "DIFFERS" not in out
    for way in ("1 thread", "2 thread", "100 rows", "65,536 rows", "float32 products", "permuted",
                "feature cache"):  # fmt: skip
        assert way in out


def test_one_bit_that_differs_is_named(capsys, monkeypatch):
    def off_by_one(a, b):
        result = integer_products._float64(a, b)
        result[-1, -1] += 1
        return result

    assert integer_products._is_exact("float32", "cpu")  # checked before it goes wrong
    monkeypatch.setitem(integer_products._KERNELS, "float32", off_by_one)
    assert same_bits.main([*SMALL, "--solvers", "DPLeastSquaresClassifier"]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert len(wrong) == 1
    assert "float32 products" in wrong[0]


def test_the_number_of_threads_is_given_back():
    import torch

    before = torch.get_num_threads()
    X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    from dpfc import DPFCClassifier

    fits = dict(same_bits.variations(lambda: DPFCClassifier(classes=[0, 1], random_state=0), X,
                                     np.arange(50) % 2))  # fmt: skip
    fits["1 thread(s)"]()
    fits["2 thread(s)"]()
    assert torch.get_num_threads() == before
