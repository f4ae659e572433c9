"""The table of a study: filtered, averaged, turned, written."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc.experiments.studies.store import results_schema
from dpfc.experiments.studies.table import (
    best_settings,
    filter_rows,
    group_rows,
    load_results,
    pivot,
    to_csv,
    to_latex,
    to_text,
)


def row(label="DP-FC", epsilon=1.0, seed=0, accuracy=0.5, **changes):
    found = dict.fromkeys(results_schema().names)
    found |= {
        "dataset": "a_b", "method": "fc", "label": label, "epsilon": epsilon, "seed": seed,
        "accuracy": accuracy, "status": "ok", "parameters": "{}", "seconds": 1.0, "delta": 1e-5,
    }  # fmt: skip
    return found | changes


ROWS = [
    row(seed=0, accuracy=0.5),
    row(seed=1, accuracy=0.7),
    row(epsilon=2.0, accuracy=0.8),
    row(label="DP-LS", parameters='{"alpha": 0.1}', accuracy=0.4),
    row(label="DP-LS", parameters='{"alpha": 0.3}', accuracy=0.45),
    row(label="DP-GD", status="failed", accuracy=None, error="broken"),
    row(label="not private", epsilon=math.inf, accuracy=0.9, seed=None),
]


def test_seeds_are_averaged_and_failures_left_out():
    groups = group_rows(ROWS)
    assert len(groups) == 5 and all(group.label != "DP-GD" for group in groups)
    first = groups[0]
    assert first.runs == 2 and first.accuracy == pytest.approx(0.6)
    assert first.standard_error == pytest.approx(np.std([0.5, 0.7], ddof=1) / math.sqrt(2))
    assert groups[1].standard_error is None


def test_the_best_setting_is_chosen_per_method_and_budget():
    best = best_settings(group_rows(ROWS))
    assert [g.parameters for g in best if g.label == "DP-LS"] == ['{"alpha": 0.3}']
    assert len(best) == 4


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        ([], 7),
        (["label=DP-FC"], 3),
        (["label=DP-FC|DP-LS"], 5),
        (["label=DP-FC", "epsilon=2"], 1),
        (["epsilon=inf"], 1),
        (["alpha=0.3"], 1),
        (["seed=1"], 1),
        (["status=failed"], 1),
        (["label=none of these"], 0),
    ],
)
def test_conditions_keep_what_they_say(conditions, count):
    assert len(filter_rows(ROWS, conditions)) == count


@pytest.mark.parametrize(
    ("condition", "words"), [("label", "column=value"), ("=3", "column"), ("seed=two", "a number")]
)
def test_wrong_conditions_are_refused(condition, words):
    with pytest.raises(ValueError, match=words):
        filter_rows(ROWS, [condition])


def test_a_pivot_has_a_column_a_budget():
    head, body = pivot(group_rows(ROWS))
    assert head == ["data set", "method", "ε = 1", "ε = 2", "no privacy"]
    assert body[0] == ["a_b", "DP-FC", "60.00 ± 10.00", "80.00", "–"]
    assert body[1][:3] == ["a_b", "DP-LS, alpha 0.1", "40.00"]
    lines = to_text(group_rows(ROWS)).split("\n")
    assert len({len(line) for line in lines}) == 1 and len(lines) == 2 + len(body)


def test_anything_can_go_across():
    groups = group_rows(ROWS)
    head, body = pivot(groups, "label")
    assert head == ["data set", "budget", "DP-FC", "DP-LS", "not private"]
    assert body[0] == ["a_b", "ε = 1", "60.00 ± 10.00", "–", "–"]
    assert body[2] == ["a_b", "ε = 1, alpha 0.1", "–", "40.00", "–"]
    head, body = pivot(groups, "alpha")
    assert head == ["data set", "budget", "method", "–", "alpha 0.1", "alpha 0.3"]
    assert ["a_b", "ε = 1", "DP-LS", "–", "40.00", "45.00"] in body
    with pytest.raises(ValueError, match="no 'beta' to put across; there are dataset, label"):
        pivot(groups, "beta")


def test_csv_reads_back():
    found = list(csv.DictReader(io.StringIO(to_csv(group_rows(ROWS)))))
    assert len(found) == 5 and found[0]["accuracy"] == "0.6" and found[1]["standard_error"] == ""
    assert json.loads(found[2]["parameters"]) == {"alpha": 0.1}


def test_latex_is_escaped():
    text = to_latex(group_rows([row(label="50% & $x$_1", dataset=r"a\b")]))
    assert r"a\textbackslash{}b & 50\% \& \$x\$\_1 & 50.00 \\" in text
    assert text.count("&") == 2 * 2 + 1


def test_a_folder_without_a_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run dpfc sweep first"):
        load_results(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="not the table of a sweep"):
        load_results(tmp_path)
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "results.parquet")
    with pytest.raises(ValueError, match="not the table of a sweep"):
        load_results(tmp_path)


def test_the_command_writes_every_format(dpfc, tmp_path, strict_json):
    (tmp_path / "s.yaml").write_text(
        "name: s\ndatasets: [{name: d, builtin: digits}]\nmethods: [fc]\nepsilons: [1]\n"
    )
    study = ("--study", tmp_path)
    assert "run dpfc sweep first" in dpfc("results", tmp_path / "s.yaml", *study).err
    table = pa.Table.from_pylist(ROWS, schema=results_schema())
    pq.write_table(table, tmp_path / "results.parquet")
    shown = dpfc("results", tmp_path / "s.yaml", *study)
    assert shown.code == 0 and "1 failed run left out." in shown.out
    found = strict_json(dpfc("results", tmp_path / "s.yaml", *study, "--format", "json").out)
    assert found["failed"] == 1 and found["results"][-1]["epsilon"] == "inf"
    target = tmp_path / "t.tex"
    command = ("results", tmp_path / "s.yaml", *study, "--format", "latex", "--out", target)
    assert dpfc(*command).code == 0 and target.read_text().endswith("\\end{tabular}\n")
    assert dpfc(*command).code == 1 and dpfc(*command, "--force").code == 0
