"""`dpfc report`: statements from model files, ledgers and statements, and what is refused."""

import json
import os
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator
from safetensors import safe_open
from safetensors.numpy import save_file

from dpfc import load_model
from dpfc.accounting import PrivacyLedger, PrivacyStatement, make_ledger_statement

FORMATS = ("text", "markdown", "json", "html")


@pytest.fixture
def model(dpfc, cache_path, tmp_path):
    """A private model, fitted without a ledger."""
    path = tmp_path / "model.safetensors"
    fit = ["fit", "--features", cache_path, "--epsilon", 1, "--method", "ls", "--out", path]
    assert dpfc(*fit).code == 0
    return path


@pytest.fixture
def ledger(dpfc, cache_path, tmp_path):
    """A ledger with one fit."""
    path = tmp_path / "ledger.db"
    budget = ["budget", "create", path, "--dataset", "ward-7", "--epsilon", 3, "--delta", 1e-5]
    assert dpfc(*budget, "--unit", "one patient", "--rows-per-unit", 1).code == 0
    fit = ["fit", "--features", cache_path, "--epsilon", 1, "--delta", 1e-5, "--method", "ls"]
    fit += ["--ledger", path, "--dataset", "ward-7", "--out", tmp_path / "ward-7.safetensors"]
    assert dpfc(*fit).code == 0
    return path


def rendered(statement, form):
    return {
        "text": statement.to_text,
        "markdown": statement.to_markdown,
        "json": statement.to_json,
        "html": statement.to_html,
    }[form]()


@pytest.mark.parametrize("form", FORMATS)
def test_a_models_statement_is_printed_in_every_format(dpfc, model, form):
    result = dpfc("report", "privacy", model, "--format", form)
    assert result.code == 0 and result.err == ""
    assert result.out.rstrip("\n") == rendered(load_model(model).privacy_, form).rstrip("\n")
    assert result.out.endswith("\n") and not result.out.endswith("\n\n")


def test_text_is_the_default_and_starts_with_the_guarantee(dpfc, model):
    result = dpfc("report", "privacy", model)
    assert result.out.startswith("(ε = 1, δ = 1e-05)-DP, add or remove one row\n")
    assert result.out == dpfc("report", "privacy", model, "--format", "text").out


def test_a_model_without_noise_is_called_not_private(dpfc, fitted):
    assert dpfc("report", "privacy", fitted).out.startswith("NOT PRIVATE: epsilon is infinite")
    assert dpfc("report", "privacy", fitted, "--format", "markdown").out.startswith(
        "# ⚠ NOT PRIVATE"
    )
    assert "<h2>NOT PRIVATE</h2>" in dpfc("report", "privacy", fitted, "--format", "html").out


@pytest.mark.parametrize("form", FORMATS)
def test_a_ledgers_statement_needs_no_name_where_it_keeps_one_data_set(dpfc, ledger, form):
    result = dpfc("report", "privacy", ledger, "--format", form)
    assert result.code == 0 and result.err == ""
    statement = make_ledger_statement(PrivacyLedger(ledger), "ward-7")
    assert result.out.rstrip("\n") == rendered(statement, form).rstrip("\n")
    assert (
        result.out == dpfc("report", "privacy", ledger, "--dataset", "ward-7", "--format", form).out
    )


def test_a_report_spends_nothing_and_leaves_the_ledger_as_it_was(dpfc, ledger):
    before = PrivacyLedger(ledger).history("ward-7")
    content = ledger.read_bytes()
    assert dpfc("report", "privacy", ledger, "--format", "html").code == 0
    assert PrivacyLedger(ledger).history("ward-7") == before
    assert ledger.read_bytes() == content


def test_several_data_sets_want_a_name(dpfc, ledger):
    other = ["budget", "create", ledger, "--dataset", "ward-8", "--epsilon", 1, "--delta", 1e-5]
    assert dpfc(*other).code == 0
    result = dpfc("report", "privacy", ledger)
    assert result.code == 1 and result.out == ""
    assert "choose with --dataset" in result.err and "'ward-7', 'ward-8'" in result.err
    chosen = dpfc("report", "privacy", ledger, "--dataset", "ward-8")
    assert chosen.code == 0 and "Nothing was spent." in chosen.out
    unknown = dpfc("report", "privacy", ledger, "--dataset", "ward-9")
    assert unknown.code == 1 and "no budget for 'ward-9'" in unknown.err


