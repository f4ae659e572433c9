"""Names by which a table's columns are known for no features: labels, ids and indexes.

One list for whatever reads tables. Names are public; no value is looked at here.
"""

from __future__ import annotations

import re

__all__ = ["is_id_name", "is_index_name", "is_label_name"]

_LABEL = re.compile(r"labels?|targets?|y|class|classes|outcome|ground[_ ]?truth", re.IGNORECASE)
# "id", "patient_id", "Patient-ID", "row uuid"; where words are told by capitals, "patientId" too.
_ID = re.compile(r"(.+[_ -])?(ids?|uid|uuid|guid)", re.IGNORECASE)
_ID_OF_CAPITALS = re.compile(r".*[a-z0-9](Ids?|IDs?|Uid|UID|Uuid|UUID|Guid|GUID)")
_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+|index|idx", re.IGNORECASE)


def is_label_name(name: str) -> bool:
    """Whether a column of this name holds labels."""
    return _LABEL.fullmatch(name) is not None


def is_id_name(name: str) -> bool:
    """Whether a column of this name tells rows apart, or whose they are."""
    return any(pattern.fullmatch(name) for pattern in (_ID, _ID_OF_CAPITALS))


def is_index_name(name: str) -> bool:
    """Whether a column of this name numbers the rows, as a data frame's index does."""
    return _INDEX.fullmatch(name) is not None
