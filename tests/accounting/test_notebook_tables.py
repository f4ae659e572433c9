"""What a notebook shows: short tables, escaped, and no methods of the library below."""

import copy
import inspect
import json
import pickle
import pydoc

import numpy as np
import pytest
from pydantic import BaseModel

from dpfc._support.notebook_tables import fields_table, shown
from dpfc.accounting import PrivacyLedger, make_ledger_statement
from dpfc.accounting.statements.statement import (
    BudgetRecord,
    PrivacyStatement,
    ReleaseRecord,
    SpendRecord,
)

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def spent(tmp_path, spend, statement_of):
    """A ledger whose texts are all markup."""
    ledger = PrivacyLedger(tmp_path / "l.db", purpose=f"for {EVIL}", made_by=EVIL)
    ledger.create_budget(EVIL, epsilon=1.0, delta=1e-5, unit_of_privacy="one <b>", rows_per_unit=1)
    record = spend(ledger, dataset=EVIL, purpose=f"fit {EVIL}")
    ledger.attach_statement(record.id, statement_of(record.event))
    ledger.attach_model(record.id, "<i>.safetensors", "ab" * 32)
    return ledger


def test_statements_budgets_and_spends_are_short_tables_with_texts_escaped(spent):
    statement = make_ledger_statement(spent, EVIL)
    (spend,) = spent.history(EVIL)
    things = (statement, spent.budget(EVIL), spend, spent.remaining(EVIL), spent.verify())
    for thing in (*things, spend.model, spend.statement, spend.statement.releases[0]):
        html = thing._repr_html_()
        assert html.startswith("<table>") and html.endswith("</table>") and len(html) < 4000
        assert "<script" not in html and "<b>" not in html and "<i>" not in html
    assert "(ε = 1, δ = 1e-05)-DP" in statement._repr_html_()
    assert "&lt;script&gt;" in spend._repr_html_()
    assert repr(statement) == "<PrivacyStatement: (ε = 1, δ = 1e-05)-DP, add or remove one <b>>"


def test_a_statement_shows_its_own_names_and_none_of_the_library_below(statement_of, spent):
    statement = make_ledger_statement(spent, EVIL)
    for record in (statement, statement.budget, statement.budget.spends[0], statement.attack):
        names = {name for name in dir(record) if not name.startswith("_")}
        assert not names & set(dir(BaseModel))
        assert set(type(record).model_fields) <= names
    public = ("to_json", "from_json", "to_text", "to_html", "verify", "profile", "private")
    assert set(public) <= set(dir(statement))


def test_a_class_of_statements_shows_none_of_the_library_below_in_help_and_its_signature():
    for kind in (PrivacyStatement, BudgetRecord, SpendRecord, ReleaseRecord):
        assert not {name for name in dir(kind) if "pydantic" in name or name.startswith("model_")}
        assert list(inspect.signature(kind).parameters) == list(kind.model_fields)
        shown_lines = pydoc.render_doc(kind, renderer=pydoc.plaintext).splitlines()
        # The base class is named where classes are listed, and in the errors of bad records.
        below = [line for line in shown_lines if "ydantic" in line or "model_" in line]
        assert {line.strip(" |") for line in below} <= {
            "pydantic.main.BaseModel",
            "pydantic.ValidationError",
        }


def test_a_statement_is_equal_after_copies_and_a_pickle(spent):
    statement = make_ledger_statement(spent, EVIL)
    for same in (
        pickle.loads(pickle.dumps(statement)),
        copy.copy(statement),
        copy.deepcopy(statement),
        PrivacyStatement.from_json(statement.to_json()),
    ):
        assert same == statement and repr(same) == repr(statement)
        assert vars(same).keys() == set(PrivacyStatement.model_fields)


def test_values_are_written_short():
    assert [shown(value) for value in (None, 0.1 + 0.2, True, (1.0, 2.5))] == [
        "–", "0.3", "True", "1, 2.5",
    ]  # fmt: skip
    assert shown(np.zeros((40, 3))) == "40 × 3 values"
    assert shown(np.array([1.0, 2.0])) == "1, 2"
    assert shown({"a": 1.5}) == "a: 1.5" and len(shown("x" * 999)) == 200
    assert "&lt;b&gt;" in fields_table("<b>", [("<b>", "<b>")])
    json.dumps(fields_table("a", [("b", {"c": None})]))


def test_the_page_of_a_ledger_has_contents_and_folds_its_spends(spent, spend):
    for _ in range(9):
        spend(spent, 60.0, dataset=EVIL)
    page = make_ledger_statement(spent, EVIL).to_html()
    assert page.count("<details>") == page.count("</details>") == page.count("<summary>") >= 10
    assert 'id="contents">Contents' in page
    targets = {part.split('"')[0] for part in page.split('href="#')[1:]}
    assert len(targets) > 10 and all(f'id="{target}"' in page for target in targets)
    assert EVIL not in page
    for said in ("for &lt;script&gt;", "by &lt;script&gt;", "&lt;i&gt;.safetensors", "ab" * 32):
        assert said in page
