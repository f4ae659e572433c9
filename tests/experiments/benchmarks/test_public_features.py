"""What public features bring: the split takes rows out, and the command prints both figures."""

from __future__ import annotations

import numpy as np

from dpfc.experiments.benchmarks.public_features import main, split
from dpfc.experiments.studies.named_data import load_named


def test_a_fifth_of_the_rows_is_public_and_not_fitted():
    data = load_named(["digits"])[0].data
    private, public = split(data)
    assert len(private.X) == len(private.y)
    assert len(private.X) + len(public) == len(data.X)
    assert abs(len(public) - len(data.X) / 5) < 1
    together = np.vstack([private.X, public])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(data.X, axis=0))
    assert private.X_test is data.X_test


def test_the_command_prints_both(capsys, write_cache, tmp_path):
    run = ["--data", "digits", "--epsilons", "1", "--seeds", "2"]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "| digits | 240, a fifth of the same | without | " in out
    assert "| gain | " in out and " ± " in out
    write_cache(tmp_path / "other", width=64, n=30)
    assert main([*run, "--public", str(tmp_path / "other")]) == 0
    assert "| digits | 30, other | gain | " in capsys.readouterr().out
    assert main([*run, "--public", str(tmp_path / "absent")]) != 0
