"""What a statement says in words: in text, in Markdown, and before that."""

from __future__ import annotations

import html
import math
import re
from fractions import Fraction

import dp_accounting as dpa
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from statement_examples import (
    GAP,
    HOSTILE,
    STATEMENTS,
    hostile_statement,
    ledger_statement,
    planned,
    record,
    state,
)

from dpfc.accounting import PrivacyLedger, make_ledger_statement
from dpfc.accounting.statements.markdown import escape, escape_line
from dpfc.accounting.statements.wording import (
    clean,
    content,
    in_words,
    lower,
    moment,
    percent,
    upper,
)

NOT_PRIVATE = ("seeded", "without noise", "ledger")
FLOATS = st.floats(min_value=1e-300, max_value=1e300)


@pytest.fixture(scope="module")
def statements(tmp_path_factory):
    made = {name: make() for name, make in STATEMENTS.items()}
    folder = tmp_path_factory.mktemp("ledgers")
    made["ledger"] = ledger_statement(folder / "a.db")
    made["renyi ledger"] = ledger_statement(folder / "b.db", filter="renyi", seeded=False)
    return made


EVERY = [*STATEMENTS, "ledger", "renyi ledger"]


def words(said) -> list[str]:
    """Every fact of a statement's content, in order."""
    found = [*said.not_private, said.guarantee, *said.not_covered]
    found += [part for fact in said.facts for part in fact]
    for section in said.sections:
        found += [section.heading, *section.paragraphs]
        for table in section.tables:
            found += [table.caption, *table.columns, *(cell for row in table.rows for cell in row)]
        found += section.items
    return found


def markdown_tokens(text: str):
    return MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(text)


def shown(text: str) -> str:
    """What a reader sees of Markdown, without its structure."""
    leaves = [child for token in markdown_tokens(text) for child in token.children or []]
    assert {leaf.type for leaf in leaves} <= {"text", "strong_open", "strong_close", "text_special"}
    return "".join(leaf.content for leaf in leaves)


# -- numbers, times and users' texts -------------------------------------------------


@given(FLOATS, st.integers(1, 9))
def test_upper_and_lower_round_outwards_and_by_less_than_a_digit(value, digits):
    above, below = upper(value, digits), lower(value, digits)
    exact = Fraction(repr(value))
    step = exact * Fraction(10) ** (1 - digits)
    assert exact <= Fraction(above) < exact + step
    assert exact - step < Fraction(below) <= exact


def test_numbers_that_need_no_rounding_stay():
    for text in ("0.1", "0.3", "1", "1e-05", "8", "0.07", "0"):
        assert upper(float(text)) == lower(float(text)) == text
    assert upper(1.0000001) == "1.00001" and lower(0.9999999) == "0.999999"
    assert upper(math.inf) == lower(math.inf) == "∞"


def test_percentages_are_rounded_up_from_the_number_itself():
    assert [percent(p) for p in (0.07, 0.07001, 0.001, 0.5, 1.0, 0.0)] == [
        "7%",
        "7.01%",
        "0.1%",
        "50%",
        "100%",
        "0%",
    ]
    assert percent(0.99999) == "100%"


@given(st.text())
def test_a_clean_text_is_one_line_without_characters_that_are_not_seen(text):
    cleaned = clean(text)
    assert len(cleaned.splitlines()) <= 1
    assert cleaned.isprintable()
    assert clean(cleaned) == cleaned


def test_what_is_hidden_in_a_text_becomes_visible():
    assert clean("a\u202eb\u200bc\x07") == "a\\u202eb\\u200bc\\u0007"
    assert clean(" a \r\n\t b\u2028c ") == "a b c"
    assert clean("Übung 患者 ε") == "Übung 患者 ε"


def test_times_are_written_in_utc():
    assert moment("2026-11-24T12:30:00+02:00") == "2026-11-24 10:30:00"
    for other in ("yesterday", "2026-11-24T12:30:00", "0001-01-01T00:00:00+23:00", ""):
        assert moment(other) == other


def test_events_are_named_as_an_analyst_would():
    gaussian = dpa.GaussianDpEvent(2.0)
    sampled = dpa.PoissonSampledDpEvent(0.1, gaussian)
    assert in_words(dpa.SelfComposedDpEvent(sampled, 20)) == (
        "20 times (a Gaussian release with noise multiplier 2 on a Poisson sample of rate 0.1)"
    )
    assert in_words(RepeatAndSelectDpEvent(gaussian, 10.0, math.inf)) == (
        "the best of 10 runs on average (Poisson), each: a Gaussian release with noise multiplier 2"
    )
    assert "negative binomial of shape 0.5" in in_words(RepeatAndSelectDpEvent(gaussian, 3, 0.5))
    assert in_words(dpa.ComposedDpEvent([])) == "nothing"
    both = dpa.ComposedDpEvent([dpa.NonPrivateDpEvent(), dpa.NoOpDpEvent()])
    assert in_words(both) == "a release without noise; nothing"


