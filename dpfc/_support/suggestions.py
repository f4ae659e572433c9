"""The known word that somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

__all__ = ["did_you_mean"]


def did_you_mean(
    word: object,
    known: Iterable[str] | Mapping[str, str],
    *,
    n: int = 1,
    cutoff: float = 0.6,
    otherwise: str = "",
) -> str:
    """A sentence with the known words that are nearest, after a blank; `otherwise` if none is near.

    Parameters
    ----------
    word : object
    known : iterable or mapping of str
        Of a mapping, keys are compared and values named.
    n : int
        The most that are named.
    cutoff : float
        How near a word must be, see `difflib.get_close_matches`.
    otherwise : str
    """
    near = difflib.get_close_matches(str(word), known, n=n, cutoff=cutoff)
    named = [known[key] for key in near] if isinstance(known, Mapping) else near
    return f" Did you mean {' or '.join(map(repr, named))}?" if near else otherwise
