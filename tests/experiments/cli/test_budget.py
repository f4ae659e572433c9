"""`dpfc budget create`, `show`, `history` and `remaining`, with fits that spend in between."""

import hashlib
import re
import shlex
from pathlib import Path

import pytest

from dpfc.accounting.ledger.ledger import PrivacyLedger
from dpfc.accounting.plans import PlannedRelease, PrivacyPlan

NOTE = "What is spent so far is bookkeeping, not a claim."


@pytest.fixture
def ledger_path(tmp_path, dpfc):
    path = tmp_path / "a ledger.db"
    done = dpfc(
        *("budget", "create", path, "--dataset", "ward 7", "--epsilon", 3),
        *("--unit", "one patient", "--rows-per-unit", 1),
    )
    assert (done.code, done.err) == (0, "")
    return path


@pytest.fixture
def fit(dpfc, cache_path, tmp_path, ledger_path):
    """Fit with options, spending from the ledger."""

    def fit(*options):
        named = [] if "--dataset" in options else ["--dataset", "ward 7"]
        options = [*options, "--ledger", ledger_path, *named, "--method", "ls"]
        out = tmp_path / "model.safetensors"
        return dpfc("fit", "--features", cache_path, "--out", out, "--force", *options)

    return fit


def plain(text):
    """Words of what rich wrapped and framed."""
    return " ".join(text.replace("│", " ").split())


def test_create_fixes_the_budget_and_says_how_to_spend_it(dpfc, tmp_path):
    path = tmp_path / "it's.db"
    done = dpfc(
        *("budget", "create", path, "--dataset", "ward 7", "--epsilon", 3, "--delta", 1e-6),
        *("--unit", "one patient", "--neighboring-relation", "replace_one", "--filter", "renyi"),
        *("--rows-per-unit", 1),
    )
    assert (done.code, done.err) == (0, "")
    assert (
        "Budget of ward 7: ε = 3, δ = 1e-06, replace one (one patient), renyi filter." in done.out
    )
    command = shlex.split(done.out.splitlines()[-1])
    assert command[:2] == ["dpfc", "fit"]
    options = dict(zip(command[2:-4:2], command[3:-4:2], strict=True))
    assert options == {
        "--ledger": str(path),
        "--dataset": "ward 7",
        "--epsilon": "…",
        "--delta": "1e-06",
        "--neighboring-relation": "replace_one",
    }
    budget = PrivacyLedger(path).budget("ward 7")
    assert (budget.epsilon, budget.delta, budget.filter.kind) == (3.0, 1e-6, "renyi")
    assert (budget.neighboring_relation, budget.unit_of_privacy) == ("replace_one", "one patient")


def test_create_as_json(dpfc, tmp_path, strict_json):
    path = tmp_path / "ledger.db"
    done = dpfc("budget", "create", path, "--dataset", "w", "--epsilon", 1, "--json")
    report = strict_json(done.out)
    budget = PrivacyLedger(path).budget("w")
    assert report == {
        "command": "budget create",
        "ledger": str(path),
        "dataset": "w",
        "epsilon": 1.0,
        "delta": 1e-5,
        "neighboring_relation": "add_or_remove_one",
        "unit_of_privacy": "one row",
        "rows_per_unit": 1,
        "created_at": budget.created_at,
        "filter": {"kind": "gdp", "mu": budget.filter.mu},
    }


def test_show_lists_every_budget_or_one(dpfc, ledger_path, fit, strict_json):
    dpfc("budget", "create", ledger_path, "--dataset", "[b]x[/b] :bug:", "--epsilon", 0.5)
    assert fit("--epsilon", 1).code == 0
    done = dpfc("budget", "show", ledger_path)
    assert (done.code, done.err) == (0, "")
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    share = PrivacyLedger(ledger_path).remaining("ward 7").spent_share
    assert rows[1] == f"ward 7 3 1e-05 one patient, add or remove one gdp {share:.1%}"
    assert rows[2] == "[b]x[/b] :bug: 0.5 1e-05 one row, add or remove one gdp 0.0%"
    assert NOTE in done.out
    everything = strict_json(dpfc("budget", "show", ledger_path, "--json").out)
    assert [budget["dataset"] for budget in everything["budgets"]] == ["ward 7", "[b]x[/b] :bug:"]
    one = strict_json(dpfc("budget", "show", ledger_path, "--dataset", "ward 7", "--json").out)
    assert one["budgets"] == everything["budgets"][:1]
    assert one["budgets"][0]["spent_share"] == share
    assert one["note"].endswith(NOTE)


