"""The demo, small: digits and their pixels instead of MNIST and a network's features."""

import csv

import numpy as np
import pytest

from dpfc import load_model
from dpfc.accounting import PrivacyStatement
from dpfc.experiments import demo as demo_module
from dpfc.experiments.ceiling import bound_rows, logistic_ceiling
from dpfc.experiments.demo import run_demo
from dpfc.experiments.pictures.charts import budgets_chart

FILES = {
    "accuracy.png",
    "accuracy.svg",
    "model.safetensors",
    "privacy-statement.json",
    "privacy-statement.txt",
    "results.csv",
}


def gray_pixels(image):
    return np.asarray(image.convert("L").resize((8, 8)))


class Pixels:
    """A backbone that hands the 64 pixels of a digit through."""

    spec, modality, device, n_features = "pixels", "image", "cpu", 64
    decode_size, best_batch_size, preparer = 8, 64, staticmethod(gray_pixels)
    weights_sha256, preprocessing = "0" * 64, {"image_size": 8}

    def embed(self, batch):
        return batch.reshape(len(batch), 64).astype(np.float32) / 255


@pytest.fixture(scope="module", autouse=True)
def pixels():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "load_backbone", lambda *_, **__: Pixels())
        yield patch


@pytest.fixture(scope="module")
def finished(pixels, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "runs" / "small"
    return out, run_demo(out, (0.5, 8.0), data="digits")


def test_it_writes_everything_it_says(finished):
    out, report = finished
    assert {path.name for path in out.iterdir() if path.is_file()} == FILES
    assert set(report.files.values()) == {str(out / name) for name in FILES}
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report.runs) + 1 == 7
    assert rows[-1]["epsilon"] == "inf"


def test_the_model_is_dpfc_at_the_epsilon_nearest_to_one_and_private(finished):
    out, report = finished
    model = load_model(out / "model.safetensors")
    assert (type(model).__name__, model.epsilon) == ("DPFCClassifier", 0.5)
    assert report.model_epsilon == 0.5
    statement = PrivacyStatement.from_json((out / "privacy-statement.json").read_bytes())
    assert statement == model.privacy_ and statement.private
    assert (out / "privacy-statement.txt").read_text() == statement.to_text() + "\n"
    assert "os.urandom" in statement.random_source


def test_privacy_costs_accuracy_and_more_budget_buys_some_back(finished):
    _, report = finished
    accuracy = {(run.method, run.epsilon): run.test_accuracy for run in report.runs}
    assert report.ceiling > 0.7
    # Over 100 runs: 0.955 without privacy, 0.947 at 8 (deviation 0.005), 0.897 at 0.5 (0.014).
    assert report.ceiling > accuracy["fc", 0.5]
    assert report.ceiling + 0.03 > accuracy["fc", 8.0] > accuracy["fc", 0.5] - 0.03


def test_several_runs_of_a_setting_are_averaged_and_have_error_bars(finished, monkeypatch, dpfc):
    out, _ = finished
    monkeypatch.setattr(demo_module, "METHODS", ("fc",))
    panels = []
    draw = demo_module.budgets_grid
    monkeypatch.setattr(
        demo_module, "budgets_grid", lambda found, *rest: panels.extend(found) or draw(found, *rest)
    )
    report = run_demo(out, (0.5, 8.0), data="digits", repeats=3)
    found = demo_module.accuracies(report.runs)["fc"]
    assert [len(found[epsilon]) for epsilon in (0.5, 8.0)] == [3, 3]
    (panel,) = panels
    for epsilon, point in zip(
        (0.5, 8.0), budgets_chart(panel, {"DP-FC": "DP-FC"}, "ε")["data"]["values"], strict=True
    ):
        assert point["y"] == pytest.approx(100 * np.mean(found[epsilon]), abs=1e-3)
        error = 100 * np.std(found[epsilon], ddof=1) / 3**0.5
        assert (point["high"] - point["low"]) / 2 == pytest.approx(error, abs=1e-3)
    assert "standard error of 3 runs" in panel.name
    monkeypatch.setattr(demo_module, "run_demo", lambda *_, **__: report)
    assert dpfc("demo", "--epsilons", "0.5,8").out.count(" ± ") == 2


def test_a_second_run_embeds_nothing(finished, monkeypatch):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "features").rglob("*")}
    monkeypatch.setattr(demo_module, "METHODS", ("fc",))
    run_demo(out, (1.0,), data="digits")
    assert {path: path.stat().st_mtime_ns for path in (out / "features").rglob("*")} == before


def test_the_command_shows_a_table_and_strict_json(dpfc, finished, monkeypatch, strict_json):
    _, report = finished
    monkeypatch.setattr(demo_module, "run_demo", lambda out, epsilons, repeats: report)
    shown = dpfc("demo", "--epsilons", "0.5,8")
    assert shown.code == 0 and shown.err == ""
    for words in ("DP-FC", "DP-LS", "DP-GD", "not private", "ε = 0.5", *FILES):
        assert words in shown.out.replace("\n", "")
    parsed = strict_json(dpfc("demo", "--epsilons", "0.5,8", "--json").out)
    assert len(parsed["runs"]) == 6 and parsed["ceiling"] == report.ceiling


def test_bounded_rows_are_as_long_as_a_fit_has_them_and_use_the_training_mean():
    generator = np.random.default_rng(0)
    X, Z = generator.normal(3, 1, (50, 4)), generator.normal(3, 1, (5, 4))
    rows, others = bound_rows(X, Z)
    # The two columns for a row's length are up to 0.2 long, and 0.2/√2 at least.
    lengths = np.linalg.norm(rows, axis=1)
    assert rows.shape == (50, 6) and np.all(lengths < 1 + 1e-6) and np.all(lengths > 0.98)
    np.testing.assert_allclose(np.linalg.norm(rows[:, :4], axis=1), 0.96**0.5, rtol=1e-5)
    assert np.array_equal(bound_rows(X, Z[:1])[1][0], others[0])


def test_the_ceiling_takes_the_best_strength():
    generator = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = generator.normal(size=(200, 3)) + 4 * y[:, None] * [1, 0, 0]
    strength, accuracy = logistic_ceiling(X, y, X, y, (1e-6, 10.0))
    assert accuracy > 0.9 and strength == 10.0


@pytest.mark.slow
def test_the_real_demo(dpfc, tmp_path, pixels):
    pixels.undo()
    result = dpfc("demo", "--out", tmp_path / "demo")
    assert result.code == 0 and "DP-FC" in result.out
    assert {path.name for path in (tmp_path / "demo").iterdir() if path.is_file()} == FILES
