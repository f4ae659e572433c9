"""Rows that were left out of a feature cache, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpfc.experiments.cli.console import shown

if TYPE_CHECKING:
    from dpfc.features import FeatureCache

__all__ = ["print_skipped"]

_LISTED = 5


def print_skipped(cache: FeatureCache, what: str) -> None:
    """Say what happened, where all ids stand, and the first of them."""
    ids = [shown(row["id"]) for row in cache.manifest["skipped"]]
    print(f"{what}; their ids stand in {cache.path / 'manifest.json'}.")
    more = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
    print(f"left out: {', '.join(ids[:_LISTED])}{more}")