def test_history_lists_every_spend_with_its_statement(dpfc, ledger_path, fit, strict_json):
    history = ["budget", "history", ledger_path, "--dataset", "ward 7"]
    assert dpfc(*history).out == "Nothing is spent from the budget of ward 7.\n"
    fitted = strict_json(fit("--epsilon", 1, "--json").out)
    done = dpfc(*history)
    assert (done.code, done.err) == (0, "")
    (spend,) = PrivacyLedger(ledger_path).history("ward 7")
    when = spend.made_at.removesuffix("+00:00")
    assert spend.model.name == "model.safetensors"
    row = (
        f"1 {when} fit DPLeastSquaresClassifier kept, model.safetensors {spend.share_of_budget:.2%}"
    )
    assert done.out.splitlines()[1].split() == row.split()
    assert NOTE in done.out
    report = strict_json(dpfc(*history, "--json").out)
    assert report["dataset"] == "ward 7"
    (listed,) = report["spends"]
    assert listed["statement"] == fitted["privacy"]
    assert listed["event"]["type"] == "ComposedDpEvent"
    assert listed["share_of_budget"] == spend.share_of_budget


def test_a_long_purpose_is_not_cut_and_a_run_that_died_has_no_statement(dpfc, ledger_path):
    event = PrivacyPlan(
        1.0, 1e-5, "add_or_remove_one", (PlannedRelease("count", 40.0, 1, 1.0, 1.0),)
    ).event
    purpose = "count of " + "x" * 190
    PrivacyLedger(ledger_path).spend(
        "ward 7", event, neighboring_relation="add_or_remove_one", purpose=purpose
    )
    lines = dpfc("budget", "history", ledger_path, "--dataset", "ward 7").out.splitlines()
    assert purpose in lines[1] and lines[1].split()[-2] == "none"


def test_what_remaining_prints_is_accepted_and_then_the_budget_is_exhausted(
    dpfc, ledger_path, fit, strict_json
):
    remaining = ["budget", "remaining", ledger_path, "--dataset", "ward 7"]
    assert fit("--epsilon", 1).code == 0
    done = dpfc(*remaining)
    assert (done.code, done.err) == (0, "")
    command = shlex.split(done.out.splitlines()[2])
    epsilon = command[command.index("--epsilon") + 1]
    exact = strict_json(dpfc(*remaining, "--json").out)["remaining"]["epsilon"]
    assert exact * (1 - 1e-5) < float(epsilon) <= exact < 3
    # A little more is refused, and the budget is as before.
    refused = fit("--epsilon", exact * (1 + 1e-6))
    assert refused.code == 1
    assert f"may have at most ε = {epsilon}. Nothing was spent." in refused.err
    assert fit("--epsilon", exact).code == 0
    after = dpfc(*remaining)
    assert after.code == 0 or "exhausted" in after.err
    report = dpfc(*remaining, "--json")
    assert strict_json(report.out)["remaining"]["epsilon"] < 1e-4
    assert report.code == after.code
    assert len(PrivacyLedger(ledger_path).history("ward 7")) == 2


def test_an_exhausted_budget_exits_with_1(dpfc, ledger_path, fit, strict_json):
    assert fit("--epsilon", 3).code == 0
    remaining = ["budget", "remaining", ledger_path, "--dataset", "ward 7"]
    done = dpfc(*remaining)
    assert (done.code, done.out) == (1, "")
    assert "the budget of ward 7 is exhausted: ε = 3 at δ = 1e-05, 100.0% spent." in done.err
    done = dpfc(*remaining, "--json")
    assert done.code == 1 and strict_json(done.out)["remaining"]["epsilon"] == 0
    refused = fit("--epsilon", 0.01)
    assert refused.code == 1 and "does not fit into the budget of 'ward 7'" in refused.err


def test_a_fit_that_is_refused_leaves_no_model(fit, tmp_path):
    assert fit("--epsilon", 9).code == 1
    assert not (tmp_path / "model.safetensors").exists()