@pytest.mark.parametrize("form", FORMATS)
def test_a_statement_in_json_can_be_rendered_again(dpfc, ledger, tmp_path, form):
    out = tmp_path / "statement.json"
    assert dpfc("report", "privacy", ledger, "--format", "json", "--out", out).code == 0
    again = dpfc("report", "privacy", out, "--format", form)
    assert again.code == 0
    assert again.out == dpfc("report", "privacy", ledger, "--format", form).out


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_command_printed_as_json_can_be_rendered(dpfc, cache_path, model, tmp_path, form):
    """An evaluation has no file of its own: this is how its page is made."""
    evaluate = ["evaluate", "--model", model, "--features", cache_path, "--epsilon", 1, "--json"]
    source = tmp_path / "evaluation.json"
    printed = dpfc(*evaluate).out
    # Windows' shells start a file with a byte-order mark.
    source.write_text(printed, encoding="utf-8-sig")
    statement = PrivacyStatement.from_json(json.dumps(json.loads(printed)["privacy"]))
    result = dpfc("report", "privacy", source, "--format", form)
    assert result.code == 0 and statement.kind == "evaluation"
    assert result.out.rstrip("\n") == rendered(statement, form).rstrip("\n")


def test_figures_are_computed_again(dpfc, model, tmp_path):
    value = json.loads(dpfc("report", "privacy", model, "--format", "json").out)
    value["epsilon_by_accountant"]["rdp"] = value["epsilon_by_accountant"]["exact"]
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(value))
    result = dpfc("report", "privacy", path)
    assert result.code == 1 and result.out == ""
    assert f"the privacy statement in {path} is wrong: rdp epsilon must be" in result.err


def test_json_follows_the_schema_that_is_printed(dpfc, ledger, model, strict_json):
    schema = strict_json(dpfc("report", "schema").out)
    assert schema == PrivacyStatement.json_schema()
    for source in (ledger, model):
        report = strict_json(dpfc("report", "privacy", source, "--format", "json").out)
        Draft202012Validator(schema).validate(report)


def test_the_printed_schema_is_the_published_file(dpfc):
    published = files("dpfc.accounting").joinpath("statements/privacy-statement-2.json")
    assert dpfc("report", "schema").out == published.read_text(encoding="utf-8")


# -- writing -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_written_whole_and_named(dpfc, model, tmp_path, form):
    out = tmp_path / f"statement.{form}"
    result = dpfc("report", "privacy", model, "--format", form, "--out", out)
    assert (result.code, result.out, result.err) == (0, f"{out}\n", "")
    expected = rendered(load_model(model).privacy_, form).rstrip("\n") + "\n"
    assert out.read_text(encoding="utf-8") == expected


def test_an_existing_file_is_kept_without_force(dpfc, model, tmp_path):
    out = tmp_path / "statement.txt"
    out.write_text("mine")
    report = ["report", "privacy", model, "--out", out]
    result = dpfc(*report)
    assert result.code == 1 and "exists: choose another name, or overwrite" in result.err
    assert out.read_text() == "mine"
    assert dpfc(*report, "--force").code == 0
    assert out.read_text(encoding="utf-8").startswith("(ε = 1")


def test_the_ledger_is_not_overwritten_by_its_own_report(dpfc, ledger):
    """Not by force either: with the file, every record of what was spent would be gone."""
    content = ledger.read_bytes()
    spelled = ledger.parent / "." / ".." / ledger.parent.name / ledger.name
    for out in (ledger, spelled):
        result = dpfc("report", "privacy", ledger, "--out", out, "--force")
        assert result.code == 1 and "is a file that this command reads" in result.err
    assert ledger.read_bytes() == content


def test_an_output_that_cannot_be_written_is_refused(dpfc, model, tmp_path):
    absent = dpfc("report", "privacy", model, "--out", tmp_path / "no" / "statement.txt")
    assert absent.code == 1 and "does not exist: create it first" in absent.err
    folder = dpfc("report", "privacy", model, "--out", tmp_path, "--force")
    assert folder.code == 1 and "is a folder" in folder.err


def test_a_failed_write_leaves_the_old_file_and_no_other(dpfc, model, tmp_path, monkeypatch):
    folder = tmp_path / "reports"
    folder.mkdir()
    out = folder / "statement.html"
    out.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = dpfc("report", "privacy", model, "--format", "html", "--out", out, "--force")
    assert result.code == 1 and "No space left on device" in result.err
    assert list(folder.iterdir()) == [out] and out.read_text() == "old"


