"""Signal by direction: a made-up data set of which everything is known."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc.experiments.benchmarks.feature_signal import groups, main
from dpfc.experiments.studies.data import Data


def test_classes_that_differ_in_one_direction_have_their_signal_there():
    rng = np.random.default_rng(0)
    n, d = 4000, 40
    y = np.arange(n) % 2
    X = rng.normal(size=(n, d)) * 0.1
    X[:, 0] += np.where(y == 1, 3.0, -3.0)
    data = Data(X.astype(np.float32), y.astype(np.int32), X[:9], y[:9], 2)
    first, second, third = groups(data)
    assert (first.first, first.last, second.last, third.last) == (1, 10, 30, 42)
    assert first.rows + second.rows + third.rows == pytest.approx(1.0)
    assert first.classes > 0.999
    # Rows are about ±e_1: n e_1/2 and -n e_1/2 over K - 1 = 1 dimension and ten directions.
    assert first.signal == pytest.approx(2 * (n / 2) ** 2 / 10, rel=0.1)
    assert first.eigenvalue == pytest.approx(n, rel=0.1)
    assert second.signal < 1e-3 * first.signal


def test_the_command_prints_a_table(capsys):
    assert main(["--data", "digits", "--epsilons", "1"]) == 0
    out = capsys.readouterr().out
    assert "| 1 to 10 |" in out and "signal ÷ noise, ε = 1" in out and "| 31 to 66 |" in out
    assert main(["--data", "nothing"]) != 0