CREATE = "budget create {new} --dataset w "
# Command line, words of its message, exit code.
BAD = [
    (CREATE + "--epsilon 0", "epsilon must be a float in (0, inf), got 0.0", 1),
    (CREATE + "--epsilon inf", "epsilon must be a float in (0, inf), got inf", 1),
    (CREATE + "--epsilon nan", "epsilon must be", 1),
    (CREATE + "--epsilon one", "Input should be a valid number", 2),
    (CREATE, "Missing option '--epsilon'", 2),
    ("budget create {new} --epsilon 1", "Missing option '--dataset'", 2),
    (CREATE + "--epsilon 1 --delta 0", "delta must be", 1),
    (CREATE + "--epsilon 1 --filter pld", "'pld' is not one of 'gdp', 'renyi'", 2),
    (CREATE + "--epsilon 1 --neighboring-relation x", "'x' is not one of", 2),
    ("budget create {new} --epsilon 1 --dataset {empty}", "dataset must be a text", 1),
    ("budget create {folder} --epsilon 1 --dataset w", "is a folder: name a file in it", 1),
    ("budget create {ledger} --epsilon 9 --dataset WARD_7x", "has a budget for 'ward_7X'", 1),
    ("budget show {new}", "does not exist; make it with: dpfc budget create", 1),
    ("budget show {text}", "is not a ledger: it is no SQLite file", 1),
    ("budget show {ledger} --dataset ward", "no budget for 'ward'. Did you mean 'ward 7'", 1),
    ("budget show", "Missing argument 'LEDGER'", 2),
    ("budget history {ledger} --dataset none", "has no budget for 'none'", 1),
    ("budget history {ledger}", "Missing option '--dataset'", 2),
    ("budget remaining {new} --dataset w", "does not exist", 1),
    ("budget remaining {ledger} --dataset w --json", "has no budget for 'w'", 1),
    ("budget spend", "No such command 'spend'", 2),
]


@pytest.mark.parametrize(("line", "words", "code"), BAD)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    dpfc, ledger_path, tmp_path, line, words, code
):
    PrivacyLedger(ledger_path).create_budget("ward_7X", epsilon=1, delta=1e-5)
    text = tmp_path / "text.txt"
    text.write_text("no ledger" * 200)
    before = ledger_path.read_bytes()
    paths = {"new": tmp_path / "new.db", "ledger": ledger_path, "text": text, "folder": tmp_path}
    done = dpfc(*[part.format(**paths, empty="") for part in line.split()])
    assert done.code == code
    assert words in plain(done.err)
    assert done.out == ""
    if code == 1:
        assert done.err.count("\n") == 1
    assert ledger_path.read_bytes() == before and not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("create", "Fix the budget of a data set, before its first release."),
        ("show", "Show the budgets of a ledger"),
        ("history", "A spend is written before its release is made."),
        ("remaining", "Exit code 1 says that the budget is exhausted."),
    ],
)
def test_help_says_what_a_command_does_with_an_example(dpfc, command, words):
    done = dpfc("budget", command, "--help")
    assert done.code == 0
    assert words in plain(done.out)
    assert f"Example: dpfc budget {command} ledger.db" in plain(done.out)


def test_what_the_documentation_shows_runs_in_order(dpfc, write_cache, tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text(encoding="utf-8")
    write_cache(tmp_path / "train")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, flags=re.DOTALL)
    assert [language for language, _ in blocks] == ["sh", "python", "python"]
    for line in blocks[0][1].splitlines():
        done = dpfc(*shlex.split(line)[1:])
        assert (done.code, done.err) == (0, ""), line
    for _, code in blocks[1:]:
        exec(code, {})
    purposes = [spend.purpose for spend in PrivacyLedger("backup.db").history("ward-7")]
    assert purposes == ["fit DPFCClassifier", "count of stays"]


def test_who_what_for_and_the_model_file_are_kept(dpfc, fit, ledger_path, tmp_path, strict_json):
    done = fit("--epsilon", 1, "--purpose", "readmission study", "--by", "team A")
    assert (done.code, done.err) == (0, "")
    (spend,) = PrivacyLedger(ledger_path).history("ward 7")
    assert (spend.stated_purpose, spend.made_by) == ("readmission study", "team A")
    content = (tmp_path / "model.safetensors").read_bytes()
    assert spend.model.sha256 == hashlib.sha256(content).hexdigest()
    history = ["budget", "history", ledger_path, "--dataset", "ward 7"]
    assert "fit DPLeastSquaresClassifier: readmission study team A kept" in plain(
        dpfc(*history).out
    )
    (listed,) = strict_json(dpfc(*history, "--json").out)["spends"]
    assert (listed["stated_purpose"], listed["made_by"]) == ("readmission study", "team A")
    assert listed["model"] == {"name": "model.safetensors", "sha256": spend.model.sha256}
    done = dpfc("fit", "--features", tmp_path, "--epsilon", 1, "--out", "x", "--by", "team A")
    assert done.code == 1