# -- what is said --------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_not_private_is_said_before_everything_else_and_gaps_come_next(statements, name):
    statement = statements[name]
    text, markdown = statement.to_text(), statement.to_markdown()
    said = content(statement)
    if name in NOT_PRIVATE:
        assert text.startswith("NOT PRIVATE: ")
        assert markdown.startswith("# ⚠ NOT PRIVATE: ")
    else:
        assert "NOT PRIVATE" not in text + markdown
        assert text.startswith(said.guarantee + "\n")
    gaps = [line for line in text.splitlines()[1:] if line.startswith("NOT COVERED")]
    assert gaps == list(said.not_covered) == text.splitlines()[1 : 1 + len(gaps)]
    for sentence in said.not_covered:
        assert shown(markdown).index(sentence) < shown(markdown).index("What is hidden")


@pytest.mark.parametrize("name", EVERY)
def test_text_and_markdown_say_everything_that_there_is_to_say(statements, name):
    statement = statements[name]
    said = content(statement)
    text = " ".join(statement.to_text().split())
    markdown = shown(statement.to_markdown())
    for fact in words(said):
        assert fact in text
        assert fact in markdown


def test_the_guarantee_names_the_relation_and_the_unit(statements):
    first = {name: s.to_text().splitlines()[0] for name, s in statements.items()}
    assert first["full batch"] == "(ε = 1, δ = 1e-05)-DP, add or remove one patient"
    assert first["sampled, replaced"] == "(ε = 1, δ = 1e-05)-DP, replace one row"
    assert first["without noise"].endswith("Target: (ε = ∞, δ = 0)-DP, add or remove one row")
    hidden = {name: dict(content(s).facts)["What is hidden"] for name, s in statements.items()}
    assert hidden["full batch"] == "whether one patient is in the data"
    assert hidden["sampled, replaced"] == "which of two possible contents one row has"


def test_a_guarantee_is_not_rounded_down(statements):
    told = statements["full batch"].model_copy(update={"target_epsilon": 1.2345678})
    assert content(told).guarantee.startswith("(ε = 1.23457,")
    told = told.model_copy(update={"target_epsilon": 1.2345612})
    assert content(told).guarantee.startswith("(ε = 1.23457,")


def section(statement, heading):
    (found,) = [s for s in content(statement).sections if s.heading == heading]
    return found


def test_attack_figures_stand_beside_blind_guessing(statements):
    found = section(statements["full batch"], "What this means for an attacker")
    assert found.tables[0].rows == (
        ("0.1%", "0.239%", "0.1%"),
        ("1%", "1.98%", "1%"),
        ("10%", "15.6%", "10%"),
    )
    assert "The advantage is at most 0.107:" in found.paragraphs[2]
    assert "more than 55.4% probability" in found.paragraphs[2]
    assert "wants to find out whether one patient is in the data" in found.paragraphs[0]
    seeded = section(statements["seeded"], "What this means for an attacker")
    assert "NOT PRIVATE" in seeded.paragraphs[1]


def test_one_run_says_that_others_add_to_it_and_a_budget_does_not(statements):
    for name in ("full batch", "search"):
        (*_, alone) = section(statements[name], "What the releases add up to").paragraphs
        assert alone.endswith("Whatever else is released from the same data adds to it.")
    fit = section(statements["full batch"], "What this means for an attacker")
    assert "sees everything that this fit released" in fit.paragraphs[0]
    (*_, alone) = section(statements["evaluation"], "What the releases add up to").paragraphs
    assert alone.startswith("This evaluation alone is counted here.")
    assert alone.endswith("the statement of the ledger that keeps stays-test counts all of it.")
    assert "alone is counted" not in statements["ledger"].to_text()
    ledger = section(statements["ledger"], "What this means for an attacker")
    assert "all that is ever released from the data set" in ledger.paragraphs[0]


def test_without_noise_an_attacker_may_be_right_every_time(statements):
    found = section(statements["without noise"], "What this means for an attacker")
    assert found.paragraphs[1].startswith("This statement is NOT PRIVATE: nothing limits")
    assert "every time" in found.paragraphs[1]


