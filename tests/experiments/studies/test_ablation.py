"""The ablation: every change is a parameter that exists, compared with the defaults run by run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from study_tables import failed, row

from dpfc import DPFCClassifier, experiments
from dpfc.experiments.benchmarks import ablation
from dpfc.experiments.studies.config import read_study

STUDY = Path(str(experiments.__file__)).parent / "configs" / "ablation.yaml"


def test_every_change_departs_from_the_defaults():
    first, *changes = read_study(STUDY).methods
    assert (first.label, first.parameters) == (ablation.DEFAULTS, {}) and len(changes) == 16
    defaults = DPFCClassifier().get_params()
    for change in changes:
        assert change.parameters
        for name, value in change.parameters.items():
            assert defaults[name] != value


def test_an_effect_is_the_mean_of_paired_differences():
    scores = {"defaults": [0.8, 0.9], "one step": [0.5, 0.7], "some": [0.9, 0.8, 0.1]}
    rows = [
        row(score, label=label, seed=seed)
        for label, found in scores.items()
        for seed, score in enumerate(found)
    ]
    # The defaults have no third seed.
    (found,) = ablation.effects([*rows, failed(label="one step", seed=2)]).values()
    assert found["defaults"] == (0.0, 0.0)
    assert found["one step"] == pytest.approx((-25.0, np.std([30, 20], ddof=1) / np.sqrt(2)))
    assert found["some"] == pytest.approx((0.0, 10.0))
    with pytest.raises(ValueError, match="fewer than two"):
        ablation.effects(rows[:3])


@pytest.mark.slow
def test_the_command_prints_a_table(dpfc, capsys, tmp_path):
    changed = "{name: fc, label: 5 steps, parameters: {n_steps: 5}}"
    methods = f"methods=[{{name: fc, label: defaults}}, {changed}]"
    digits = "datasets=[{name: digits, builtin: digits}]"
    command = ("ablation", digits, methods, "epsilons=[1]", "seeds=2", "--workers", 1)
    assert dpfc("sweep", *command, "--out", tmp_path).code == 0
    assert ablation.main(["--study", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| digits | ε = 1 |" in out and "| 5 steps | " in out and " ± " in out
    (defaults,) = re.findall(r"\| defaults, accuracy in % \| (\S+) \|", out)
    assert 82.0 < float(defaults) < 94.0  # 89.5 on average; 0.6 is a deviation of two runs' mean
    assert ablation.main(["--study", str(tmp_path / "nothing")]) != 0