def test_a_seeded_fit_is_refused_and_once_allowed_it_is_said_everywhere(
    dpfc, fit, ledger_path, strict_json
):
    done = fit("--epsilon", 1, "--seed", 0)
    assert done.code == 1 and "--allow-not-private" in plain(done.err)
    assert "allow_not_private" not in done.err
    assert PrivacyLedger(ledger_path).history("ward 7") == []
    assert fit("--epsilon", 1, "--seed", 0, "--allow-not-private").code == 0
    reason = "spend 1 (fit DPLeastSquaresClassifier): random_state was given: anyone who knows"
    of_ward = ("--dataset", "ward 7")
    later = [(command, ledger_path, *of_ward) for command in ("history", "remaining")]
    for words in (("show", ledger_path), *later):
        out = plain(dpfc("budget", *words).out)
        assert "NOT PRIVATE: the claim of ward 7 does not hold." in out and reason in out
        report = strict_json(dpfc("budget", *words, "--json").out)
        found = report["budgets"][0] if words[0] == "show" else report.get("remaining", report)
        assert found["private"] is False and found["reasons_not_private"][0].startswith(reason)
    page = plain(dpfc("report", "privacy", ledger_path).out)
    assert page.startswith("NOT PRIVATE") and reason in page


def test_the_same_cache_under_another_name_is_asked_about(dpfc, fit, ledger_path):
    assert fit("--epsilon", 1).code == 0
    done = dpfc("budget", "create", ledger_path, "--dataset", "wadr 7", "--epsilon", 3)
    assert done.code == 1 and "has a budget for 'ward 7': did you mean that" in plain(done.err)
    assert plain(done.err).strip().endswith("For other rows, say --another-budget.")
    options = ("--dataset", "clinic", "--epsilon", 3)
    assert dpfc("budget", "create", ledger_path, *options).code == 0
    done = fit("--epsilon", 1, "--dataset", "clinic")
    assert done.code == 1
    assert "did you mean --dataset 'ward 7', instead of 'clinic'?" in plain(done.err)
    assert "--another-budget" in plain(done.err)
    assert PrivacyLedger(ledger_path).history("clinic") == []
    assert fit("--epsilon", 1, "--dataset", "clinic", "--another-budget").code == 0


