"""A study's runs: spelled out, run once, kept, and gone on with after any stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from study_workers import die_for_half, sleep_for_long

from dpfc.experiments.studies import loop as sweeping
from dpfc.experiments.studies import worker as sweep_worker
from dpfc.experiments.studies.config import StudyConfig
from dpfc.experiments.studies.loop import process_pool, run_sweep
from dpfc.experiments.studies.plan import plan_sweep, study_sources
from dpfc.experiments.studies.runs import Rows, RunSpec, study_cells
from dpfc.experiments.studies.store import RunStore

ROWS = [Rows("digits", None, "digits", None, None, "d")]
# Timings, and when a run ended.
VARYING = ("seconds", "finished")


def config(**changes):
    content = {
        "name": "small",
        "datasets": [{"name": "digits", "builtin": "digits"}],
        "methods": ["fc", {"name": "ls", "seeds": [7]}],
        "epsilons": [0.5, 2],
        "seeds": 2,
    }
    return StudyConfig.model_validate(content | changes)


def runs_of(study):
    sources = study_sources(study, Path("nowhere"))
    return [run for source in sources for run in source.ready()]


def table_of(folder):
    table = pq.read_table(folder / "results.parquet")
    return table.drop_columns(list(VARYING)).to_pylist()


def go(study, folder, **options):
    store = RunStore(folder)
    options = {"workers": 1, **options}
    make = options.pop("make_executor", lambda: ThreadPoolExecutor(1))
    outcome = run_sweep(study.name, study_sources(study, folder), store, make, **options)
    store.write_table(study.name, outcome.runs)
    return outcome


# -- what is run ---------------------------------------------------------------------


def test_a_grid_is_spelled_out_in_its_order():
    study = config(parameters={"center": [True, False], "gram_share": 0.1})
    cells = list(study_cells(study, ROWS))
    assert [(cell.label, cell.epsilon) for cell in cells] == [
        ("DP-FC", 0.5), ("DP-FC", 2), ("DP-LS", 0.5), ("DP-LS", 2), ("not private", np.inf),
    ]  # fmt: skip
    assert cells[0].grid == [
        {"center": True, "gram_share": 0.1}, {"center": False, "gram_share": 0.1},
    ]  # fmt: skip
    assert cells[0].seeds == (0, 1) and cells[2].seeds == (7,)
    assert len({run.key for run in runs_of(study)}) == 13


def test_what_changes_a_result_changes_the_key():
    (run,) = runs_of(config(methods=["fc"], epsilons=[1], seeds=1, ceiling=False))
    content = {name: getattr(run, name) for name in RunSpec.__dataclass_fields__}
    rows = Rows("d", None, None, None, None, "e")
    changes = {
        "method": "gd", "epsilon": 2.0, "delta": 1e-6, "seed": 1, "code": "other",
        "parameters": {"n_steps": 3}, "versions": {}, "rows": rows,
    }  # fmt: skip
    keys = {RunSpec(**(content | {name: value})).key for name, value in changes.items()}
    assert len(keys | {run.key}) == len(changes) + 1
    assert RunSpec(**(content | {"label": "other"})).key == run.key


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_ranges_are_sampled_within_their_bounds_and_the_same_again(tmp_path, sampler):
    study = config(
        methods=["fc"],
        epsilons=[2],
        parameters={
            "logit_noise": {"low": 0.3, "high": 2, "log": True},
            "n_steps": {"low": 3, "high": 9, "integer": True},
        },
        search={"trials": 4, "sampler": sampler},
        ceiling=False,
    )
    first, again = go(study, tmp_path / "a"), go(study, tmp_path / "b")
    assert [run.key for run in first.runs] == [run.key for run in again.runs]
    assert len(first.runs) == 8
    settings = [run.parameters for run in first.runs]
    assert all(0.3 <= s["logit_noise"] <= 2 and 3 <= s["n_steps"] <= 9 for s in settings)
    assert all(isinstance(s["n_steps"], int) for s in settings)
    assert len({s["logit_noise"] for s in settings}) == 4
    assert go(study, tmp_path / "a").new == 0


def test_parameters_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match=r"DP-FC at ε = 0\.5 with {'n_steps': 0}: n_steps"):
        study_sources(config(parameters={"n_steps": 0}), tmp_path)
    with pytest.raises(ValueError, match="gram_share"):
        study_sources(config(parameters={"gram_share": {"low": 0.5, "high": 2}}), tmp_path)


def test_the_plan_counts_runs_and_adds_up_budgets(tmp_path):
    from dpfc.accounting import gaussian_mu

    study = config(ceiling=False, methods=["fc"], epsilons=[1], seeds=4)
    plan = plan_sweep(study, tmp_path / "none", 2)
    assert plan.runs == 4 and plan.known == 0 and plan.unknown == 4 and plan.seconds == 0.0
    (cost,) = plan.costs
    assert gaussian_mu(cost.epsilon, 1e-5) == pytest.approx(2 * gaussian_mu(1, 1e-5), rel=1e-4)
    assert cost.seeded and cost.runs == 4
    assert not (tmp_path / "none").exists()
    go(study.model_copy(update={"seeds": 1}), tmp_path)
    plan = plan_sweep(study, tmp_path, 2)
    assert plan.known == 1 and plan.unknown == 0 and plan.seconds > 0.0


# -- running -------------------------------------------------------------------------


def test_runs_are_what_the_estimators_give(tmp_path):
    from dpfc import DPFCClassifier
    from dpfc.experiments.studies.named_data import load_named

    outcome = go(config(), tmp_path)
    assert (len(outcome.runs), outcome.new, outcome.failed) == (7, 7, 0)
    rows = table_of(tmp_path)
    assert [row["label"] for row in rows].count("DP-LS") == 2
    data = load_named(["digits"])[0].data
    with pytest.warns(UserWarning, match="random_state"):
        model = DPFCClassifier(0.5, classes=range(10), random_state=1).fit(data.X, data.y)
    row = next(r for r in rows if (r["label"], r["epsilon"], r["seed"]) == ("DP-FC", 0.5, 1))
    assert row["accuracy"] == pytest.approx(model.score(data.X_test, data.y_test))
    assert row["private"] is False and json.loads(row["statement"])["private"] is False
    assert np.trace(row["confusion"]) / np.sum(row["confusion"]) == pytest.approx(row["accuracy"])
    assert rows[-1]["method"] == "ceiling" and rows[-1]["epsilon"] == np.inf


def test_the_same_again_runs_nothing(tmp_path, monkeypatch):
    go(config(), tmp_path)
    before = (tmp_path / "results.parquet").read_bytes()
    monkeypatch.setattr(sweeping, "run_one", print)
    assert go(config(), tmp_path).new == 0
    assert (tmp_path / "results.parquet").read_bytes() == before


def test_a_failed_run_is_recorded_and_stops_no_other(tmp_path, monkeypatch):
    from dpfc import DPLeastSquaresClassifier

    def refuse(*_, **__):
        raise KeyError("a private value")

    monkeypatch.setattr(DPLeastSquaresClassifier, "_solve", refuse)
    outcome = go(config(), tmp_path)
    assert (outcome.failed, outcome.new) == (2, 7)
    failed = [row for row in table_of(tmp_path) if row["status"] == "failed"]
    assert {row["error"] for row in failed} == {"internal error (KeyError)"}
    assert go(config(), tmp_path).new == 0
    monkeypatch.undo()
    outcome = go(config(), tmp_path, retry_failed=True)
    assert (outcome.failed, outcome.new) == (0, 2)


def test_a_change_of_label_changes_the_table_and_runs_nothing(tmp_path):
    go(config(methods=["fc"], ceiling=False), tmp_path)
    renamed = config(methods=[{"name": "fc", "label": "ours"}], ceiling=False, name="other")
    assert go(renamed, tmp_path).new == 0
    assert {(row["label"], row["study"]) for row in table_of(tmp_path)} == {("ours", "other")}


def test_real_noise_is_drawn_without_seeds(tmp_path):
    outcome = go(config(methods=["fc"], epsilons=[1], seeds=None, ceiling=False), tmp_path)
    (row,) = table_of(tmp_path)
    assert outcome.new == 1 and row["seed"] is None and row["private"] is True


@pytest.mark.slow
def test_a_run_that_kills_its_process_is_the_only_one_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "partial", lambda *_: die_for_half)
    study = config(methods=["fc"], seeds=1, epsilons=[0.5, 1, 2, 4], ceiling=False)
    outcome = go(study, tmp_path, workers=2, make_executor=lambda: process_pool(2, 1))
    errors = {row["epsilon"]: row["error"] for row in table_of(tmp_path)}
    assert errors.pop(0.5) == sweeping._DIED
    assert errors == {1: "lived", 2: "lived", 4: "lived"} and outcome.new == 4


def test_ctrl_c_waits_for_what_runs_and_keeps_it(tmp_path):
    class Executor(ThreadPoolExecutor):
        """Ctrl-C comes while the second run is under way."""

        def submit(self, fn, /, *args, **kwargs):
            submitted.append(args[0])
            if len(submitted) == 2:
                raise KeyboardInterrupt
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    submitted = []
    outcome = go(config(), tmp_path, make_executor=lambda: Executor(1))
    assert outcome.interrupted and outcome.new == 1
    outcome = go(config(), tmp_path)
    assert not outcome.interrupted and outcome.new == 6


def test_no_runs_time_has_the_loading_of_libraries_in_it(monkeypatch):
    class Model:
        """Its first fit in a process is slow."""

        privacy_ = SimpleNamespace(private=False, model_dump=lambda mode: {})
        fits: ClassVar[list[int]] = []

        def fit(self, X, y, groups=None):
            time.sleep(0.0 if Model.fits else 0.5)
            Model.fits.append(len(X))

        def predict(self, X):
            return np.zeros(len(X))

    runs = runs_of(config(ceiling=False))[:2]
    name = "dpfc.experiments.estimators.make_study_estimator"
    monkeypatch.setattr(name, lambda *_, **__: Model())
    sweep_worker._warm_up.cache_clear()
    records = [sweep_worker.run_one("small", run) for run in runs]
    sweep_worker._warm_up.cache_clear()
    assert all(record["seconds"] < 0.4 for record in records)
    assert len(Model.fits) == 3  # once for made-up rows, then the runs


def test_a_second_ctrl_c_leaves_no_worker(tmp_path, monkeypatch):
    def interrupted_wait(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "partial", lambda *_: sleep_for_long)
    monkeypatch.setattr(sweeping, "wait", interrupted_wait)
    pools = []

    def pool():
        pools.append(process_pool(2, 1))
        return pools[-1]

    with pytest.raises(KeyboardInterrupt):
        go(config(), tmp_path, workers=2, make_executor=pool)
    assert len(pools) == 1 and not pools[0]._processes


@pytest.mark.slow
@pytest.mark.parametrize("runs_that_end_first", [0, 1, 2])
def test_ctrl_c_at_any_moment_ends_as_documented_and_leaves_no_process(
    study, tmp_path, runs_that_end_first
):
    words = ["methods=[fc,ls]", "epsilons=1", "seeds=1", "ceiling=false", "--workers", "2"]
    command = [str(Path(sys.executable).with_name("dpfc")), "sweep", str(study), *words]
    command += ["--out", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(0 if runs_that_end_first else 3)
    first = [process.stderr.readline() for _ in range(runs_that_end_first)]
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130), errors
    assert "Traceback" not in "".join(first) + errors
    with pytest.raises(ProcessLookupError):
        for _ in range(50):  # until its zombies are gone
            os.killpg(process.pid, 0)
            time.sleep(0.1)


# -- the command ---------------------------------------------------------------------

YAML = """\
name: small
datasets: [{name: digits, builtin: digits}]
methods: [fc, gd]
epsilons: [0.5, 2]
seeds: 3
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(YAML)
    return path


