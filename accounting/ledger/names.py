"""When two names of data sets are one, or are easily taken for one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from dpfc._support.suggestions import did_you_mean

__all__ = ["dataset_key", "easily_taken_for", "similar_names"]

# Code points that are printable and yet not seen: joiners, fillers and variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
# Shorter words are labels, as in "site A" and "site B", or other words, as "men" and "man". The
# longer of two counts: "Wrd" is what is left of "Ward". Letters that changed places make no word.
_SHORTEST_WORD = 4
_SHORTEST_SWAPPED = 3


def dataset_key(dataset: str) -> str:
    """What two names share that people would take for one.

    References
    ----------
    The Unicode Standard, Section 3.13, definition D146 (compatibility caseless match), and
    Section 5.21 (default ignorable code points).
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", dataset).casefold())
    folded = _UNSEEN.sub("", folded)
    return " ".join(unicodedata.normalize("NFKC", folded.casefold()).split())


def similar_names(dataset: str, names: Sequence[str]) -> str:
    """Offer the nearest of `names`, as a sentence; empty if none is near."""
    by_key = {dataset_key(name): name for name in names}
    hint = did_you_mean(dataset_key(dataset), by_key, n=3)
    return hint and (
        f"{hint} A second name for the same rows would be a second budget, and void the claim of "
        "both. For other rows, make one with: dpfc budget create"
    )


def easily_taken_for(first: str, second: str) -> bool:
    """Whether two names differ only in punctuation, or by a slip of one letter in their words.

    "Station-7" and "station 07", or "Staton-7"; "Ward 7" and "Wrd 7". Not "Station-8": numbers are
    what people tell their data sets apart by, and a question that comes with every ward would
    be answered before it is read. Nor "site B", or another word.
    """
    ours, theirs = _words(first), _words(second)
    if "".join(ours) == "".join(theirs):
        return True
    if len(ours) != len(theirs):
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(_is_one_slip(one, other) for one, other in pairs if one != other)


def _words(name: str) -> list[str]:
    """Runs of letters, and runs of digits without the zeros that lead them."""
    runs = re.findall(r"[^\W\d_]+|\d+", dataset_key(name))
    return [run.lstrip("0") or "0" if run.isdecimal() else run for run in runs]


def _is_one_slip(one: str, other: str) -> bool:
    """Whether one letter was added, left out, replaced, or changed places with the next."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1 or not (one.isalpha() and other.isalpha()):
        return False
    start = next((i for i, letter in enumerate(short) if letter != long[i]), len(short))
    if len(short) < len(long):
        return len(long) >= _SHORTEST_WORD and short[start:] == long[start + 1 :]
    if short == long[:start] + long[start : start + 2][::-1] + long[start + 2 :]:
        return len(long) >= _SHORTEST_SWAPPED
    return len(long) >= _SHORTEST_WORD and short[start + 1 :] == long[start + 1 :]