def test_the_default_filter_says_what_it_cannot_pay_for_and_the_command_that_can(
    dpfc, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = dpfc("budget", "create", "a.db", "--dataset", "it's", "--epsilon", 3, "--unit", "one x")
    assert "cannot pay for training on samples" in plain(done.out)
    (command,) = [line for line in done.out.splitlines() if "--filter renyi" in line]
    assert dpfc(*shlex.split(command)[1:]).code == 0
    budget = PrivacyLedger("a-renyi.db").budget("it's")
    assert (budget.filter.kind, budget.epsilon, budget.unit_of_privacy) == ("renyi", 3.0, "one x")
    assert budget.rows_per_unit is None


def test_a_budget_of_patients_refuses_a_fit_of_rows_before_it_spends(
    dpfc, cache_path, tmp_path, strict_json
):
    path = tmp_path / "l.db"
    create = ("budget", "create", path, "--dataset", "w", "--epsilon", 3, "--unit", "one patient")
    done = dpfc(*create)
    assert "one patient, many rows" in done.out and "Only fits with groups may spend" in done.out
    fit = ("fit", "--features", cache_path, "--epsilon", 1, "--method", "ls", "--out")
    refused = dpfc(*fit, tmp_path / "m.safetensors", "--ledger", path, "--dataset", "w")
    assert refused.code == 1 and "who may have many rows" in plain(refused.err)
    assert PrivacyLedger(path).history("w") == []
    assert "one patient, many rows, add or remove one" in plain(dpfc("budget", "show", path).out)
    remaining = ("budget", "remaining", path, "--dataset", "w")
    assert "One more full-batch fit with groups may have ε = 3" in dpfc(*remaining).out
    assert strict_json(dpfc(*remaining, "--json").out)["rows_per_unit"] == "many"


def test_a_fit_of_rows_is_charged_as_the_rows_that_a_unit_has(dpfc, cache_path, tmp_path):
    path, model = tmp_path / "l.db", tmp_path / "m.safetensors"
    create = ("budget", "create", path, "--dataset", "w", "--epsilon", 3, "--unit", "one patient")
    done = dpfc(*create, "--rows-per-unit", 5)
    assert done.code == 0 and "A fit without groups is charged as 5 rows" in done.out
    out = dpfc("budget", "remaining", path, "--dataset", "w").out
    (line,) = [line for line in out.splitlines() if "without groups" in line]
    epsilon = line.rsplit("= ", 1)[1].rstrip(".")
    assert line.startswith("One without groups, charged as 5 rows, may have ε = ")
    fit = ("fit", "--features", cache_path, "--method", "ls", "--out", model, "--ledger", path)
    assert dpfc(*fit, "--epsilon", 1, "--dataset", "w").code == 1
    assert dpfc(*fit, "--epsilon", epsilon, "--dataset", "w").code == 0
    (spend,) = PrivacyLedger(path).history("w")
    assert spend.share_of_budget == pytest.approx(1, abs=1e-4)
    assert spend.statement.unit_of_privacy == "one row"
    assert "one patient, up to 5 rows" in plain(dpfc("budget", "show", path).out)


@pytest.mark.parametrize("rows", ["0", "-1", "1.5", "few"])
def test_what_is_no_number_of_rows_is_refused(dpfc, tmp_path, rows):
    create = ("budget", "create", tmp_path / "l.db", "--dataset", "w", "--epsilon", 3)
    done = dpfc(*create, "--unit", "one patient", "--rows-per-unit", rows)
    assert done.code != 0 and "--rows-per-unit must be" in plain(done.err)
    assert not (tmp_path / "l.db").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train --steps 2", "--sampling-probability 1"),
        ("search --try logit_noise=0.4,0.7 --strategy random_stopping", "--strategy composition"),
    ],
)
def test_a_spend_that_the_default_filter_cannot_take_is_told_both_ways_out(
    dpfc, cache_path, ledger_path, tmp_path, command, option
):
    name, *further = command.split()
    words = [name, "--features", cache_path, "--epsilon", 1, *further, "--out", tmp_path / "model"]
    paying = ["--ledger", ledger_path, "--dataset", "ward 7"]
    refused = dpfc(*words, *paying)
    error = plain(refused.err)
    assert refused.code == 1 and option in error and "dpfc budget create … --filter renyi" in error
    assert PrivacyLedger(ledger_path).history("ward 7") == []
    options = ("--dataset", "ward 7", "--epsilon", 3, "--filter", "renyi")
    assert dpfc("budget", "create", tmp_path / "renyi.db", *options).code == 0
    assert dpfc(*words, "--ledger", tmp_path / "renyi.db", *paying[2:]).code == 0
    changed = [*words, *option.split(), *paying, "--force"]
    assert dpfc(*changed).code == 0


def test_a_head_that_the_owner_kept_is_compared(dpfc, fit, ledger_path):
    kept = dpfc("budget", "head", ledger_path).out.strip()
    assert re.fullmatch("[0-9a-f]{64}", kept)
    assert fit("--epsilon", 1).code == 0
    done = dpfc("budget", "verify", ledger_path, "--head", kept)
    assert (done.code, done.err) == (0, "")
    assert "as it was written: 1 budget, 1 spend." in plain(done.out)
    assert "Records added since the head that you gave: 4." in plain(done.out)
    done = dpfc("budget", "verify", ledger_path, "--head", "0" * 64)
    assert done.code == 1 and "never had the head" in plain(done.err)


def test_without_a_command_the_group_shows_its_help(dpfc):
    done = dpfc("budget")
    assert done.code == 0
    for command in ("create", "show", "history", "remaining", "calibrate"):
        assert command in done.out


def test_no_output_overwrites_a_ledger_not_even_by_force(dpfc, cache_path, ledger_path):
    before = ledger_path.read_bytes()
    done = dpfc(
        *("fit", "--features", cache_path, "--epsilon", 1, "--method", "ls"),
        *("--out", ledger_path, "--force"),
    )
    assert done.code == 1
    assert "is a ledger or another database: choose another name" in plain(done.err)
    assert ledger_path.read_bytes() == before