@pytest.mark.slow
def test_the_command_runs_shows_and_exits_as_it_says(dpfc, study, tmp_path, strict_json):
    out = ("--out", tmp_path / "out")
    dry = dpfc("sweep", study, "--dry-run", *out)
    assert dry.code == 0 and "13 runs, 0 of them there already" in dry.out
    assert "seeded runs are not private" in dry.out and not (tmp_path / "out").exists()
    assert strict_json(dpfc("sweep", study, "--dry-run", "--json", *out).out)["runs"] == 13
    done = dpfc("sweep", study, "--workers", 1, "--json", *out)
    report = strict_json(done.out)
    assert done.code == 0 and report["runs"] == report["new"] == 13 and report["failed"] == 0
    assert "digits, DP-FC, ε = 0.5, seed 0: " in done.err
    shown = dpfc("results", study, "--study", out[1])
    assert "| digits   | DP-FC" in shown.out and "no privacy" in shown.out
    wrong = dpfc("sweep", study, "epsilon=3", *out)
    assert wrong.code == 1 and "Did you mean 'epsilons'" in wrong.err


def test_a_failure_is_in_the_exit_code(dpfc, study, tmp_path, monkeypatch):
    from dpfc.experiments.studies import worker as sweep_worker

    monkeypatch.setattr(sweep_worker, "_load", None)
    monkeypatch.setattr(sweeping, "process_pool", lambda *_: ThreadPoolExecutor(1))
    found = dpfc("sweep", study, "--out", tmp_path / "out")
    assert found.code == 1 and "13 failed; --retry-failed" in found.out


