"""BIG-bench tasks with multiple choice as texts with labels.

References
----------
Srivastava et al. (2022), Beyond the Imitation Game, https://arxiv.org/abs/2206.04615; the format
of ``task.json`` is in the repository google/BIG-bench, docs/doc.md.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dpfc._support.files import read_regular
from dpfc.features.datasets.base import TextDataset, TextItem, row_id
from dpfc.features.datasets.packaged import rows_of_split
from dpfc.features.exceptions import DatasetError

__all__ = ["PREFIX", "BigBenchTask"]

PREFIX = "bigbench:"
_SPLITS = ("train", "test")


class BigBenchTask(TextDataset):
    """The examples of one ``task.json``; the choice with the highest target score is the label.

    Classes are the sorted choices. Where every example offers the same choices, they are the
    task's own statement; where examples differ, the list was collected from the rows, and
    `class_names_from_labels` says so.

    Parameters
    ----------
    spec : str
        ``bigbench:PATH/task.json``, or with ``:train`` or ``:test`` behind it, where every fifth
        row of a class is test.
    unlabelled : bool
        Leave the labels aside.

    Raises
    ------
    DatasetError
        If the file cannot be read, is no such task, or an example has no single best choice.
    """

    has_labels = True

    def __init__(self, spec: str, *, unlabelled: bool = False) -> None:
        place, split = _split_of(spec.removeprefix(PREFIX))
        path = Path(place)
        content = _read(path)
        examples = _examples(path, content)
        choices = [set(scores) for _, scores in examples]
        names = sorted(set().union(*choices))
        self.class_names: list[str] | None = names
        self.class_names_from_labels = any(offered != set(names) for offered in choices)
        self.name = f"{path.parent.name or path.name}{':' + split if split else ''}"
        codes = {name: code for code, name in enumerate(names)}
        labels = np.array(
            [codes[_best(path, row, scores)] for row, (_, scores) in enumerate(examples)],
            dtype=np.int64,
        )
        self._rows = rows_of_split(labels, split)
        self._labels = labels[self._rows]
        self._texts = [examples[row][0] for row in self._rows]
        self._digest = hashlib.sha256(content).hexdigest()
        self._split = split
        if unlabelled:
            self._forget_labels()

    def __len__(self) -> int:
        return len(self._rows)

    def items(self, start: int = 0) -> Iterator[TextItem]:
        """Yield the rows from position `start` on; ids count in the unsplit task."""
        for i in range(start, len(self)):
            yield TextItem(self._texts[i], self._label(i), row_id(int(self._rows[i])))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file and the split."""
        return hashlib.sha256(repr(("bigbench", self._digest, self._split)).encode()).hexdigest()


def _split_of(text: str) -> tuple[str, str]:
    """Take ``:train`` or ``:test`` off the end."""
    place, colon, split = text.rpartition(":")
    return (place, split) if colon and split in _SPLITS else (text, "")


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, limit="json_bytes")
    except OSError as error:
        raise DatasetError(
            f"cannot read the BIG-bench task {path}: {error.strerror}. Name its task.json."
        ) from error


def _examples(path: Path, content: bytes) -> list[tuple[str, dict[str, float]]]:
    """Input and target scores of every example, checked; no value is shown in an error."""
    try:
        task = json.loads(content)
    except ValueError as error:
        raise DatasetError(f"{path} is not valid JSON: download the task again.") from error
    examples = task.get("examples") if isinstance(task, dict) else None
    if not isinstance(examples, list) or not examples:
        raise DatasetError(f"{path} is no BIG-bench task with a list of examples.")
    found = []
    for row, example in enumerate(examples):
        text, scores = _fields(example)
        if not isinstance(text, str) or not _are_scores(scores):
            raise DatasetError(
                f"{row_id(row)} of {path} lacks an input text or target_scores: only tasks with "
                "multiple choice have classes."
            )
        found.append((text, scores))
    return found


def _fields(example: Any) -> tuple[Any, Any]:
    if not isinstance(example, dict):
        return None, None
    return example.get("input"), example.get("target_scores")


def _are_scores(scores: Any) -> bool:
    return (
        isinstance(scores, dict)
        and len(scores) > 0
        and all(type(score) in (int, float) and score == score for score in scores.values())
    )


def _best(path: Path, row: int, scores: dict[str, float]) -> str:
    top = max(scores.values())
    best = [choice for choice, score in scores.items() if score == top]
    if len(best) > 1:
        raise DatasetError(f"{row_id(row)} of {path} has no single best choice: remove the row.")
    return best[0]