def test_every_accountant_has_a_row_and_one_is_used(statements):
    found = section(statements["sampled, replaced"], "What the releases add up to")
    rows = dict(found.tables[0].rows)
    assert list(rows) == ["exact", "pld", "rdp"]
    assert rows["pld"].endswith("(used for the guarantee)")
    assert rows["exact"].startswith("unavailable: ") and rows["rdp"].startswith("unavailable: ")


def test_releases_are_listed_with_sensitivity_noise_and_share(statements):
    found = section(statements["sampled"], "Releases")
    gram, gradient = found.tables[0].rows
    z = [release.noise_multiplier for release in statements["sampled"].releases]
    assert gram == ("gram", "10×3", "0.5", lower(z[0]), "1", "full batch", "50%")
    assert gradient == ("gradient", "10×3", "0.5", lower(z[1]), "20", "Poisson 0.1", "50%")
    whole = "; sum and noise are whole multiples of 0.25"
    assert found.items[0].endswith("for a sensitivity of 0.5 + 1e-06 for rounding" + whole)
    unrounded = record("gram", 100.0, 1, numerical_slack=0.0, noise_standard_deviation=50.0)
    found_unrounded = section(state(planned(), [unrounded]), "Releases")
    assert found_unrounded.items[0].endswith("deviation 50 for a sensitivity of 0.5" + whole)
    unshared = section(statements["no record of a share"], "Releases")
    assert unshared.tables[0].rows[0][-1] == "-"
    assert "none has a share of its own" in unshared.tables[0].caption
    assert "shares of what these releases spend" in found.tables[0].caption


def test_a_search_says_that_what_lost_is_charged_as_well(statements):
    added = section(statements["search"], "What the releases add up to")
    assert added.paragraphs[0].startswith("Charged: the best of 10 runs on average")
    assert "settings that lost are inside" in added.paragraphs[1]
    assert section(statements["search"], "What was published").tables[0].rows[0][0] == "gram"
    assert "lost" not in statements["full batch"].to_text()


@pytest.mark.parametrize("name", EVERY)
def test_the_origin_of_randomness_and_versions_are_named(statements, name):
    text = statements[name].to_text()
    assert "Random source: operating system" in text
    assert "dp-accounting 0." in text and "Statement schema: 2" in text


def test_a_ledger_is_its_budget_and_says_what_each_spend_was(statements):
    statement = statements["ledger"]
    budget = section(statement, "The budget")
    assert budget.paragraphs[0].startswith(
        "Everything that is ever released from this data set is "
        "(ε = 3, δ = 1e-06)-DP, add or remove one patient"
    )
    assert "Smith and Thakurta 2022" in budget.paragraphs[1]
    assert lower(statement.budget.remaining_epsilon) in budget.paragraphs[2]
    rows = section(statement, "Spends").tables[0].rows
    assert [(row[0], row[4]) for row in rows] == [
        ("1", "recorded"),
        ("2", "not recorded"),
        ("3", "recorded"),
    ]
    finished, unfinished, seeded = (
        section(statement, f"Spend {i}: fit DPFCClassifier") for i in (1, 2, 3)
    )
    assert [row[0] for row in finished.tables[0].rows] == ["gram", "gradient"]
    assert "On its own it would be (ε = 1, δ = 1e-06)-DP" in finished.paragraphs[0]
    assert unfinished.paragraphs[0].startswith("Not recorded: ")
    assert unfinished.paragraphs[1].startswith("Charged: a Gaussian release")
    assert seeded.paragraphs[0].startswith("NOT PRIVATE: random_state was given")
    assert GAP in section(statement, "Spend 3 rests on").items
    spent = section(statement, "Spent so far")
    assert spent.paragraphs[0].startswith("Bookkeeping, not a claim")
    assert "used for the guarantee" not in statement.to_text()
    assert "Feldman and Zrnic 2021" in statements["renyi ledger"].to_text()


def test_a_missing_number_of_a_spend_is_explained(tmp_path, statements):
    assert section(statements["ledger"], "Spends").paragraphs == ()
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    for name in ("stays", "others"):
        ledger.create_budget(name, epsilon=3, delta=1e-6)
    for name in ("stays", "others", "stays"):
        ledger.spend(
            name,
            dpa.GaussianDpEvent(20.0),
            neighboring_relation="add_or_remove_one",
            purpose="count",
        )
    found = section(make_ledger_statement(ledger, "stays"), "Spends")
    assert [row[0] for row in found.tables[0].rows] == ["1", "3"]
    assert "has to be in the statement of another data set of that file" in found.paragraphs[0]


