"""A model card in Markdown, as Hugging Face's hub reads it, with the privacy statement inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from sklearn.utils.validation import check_is_fitted

from dpfc._version import __version__
from dpfc.accounting.statements.markdown import escape, escape_line, render_markdown
from dpfc.accounting.statements.wording import clean

if TYPE_CHECKING:
    from dpfc.accounting import PrivacyStatement

__all__ = ["model_card"]

_MOST_CLASSES = 50
_MOST_COLUMNS = 200


def model_card(model: Any, *, license: str | None = None) -> str:  # noqa: A002  # the field's name
    """Describe a fitted model for those who did not train it.

    Parameters
    ----------
    model : estimator
        Fitted, one of dpfc's classifiers or a search over one.
    license : str, optional
        The hub's name of the licence that the model is given away under; none is stated without
        it.

    Returns
    -------
    str
        YAML front matter, how to use the model, and its whole privacy statement, after a warning
        where it is not private. No accuracy: none is known without test rows.

    References
    ----------
    The format: https://huggingface.co/docs/hub/model-cards
    """
    check_is_fitted(model)
    statement: PrivacyStatement = model.privacy_
    fitted = getattr(model, "best_estimator_", model)
    name = type(fitted).__name__
    lines = ["---", _front_matter(fitted, statement, license), "---", ""]
    lines += [f"# {'' if statement.private else '⚠ NOT PRIVATE: '}{name}", ""]
    for reason in statement.reasons_not_private:
        lines += [f"> **⚠ NOT PRIVATE**: {escape(clean(reason))}", ""]
    lines += [f"**{escape(statement.short)}**", "", *_about(fitted), ""]
    rendered: str = render_markdown(statement, level=2)
    return "\n".join(lines) + "\n" + rendered


def _front_matter(model: Any, statement: PrivacyStatement, terms: str | None) -> str:
    tags = ["dpfc", "differential-privacy" if statement.private else "not-private"]
    facts: dict[str, Any] = {"library_name": "dpfc", "tags": [*tags, type(model).__name__]}
    if terms is not None:
        facts["license"] = terms
    facts["dpfc"] = {
        "version": __version__,
        "private": statement.private,
        # YAML's own infinity is not JSON's, which the hub makes of this.
        "epsilon": _plain(statement.target_epsilon),
        "delta": statement.target_delta,
        "neighboring_relation": statement.neighboring_relation,
        "unit_of_privacy": clean(statement.unit_of_privacy),
    }
    text: str = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=10**6)
    return text.rstrip("\n")


def _plain(number: float) -> float | str:
    return "inf" if number == float("inf") else number


def _about(model: Any) -> list[str]:
    """What goes in, what comes out, and how to load it."""
    origin = getattr(model, "features_from_", None)
    schema = None if origin is None else origin["preprocessing"].get("schema")
    rows = ["model.predict(X)"]
    if schema is not None:
        rows = [
            'encoder = dpfc.TableEncoder(model.features_from_["preprocessing"]["schema"])',
            "model.predict(encoder.transform(table))  # a data frame with these columns",
        ]
    lines = [
        "## Use",
        "",
        "```python",
        "import dpfc",
        "",
        'model = dpfc.load_model("model.safetensors")',
        *rows,
        "```",
        "",
        escape_line(f"Rows have {model.n_features_in_:,} numbers."),
        f"Classes: {_listed([str(name) for name in model.classes_.tolist()], _MOST_CLASSES)}.",
    ]
    if origin is None:
        return lines
    if schema is not None:
        columns = schema["columns"].items()
        kinds = [f"{name} ({column['type']})" for name, column in columns if "type" in column]
        made = f"Rows are made of a table's columns by a public schema: {schema['source']}."
        return [*lines, escape_line(clean(made)), f"Columns: {_listed(kinds, _MOST_COLUMNS)}."]
    spec, weights = clean(origin["spec"] or "a network in a file"), origin["weights_sha256"]
    return [*lines, f"Features: {escape(spec)}, weights with SHA-256 {escape(clean(weights))}."]


def _listed(names: list[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(escape(clean(name)) for name in names[:most]) + more
