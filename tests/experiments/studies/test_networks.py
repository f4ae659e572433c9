"""Whole networks as a method of studies."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from dpfc.experiments.studies.config import StudyConfig
from dpfc.experiments.studies.loop import run_sweep
from dpfc.experiments.studies.plan import study_sources
from dpfc.experiments.studies.runs import Rows
from dpfc.experiments.studies.store import RunStore

NETWORKS = {
    "name": "dpsgd",
    "parameters": {"module": ["linear", "cnn"], "n_steps": 2, "clipping": "ghost"},
}


def networks(**changes):
    content = {
        "name": "networks",
        "datasets": [{"name": "digits", "builtin": "digits", "rows_per_class": 5}],
        "methods": [NETWORKS],
        "epsilons": [8],
        "seeds": 2,
        "ceiling": False,
    }
    return StudyConfig.model_validate(content | changes)


def go(study, folder):
    """Run a study here; gives its outcome and the rows of its table."""
    store, sources = RunStore(folder), study_sources(study, folder)
    outcome = run_sweep(study.name, sources, store, lambda: ThreadPoolExecutor(1), workers=1)
    return outcome, pq.read_table(store.write_table(study.name, outcome.runs)).to_pylist()


@pytest.mark.slow
def test_networks_are_runs_like_any(tmp_path):
    outcome, rows = go(networks(), tmp_path)
    assert (len(outcome.runs), outcome.failed) == (4, 0)
    assert len({run.key for run in outcome.runs}) == 4
    assert {(row["method"], row["label"]) for row in rows} == {("dpsgd", "DP-SGD")}
    statement = json.loads(rows[0]["statement"])
    assert statement["estimator"] == "DPSGDClassifier" and statement["private"] is False
    assert go(networks(), tmp_path)[0].new == 0


def test_a_networks_run_is_what_the_classifier_gives_on_pixels_in_0_1(tmp_path):
    from dpfc import DPSGDClassifier
    from dpfc.experiments.studies.worker import _load

    _, rows = go(networks(), tmp_path)
    data = _load(Rows("digits", None, "digits", None, None, "d", rows_per_class=5))[0]
    with pytest.warns(UserWarning, match="random_state"):
        model = DPSGDClassifier(
            "linear", 8.0, classes=range(10), n_steps=2, clipping="ghost", random_state=1
        ).fit(data.X / 16, data.y)
    row = next(r for r in rows if r["seed"] == 1 and "linear" in r["parameters"])
    assert row["accuracy"] == pytest.approx(model.score(data.X_test / 16, data.y_test))


@pytest.mark.slow
def test_networks_run_on_caches(dpfc, write_cache, tmp_path):
    write_cache(tmp_path / "train", width=64), write_cache(tmp_path / "test", width=64)
    (tmp_path / "study.yaml").write_text(
        f"name: nets\ndatasets:\n  - {{name: insects, train: {tmp_path / 'train'}, "
        f"test: {tmp_path / 'test'}}}\nmethods:\n"
        "  - {name: dpsgd, parameters: {module: cnn, n_steps: 2, augmentation: flip}}\n"
        "epsilons: [8]\nseeds: 1\n"
    )
    study, out = tmp_path / "study.yaml", ("--out", tmp_path / "out")
    dry = dpfc("sweep", study, "--dry-run", *out)
    assert dry.code == 0 and "DP-SGD" in dry.out and "(8, 1e-05)-differentially private" in dry.out
    assert dpfc("sweep", study, "--workers", 1, *out).code == 0
    assert "DP-SGD" in dpfc("results", study, "--study", out[1]).out


def test_a_network_that_does_not_take_the_rows_fails_alone(tmp_path):
    data = {"name": "cancer", "builtin": "breast-cancer", "rows_per_class": 5}
    outcome, rows = go(networks(datasets=[data]), tmp_path)
    assert outcome.failed == 2
    failed = [row for row in rows if row["status"] == "failed"]
    assert all("cnn" in row["parameters"] and "30 is no square" in row["error"] for row in failed)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"module": ["cnn", "cnnn"]}, "there is no network 'cnnn'. Did you mean 'cnn'"),
        ({"optimizer": "adm"}, "Did you mean 'adam'"),
        ({"optimizer": "o2nc", "mechanic": [False, True]}, "mechanic tunes"),
        ({"sampling_probability": {"low": 0.1, "high": 2.0}}, "sampling_probability"),
    ],
)
def test_what_no_network_takes_is_refused_before_anything_runs(tmp_path, parameters, words):
    with pytest.raises(ValueError, match=words):
        study_sources(networks(methods=[{"name": "dpsgd", "parameters": parameters}]), tmp_path)


@pytest.mark.parametrize("name", ["checkpoint", "device", "ledger", "verbose", "random_state"])
def test_what_a_run_sets_itself_is_no_parameter(name):
    with pytest.raises(ValueError, match=f"no dpsgd: parameter '{name}'"):
        networks(methods=[{"name": "dpsgd", "parameters": {name: "x"}}])


@pytest.mark.parametrize("place", ["base.py", "full_models/training.py", "room/inner/rule.py"])
def test_a_change_of_a_classifiers_code_changes_the_key(place, monkeypatch, tmp_path):
    """Wherever the file lies; not what an installation has beside it."""
    import dpfc
    from dpfc.experiments.studies import versions

    package = tmp_path / "dpfc"
    for file in (place, "experiments/cli/app.py"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(dpfc, "__file__", str(package / "__init__.py"))
    found = []
    for code, command in (("a = 1", "b = 1"), ("a = 2", "b = 1"), ("a = 2", "b = 2")):
        (package / place).write_text(code)
        (package / "experiments/cli/app.py").write_text(command)
        found.append(versions.code_version.__wrapped__())
    assert found[0] != found[1] == found[2]
    (package / place).rename(package / "elsewhere.py")
    assert versions.code_version.__wrapped__() != found[2]
