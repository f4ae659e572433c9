"""What commands that spend from a ledger share: whose budget, and what is kept with the spend."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc._support.files import error_words, sha256_of_file

if TYPE_CHECKING:
    from dpfc.accounting import PrivacyLedger, PrivacyStatement
    from dpfc.features import FeatureCache

__all__ = ["Said", "open_ledger", "record_model", "spends"]


def _option(name: str, help: str, metavar: str | None = None) -> Any:  # noqa: A002
    return typer.Option(f"--{name}", metavar=metavar, help=help)


@dataclass(frozen=True)
class Said:
    """What a command line says of its spend, by the names of its options."""

    ledger: Annotated[
        Path | None,
        _option("ledger", "Ledger of `dpfc budget create` to spend from; with --dataset.", "FILE"),
    ] = None
    dataset: Annotated[
        str | None, _option("dataset", "Whose budget in the ledger is spent.", "NAME")
    ] = None
    purpose: Annotated[
        str | None, _option("purpose", "What for; kept in the ledger, for readers.", "TEXT")
    ] = None
    by: Annotated[str | None, _option("by", "Who spends; kept in the ledger too.", "NAME")] = None
    allow_not_private: Annotated[
        bool, _option("allow-not-private", "Let --seed spend: it voids the budget's claim.")
    ] = False
    another_budget: Annotated[
        bool, _option("another-budget", "These rows have spent from another: a second claim.")
    ] = False

    @property
    def options(self) -> list[str]:
        """The options that were given beside --ledger and --dataset."""
        names = ("purpose", "by", "allow_not_private", "another_budget")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]


def spends(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Said`, in the place of its parameter of that name."""
    own = inspect.signature(command, eval_str=True).parameters
    options = inspect.signature(Said, eval_str=True).parameters
    place = list(own).index("said")
    parameters = [*own.values()]
    parameters[place : place + 1] = options.values()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        said = Said(**{name: given.pop(name) for name in options})
        command(**given, said=said)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def open_ledger(cache: FeatureCache, seed: int | None, said: Said) -> PrivacyLedger | None:
    """Return what `ledger=` takes, or None without --ledger.

    Raises
    ------
    ValueError
        If an option makes no sense without a ledger, or a seeded run would spend; in the
        words of the command line.
    """
    from dpfc.accounting import PrivacyLedger

    if said.ledger is None:
        for option in said.options:
            raise ValueError(f"{option} is for a spend in a ledger: give --ledger too.")
        return None
    if seed is not None and not said.allow_not_private:
        raise ValueError(
            "--seed makes a spend that is not private: it would void the claim of all that is "
            f"released under the budget of {said.dataset!r}. Leave --seed out, or say "
            "--allow-not-private. Nothing was spent."
        )
    ledger = PrivacyLedger(
        said.ledger,
        purpose=said.purpose,
        made_by=said.by,
        allow_not_private=said.allow_not_private,
        fingerprint=fingerprint_of(cache),
        another_budget=said.another_budget,
    )
    if said.dataset is not None:
        _refuse_other_name(ledger, said.dataset)
    return ledger


def fingerprint_of(cache: FeatureCache) -> str:
    """What tells a cache's rows from others: that of its data set, or else of its shards."""
    source: Any = cache.manifest.get("dataset")
    fingerprint = source.get("fingerprint") if isinstance(source, dict) else None
    if isinstance(fingerprint, str) and fingerprint:
        return fingerprint
    shards = [shard["sha256"] for shard in cache.manifest["shards"]]
    return hashlib.sha256(repr(shards).encode()).hexdigest()


def _refuse_other_name(ledger: PrivacyLedger, dataset: str) -> None:
    """Ask in the words of the command line, before anything else is read."""
    others = ledger.other_names(dataset)
    if others and not ledger.another_budget:
        raise ValueError(
            f"these rows have spent from the budget of {' and '.join(map(repr, others))}: did you "
            f"mean --dataset {others[0]!r}, instead of {dataset!r}? A second budget for the same "
            "rows voids the claim of both. If that is meant, say --another-budget. Nothing was "
            "spent."
        )


def record_model(
    ledger: PrivacyLedger | None, dataset: str | None, statement: PrivacyStatement, path: Path
) -> None:
    """Keep name and SHA-256 of a model file beside the spend that paid for it.

    The model is written and paid for: a ledger that cannot be written now is a warning.
    """
    from dpfc.accounting import LedgerError

    if ledger is None or dataset is None:
        return
    try:
        for spend in reversed(ledger.history(dataset)):
            if spend.model is None and spend.statement == statement:
                ledger.attach_model(spend.id, path.name, sha256_of_file(path))
                return
    except (LedgerError, OSError, ValueError) as error:
        print(
            f"warning: {path} is written, and the ledger does not name it: {error_words(error)}.",
            file=sys.stderr,
        )
