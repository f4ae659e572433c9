"""The ablation: every change is a parameter that exists, compared with the defaults run by run."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc import DPFCClassifier
from dpfc.experiments.benchmarks import ablation
from dpfc.experiments.studies.named_data import load_named


@pytest.mark.parametrize("change", ablation.CHANGES)
def test_every_change_departs_from_the_defaults(change):
    defaults = DPFCClassifier().get_params()
    for name, value in ablation.CHANGES[change].items():
        assert defaults[name] != value


def test_an_effect_is_the_mean_of_paired_differences():
    data = load_named(["digits"])[0].data
    changes = {"nothing": {}, "one step": {"n_steps": 1}}
    ((epsilon, accuracy, (nothing, one_step)),) = ablation.effects(data, changes, [1.0], 2)
    assert epsilon == 1.0 and 60 < accuracy < 100
    assert (nothing.mean, nothing.standard_error) == (0.0, 0.0)
    scores = {
        n_steps: [
            DPFCClassifier(1.0, classes=range(10), n_steps=n_steps, random_state=seed)
            .fit(data.X, data.y)
            .score(data.X_test, data.y_test)
            for seed in (0, 1)
        ]
        for n_steps in (1, 20)
    }
    gains = 100 * (np.array(scores[1]) - np.array(scores[20]))
    assert one_step.mean == pytest.approx(gains.mean())
    assert one_step.standard_error == pytest.approx(np.std(gains, ddof=1) / np.sqrt(2))


def test_the_command_prints_a_table(capsys, monkeypatch):
    monkeypatch.setattr(ablation, "CHANGES", {"5 steps": {"n_steps": 5}})
    assert ablation.main(["--data", "digits", "--epsilons", "1", "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "| digits | ε = 1 |" in out and "| 5 steps | " in out and " ± " in out
    assert ablation.main(["--data", "nothing"]) != 0
