"""The benchmark on tables: what its tables are, and what the command prints of them."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc.experiments.benchmarks.table_accuracy import main
from dpfc.experiments.benchmarks.table_sets import TABLES, as_it_comes, encoded

RUN = ["--data", "wine", "--epsilons", "1,8", "--seeds", "2"]


def test_numbers_are_scaled_by_their_published_ranges_alone():
    table = TABLES["wine"]()
    data, plain = encoded(table, knots=2), as_it_comes(table)
    assert np.array_equal(data.y, plain.y)
    for j, (name, column) in enumerate(table.schema.items()):
        low, high = column["min"], column["max"]
        inside = np.clip(plain.X[:, j], low, high)  # published ranges are rounded
        expected = 2.0 * (inside - low) / (high - low) - 1.0
        np.testing.assert_allclose(data.X[:, j], expected, atol=1e-5, err_msg=name)


def test_the_generated_table_is_mixed_with_gaps_and_always_the_same():
    table, again = TABLES["adult-like"](), TABLES["adult-like"]()
    data = encoded(table)
    assert data.X.shape[0] == 9_000
    assert 0.2 < data.y.mean() < 0.3
    gaps = [name for name, values in table.columns.items() if (values == None).any()]  # noqa: E711
    assert gaps == ["age", "hours", "trade", "employer", "country"]
    assert {column["type"] for column in table.schema.values()} == {"number", "category"}
    assert all((again.columns[name] == values).all() for name, values in table.columns.items())
    lengths = np.linalg.norm(data.X, axis=1)
    assert lengths.max() <= np.sqrt(len(table.schema)) + 1e-6  # what diffprivlib is told


def test_the_command_prints_accuracies_and_leads(capsys, tmp_path):
    out = ["--out", str(tmp_path / "runs"), "--knots", "2"]
    assert main([*RUN, *out, "--peers", "prototypes"]) == 0
    printed = capsys.readouterr().out
    assert "| wine, 13 features, 119 rows | ε = 1 | ε = 8 |" in printed
    for label in ("DP-FC", "prototypes", "not private", "below not private"):
        assert f"| {label} | " in printed
    (lead,) = [line for line in printed.splitlines() if line.startswith("| ahead of the best")]
    assert lead.count("(prototypes)") == 2


def test_the_command_prints_what_units_of_their_own_cost(capsys):
    assert main([*RUN, "--as-they-come"]) == 0
    printed = capsys.readouterr().out
    for label in ("defaults", "normalize=False", 'scale="private"'):
        assert f"| {label} | " in printed


@pytest.mark.parametrize(
    "options, said",
    [
        (["--data", "cheese"], "'cheese' is none of"),
        (["--data", "wine", "--peers", "luck"], "'luck' is none of"),
        (["--data", "adult-like", "--as-they-come"], "needs its schema"),
    ],
)
def test_what_it_does_not_know_is_refused(options, said, capsys, tmp_path):
    assert main([*options, "--out", str(tmp_path / "runs")]) != 0
    assert said in capsys.readouterr().err