# -- typesetting ---------------------------------------------------------------------


def test_the_columns_of_a_text_table_line_up(statements):
    wide = statements["full batch"].releases[0].model_copy(update={"name": "患者e\u0301"})
    lines = (
        statements["full batch"]
        .model_copy(update={"releases": [wide, *statements["full batch"].releases[1:]]})
        .to_text()
        .splitlines()
    )
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["release", "shape"])
    header, first, second = lines[start : start + 3]
    column = header.index("shape")
    assert second.index("10×3") == column
    # Two letters of two columns each, and an accent of none, take one position less a letter.
    assert first.index("10×3") == column - 2 + 1


def test_text_is_wrapped_but_for_its_first_lines_and_tables(statements):
    text = statements["ledger"].to_text()
    paragraphs = [line for line in text.splitlines() if line.startswith(("  ", "  - "))]
    tables = [line for line in paragraphs if line.startswith("    ")]
    assert all(len(line) <= 92 for line in paragraphs if line not in tables)
    assert text.splitlines()[0].endswith("add or remove one patient")


def test_markdown_has_the_structure_of_the_statement(statements):
    statement = statements["ledger"]
    said = content(statement)
    tokens = markdown_tokens(statement.to_markdown())
    headings = [tokens[i + 1] for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert [shown(t.content) for t in headings[1:]] == [s.heading for s in said.sections]
    tables = [table for s in said.sections for table in s.tables]
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == len(tables)
    assert kinds.count("th_open") == sum(len(table.columns) for table in tables)
    assert kinds.count("td_open") == sum(len(t.columns) * len(t.rows) for t in tables)
    items = len(said.facts) + sum(len(s.items) for s in said.sections)
    assert kinds.count("list_item_open") == items
    assert kinds.count("blockquote_open") == 1 + len(said.not_covered)
    assert not {"html_block", "code_block", "fence", "hr", "ordered_list_open"} & set(kinds)


# -- hostile texts -------------------------------------------------------------------


def test_hostile_texts_are_shown_and_not_obeyed_in_text():
    statement = hostile_statement()
    lines = statement.to_text().splitlines()
    assert all(line.isprintable() for line in lines)
    harmless = content(statement.model_copy(update={"estimator": "x"}))
    assert len(lines) >= len(harmless.sections)
    for text in HOSTILE:
        assert f"NOT COVERED: {clean(text)}" in lines
    # No text of a user begins a line of its own that could pass for one of ours.
    headings = {s.heading for s in content(statement).sections}
    assert {line for line in lines if line and line[0] != " "} - headings <= {
        content(statement).guarantee,
        *content(statement).not_covered,
        *(f"{name}: {value}" for name, value in content(statement).facts),
    }


def test_hostile_texts_are_shown_and_not_obeyed_in_markdown():
    statement = hostile_statement()
    markdown = statement.to_markdown()
    tokens = markdown_tokens(markdown)
    kinds = [token.type for token in tokens]
    assert not {"html_block", "code_block", "fence", "hr", "ordered_list_open"} & set(kinds)
    said = content(statement)
    cells = sum(len(t.columns) * (len(t.rows)) for s in said.sections for t in s.tables)
    assert kinds.count("td_open") == cells
    assert kinds.count("heading_open") == 1 + len(said.sections)
    seen = shown(markdown)
    for fact in words(said):
        assert fact in seen


@given(
    st.text(st.characters(codec="utf-8") | st.sampled_from(r"\`*_[]()<>|#-+.!&:~$@1w"), max_size=30)
)
def test_any_text_is_shown_as_it_is_by_markdown(text):
    line = clean(text)
    if not line:
        return
    assert shown(escape_line(line) + "\n") == line
    assert shown(f"| a |\n| --- |\n| {escape(line)} |\n") == f"a{line}"
    assert html.unescape(shown(f"# {escape(line)}\n")) == html.unescape(line)


@pytest.mark.parametrize(
    "text",
    ["http://evil.test", "HTTPS://evil.test", "www.evil.test", "WWW.evil.test", "a@evil.test"],
)
def test_bare_addresses_hold_nothing_that_github_makes_links_of(text):
    written = escape(text)
    assert not re.search(r"[a-z]://|www\.|[a-z]@", written, flags=re.IGNORECASE)
    assert shown(written) == text