@pytest.mark.slow
def test_caches_are_made_once_and_used(dpfc, write_cache, tmp_path):
    write_cache(tmp_path / "train"), write_cache(tmp_path / "test")
    text = YAML.replace(
        "builtin: digits", f"train: {tmp_path / 'train'}, test: {tmp_path / 'test'}"
    )
    (tmp_path / "study.yaml").write_text(text)
    found = dpfc("sweep", tmp_path / "study.yaml", "--workers", 1, "--out", tmp_path / "out")
    assert found.code == 0
    assert table_of(tmp_path / "out")[0]["class_names"] == ["ant", "bee", "cow"]
    gone = text.replace(str(tmp_path / "train"), str(tmp_path / "gone"))
    (tmp_path / "study.yaml").write_text(gone)
    found = dpfc("sweep", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert found.code == 1 and "names no backbones" in found.err


@pytest.mark.parametrize(
    ("other", "words"),
    [({"width": 9}, "differ in width: 6 and 9"), ({"class_names": ("cow", "bee", "ant")}, "order")],
)
def test_splits_that_do_not_fit_are_refused(dpfc, write_cache, tmp_path, other, words):
    train, test = tmp_path / "train", tmp_path / "test"
    write_cache(train), write_cache(test, **other)
    text = YAML.replace("builtin: digits", f"train: {train}, test: {test}")
    (tmp_path / "study.yaml").write_text(text)
    found = dpfc("sweep", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert found.code == 1 and words in found.err and found.err.count("\n") == 1


@pytest.mark.parametrize("content", ["{}", '{"key": "other"}', "half a li"])
def test_a_damaged_run_is_named(tmp_path, content):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "abc.json").write_text(content)
    with pytest.raises(ValueError, match=r"abc\.json is not a run of a sweep"):
        RunStore(tmp_path)


def start(study, out):
    command = [str(Path(sys.executable).with_name("dpfc")), "sweep", str(study)]
    return subprocess.Popen(
        [*command, "--out", str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(study, tmp_path):
    study.write_text(YAML.replace("seeds: 3", "seeds: 30"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(study, whole).wait(300) == 0
    rng, kills, left = np.random.default_rng(0), 0, 200
    while kills < 20:
        left -= 1
        assert left, "the sweep ends before it can be killed"
        process = start(study, broken)
        try:
            process.wait(rng.uniform(1.0, 5.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:  # it is done: take some of it away
            for path in sorted((broken / "runs").glob("*.json"))[::2]:
                path.unlink()
    assert start(study, broken).wait(300) == 0
    assert table_of(broken) == table_of(whole)
    assert not list(broken.rglob("*.tmp")) and len(table_of(whole)) == 121


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(study, tmp_path):
    study.write_text(YAML.replace("seeds: 3", "seeds: 300"))
    process = start(study, tmp_path / "out")
    while not list((tmp_path / "out").rglob("*.json")):
        time.sleep(0.1)
        assert process.poll() is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.kill()
    process.wait()
    time.sleep(4)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.slow
def test_runs_on_ray_are_the_same(dpfc, study, tmp_path):
    pytest.importorskip("ray")
    assert dpfc("sweep", study, "--out", tmp_path / "pool").code == 0
    assert dpfc("sweep", study, "--out", tmp_path / "ray", "--ray", "local").code == 0
    assert table_of(tmp_path / "ray") == table_of(tmp_path / "pool")


@pytest.mark.slow
def test_mlflow_gets_every_run_once(dpfc, study, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    for _ in range(2):
        found = dpfc("sweep", study, "--out", tmp_path / "out", "--mlflow", uri)
        assert found.code == 0, found.err
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 13
    kept = {json.loads(p.read_text())["key"]: json.loads(p.read_text())["accuracy"]
            for p in (tmp_path / "out" / "runs").glob("*.json")}  # fmt: skip
    assert {run.data.tags["dpfc.key"]: run.data.metrics["accuracy"] for run in runs} == kept
    found = dpfc("sweep", study, "--out", tmp_path / "out", "--mlflow", "nowhere://x")
    assert found.code == 1 and "MLflow at nowhere" in found.err


# -- ready studies and the shell -----------------------------------------------------

CONFIGS = Path(sweeping.__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_study_is_valid_and_named_in_the_help(dpfc, path):
    from dpfc.experiments.studies.config import read_study
    from dpfc.experiments.studies.plan import check_parameters

    study = read_study(path)
    assert study.name == path.stem and study.description
    check_parameters(study)
    assert path.stem in " ".join(dpfc("sweep", "--help").out.split()).replace("- ", "-")


@pytest.mark.slow
def test_a_ready_study_runs_by_its_name(dpfc, tmp_path):
    command = ("digits", "methods=[fc]", "epsilons=[1]", "seeds=1", "--workers", 1)
    assert dpfc("sweep", *command, "--out", tmp_path).code == 0
    assert dpfc("sweep", "digit", "--out", tmp_path).code == 1


def test_few_shot_takes_the_first_rows_of_each_class(tmp_path):
    from dpfc.experiments.studies.worker import _load

    rows = Rows("digits", None, "digits", None, None, "d", rows_per_class=7)
    cut, whole = _load(rows)[0], _load(ROWS[0])[0]
    assert np.bincount(cut.y).tolist() == [7] * 10
    for code in range(10):
        expected = whole.X[whole.y == code][:7]
        np.testing.assert_array_equal(cut.X[cut.y == code], expected)
    np.testing.assert_array_equal(cut.X_test, whole.X_test)


def test_shell_completion_installs_and_completes(tmp_path):
    command = str(Path(sys.executable).with_name("dpfc"))
    environment = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    # The shell that asks is found among the parents: not `exec`, as bash does with a last command.
    line = f"{command} --install-completion bash; exit $?"
    subprocess.run(["bash", "-c", line], env=environment, check=True)
    assert "dpfc" in (tmp_path / ".bash_completions" / "dpfc.sh").read_text()
    asked = {"_DPFC_COMPLETE": "complete_bash", "COMP_WORDS": "dpfc swe", "COMP_CWORD": "1"}
    found = subprocess.run([command], env=environment | asked, capture_output=True, text=True)
    assert found.stdout.split() == ["sweep"]