def test_a_source_that_is_refused_leaves_the_old_file(dpfc, tmp_path):
    source, out = tmp_path / "notes.txt", tmp_path / "statement.txt"
    source.write_text("notes")
    out.write_text("old")
    assert dpfc("report", "privacy", source, "--out", out, "--force").code == 1
    assert out.read_text() == "old"


# -- what is no source ---------------------------------------------------------------


@pytest.mark.parametrize(
    "content, message",
    [
        (b"notes", "is neither a ledger nor a model file of dpfc, nor a statement"),
        (b"", "is neither a ledger nor a model file of dpfc, nor a statement"),
        (b'{"a": 1}', "there is no schema_version"),
        (b'\n  {"schema_version": "1"}', "is no valid privacy statement: kind: Field required."),
        (b'{"schema_version": "1"}', "more problems)"),
        (b'{"abc": {"d": 1}}', "is no valid privacy statement"),
        (b"{", "is no valid privacy statement: Invalid JSON"),
        (b"\x10\0\0\0\0\0\0\0{}", "cannot read a model from"),
        (b"SQLite format 3\0" + bytes(100), "ledger"),
    ],
)
def test_another_file_is_refused_by_what_it_is(dpfc, tmp_path, content, message):
    source = tmp_path / "file"
    source.write_bytes(content)
    result = dpfc("report", "privacy", source)
    assert result.code == 1 and result.out == ""
    assert result.err.startswith("Error: ") and result.err.count("\n") == 1
    assert message in result.err and str(source) in result.err
    assert "pydantic" not in result.err


def test_a_missing_file_or_a_folder_is_refused(dpfc, tmp_path):
    missing = dpfc("report", "privacy", tmp_path / "none.db")
    assert missing.code == 1 and "No such file" in missing.err
    folder = dpfc("report", "privacy", tmp_path)
    assert folder.code == 1 and "Is a directory" in folder.err


def test_a_data_set_goes_with_a_ledger_only(dpfc, model):
    result = dpfc("report", "privacy", model, "--dataset", "ward-7")
    assert result.code == 1 and "--dataset goes with a ledger" in result.err


def test_an_unknown_format_is_refused(dpfc, model):
    result = dpfc("report", "privacy", model, "--format", "pdf")
    assert result.code == 2 and "'pdf'" in result.err and "html" in result.err


def test_an_edited_statement_is_refused(dpfc, model, tmp_path):
    value = json.loads(dpfc("report", "privacy", model, "--format", "json").out)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps({**value, "target_epsilon": 0.5}))
    result = dpfc("report", "privacy", path, "--format", "html")
    assert result.code == 1 and result.out == ""
    assert f"{path} is no valid privacy statement: epsilon of what ran" in result.err


def test_a_statement_of_another_version_is_refused(dpfc, model, tmp_path):
    value = json.loads(dpfc("report", "privacy", model, "--format", "json").out)
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**value, "schema_version": "0"}))
    result = dpfc("report", "privacy", path)
    assert result.code == 1 and "schema_version must be '1' or '2', got '0'" in result.err


def test_a_model_with_a_statement_of_another_version_is_refused(dpfc, model, tmp_path):
    with safe_open(model, framework="numpy") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    old = {**json.loads(header["privacy"]), "schema_version": "0"}
    path = tmp_path / "old.safetensors"
    save_file(tensors, path, metadata={**header, "privacy": json.dumps(old)})
    result = dpfc("report", "privacy", path)
    assert result.code == 1 and "schema_version must be '1' or '2', got '0'" in result.err


@pytest.mark.parametrize("command", ["report", "report privacy", "report schema"])
def test_help_says_what_a_report_is(dpfc, command):
    result = dpfc(*command.split(), "--help")
    assert result.code == 0 and f"dpfc {command}" in result.out
    assert command == "report" or "Example" in result.out
    assert "Usage: dpfc report" in dpfc("report").out


def test_the_file_that_a_report_was_written_to_is_named(dpfc, fitted, tmp_path):
    out = tmp_path / "statement.md"
    done = dpfc("report", "privacy", fitted, "--format", "markdown", "--out", out)
    assert done.code == 0 and done.out == f"{out}\n" and out.exists()
