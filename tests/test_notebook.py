"""The tutorial notebook runs, and its outputs hold what its text says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from dpfc.accounting import gaussian_epsilon, gaussian_mu

DOCS = Path(__file__).parents[1] / "docs"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def notebook():
    """Execute the notebook as the site does: by jupytext and nbclient, in a folder of its own."""
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", DOCS / "mkdocs_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks.run_notebook(DOCS / hooks.NOTEBOOK)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook, code: str) -> str:
    """What the one cell that holds this code printed."""
    (cell,) = [cell for cell in code_cells(notebook) if code in cell.source]
    return "".join(output.get("text", "") for output in cell.outputs)


def percents(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


def test_every_cell_ran_without_a_warning_and_something_was_printed_or_drawn(notebook):
    for number, cell in enumerate(code_cells(notebook), start=1):
        assert cell.execution_count == number
        assert cell.outputs, cell.source
        kinds = {(output.output_type, output.get("name")) for output in cell.outputs}
        assert kinds <= {("stream", "stdout"), ("display_data", None)}, cell.outputs


def test_the_text_names_the_rows_and_the_fits_that_there_are(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    rows = [int(number) for number in re.findall(r"\d+", printed(notebook, "load_digits("))]
    assert f"{sum(rows[:2]):,} images" in text
    fits = 3 * len(percents(printed(notebook, "zip(budgets, curve"))[:-1])
    assert f"all {fits} fits" in text


def test_the_plan_and_the_attack_are_those_of_the_budget(notebook):
    assert percents(printed(notebook, "NormalDist().cdf(")) == [50.6, 55.3, 59.9, 79.8]
    plan = printed(notebook, "privacy_plan()")
    noises = {
        name: float(noise) for name, noise in re.findall(r"(\w+) +\d+ times  noise (.+)", plan)
    }
    assert set(noises) == {"count", "feature_sum", "gram", "gradient"}
    assert all(noise > 10 for noise in noises.values())


def test_the_model_is_good_and_its_statement_private(notebook):
    (accuracy,) = percents(printed(notebook, "model.fit(X_train, y_train)\n"))
    assert accuracy > 80
    statement = printed(notebook, "print(statement)")
    assert statement.startswith("(ε = 1, δ = 1e-05)-DP, add or remove one row\n")
    assert "NOT" not in statement
    assert re.search(r"^Releases$.*^Rests on$", statement, flags=re.DOTALL | re.MULTILINE)
    mu = gaussian_mu(1.0, 1e-5)
    fields = printed(notebook, "print(statement.private")
    assert fields.startswith("True 1.0 1e-05\n")
    assert float(fields.split("μ = ")[1]) == pytest.approx(mu, abs=1e-4)


def test_two_fits_are_on_record_and_the_third_is_refused(notebook):
    one, whole = gaussian_mu(1.0, 1e-5), gaussian_mu(2.0, 1e-5)
    history = printed(notebook, "create_budget(")
    assert percents(history) == [round(100 * one**2 / whole**2, 1)] * 2
    left = float(history.split("ε = ")[1])
    rest = gaussian_epsilon((whole**2 - 2 * one**2) ** 0.5, 1e-5)
    assert left == pytest.approx(rest, rel=1e-4) and left < 1.5
    refused = printed(notebook, "except dpfc.BudgetExceeded").splitlines()
    assert refused[0].startswith("BudgetExceeded: this spend does not fit into the budget")
    assert refused[1:] == ["2 spends on record", "third model fitted: False"]
    assert percents(printed(notebook, "third.set_params(")) == [100.0]


def test_the_private_accuracy_comes_with_an_interval_and_takes_the_test_rows_budget(notebook):
    text = printed(notebook, "evaluate_privately(")
    accuracy, low, high, exact = percents(text)
    assert low < accuracy < high
    assert exact > 80
    assert low - 10 < exact < high + 10
    assert float(text.split("ε = ")[1]) < 0.01


def test_accuracy_grows_with_epsilon_and_is_drawn(notebook):
    *curve, ceiling = percents(printed(notebook, "zip(budgets, curve"))
    assert curve[0] > 60
    assert curve[-1] > 90
    assert curve[-1] > curve[0]
    assert ceiling > 90
    drawn = [
        output.data
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "display_data"
    ]
    assert len(drawn) == 1 and "image/png" in drawn[0]


def test_the_loaded_model_is_the_saved_one(notebook):
    assert printed(notebook, "dpfc.load_model(") == "True True\n"
