"""Finished runs of a sweep: one small file each, and one Parquet table of all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc._support.files import read_regular, write_whole
from dpfc._support.words import strict
from dpfc.experiments.studies.run_checks import check_run
from dpfc.experiments.studies.runs import RunSpec

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RESULTS", "RUNS", "RunStore", "results_schema"]

RESULTS = "results.parquet"
RUNS = "runs"


class RunStore:
    """A folder of runs by key; a run is there whole or not at all, whatever is killed when.

    Parameters
    ----------
    folder : Path
        Of the study; made when the first run is kept.

    Raises
    ------
    ValueError
        If a run's file is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._runs = folder / RUNS
        self._records = {path.stem: _read(path) for path in sorted(self._runs.glob("*.json"))}

    def get(self, key: str) -> dict[str, Any] | None:
        """Give a run's record, or None."""
        return self._records.get(key)

    def records(self) -> list[dict[str, Any]]:
        """All records, by key; of other studies in this folder as well."""
        return list(self._records.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a run, on disk first; a failed one gives way to the next attempt."""
        self._runs.mkdir(parents=True, exist_ok=True)
        text = json.dumps(strict(record), indent=1, sort_keys=True, allow_nan=False)
        write_whole(self._runs / f"{record['key']}.json", text + "\n")
        self._records[str(record["key"])] = dict(record)

    def write_table(self, study: str, runs: Iterable[RunSpec]) -> Path:
        """Write the table of these runs, as far as they are there, in the order given.

        What a study, data set and method are called is taken from the runs: a record may be
        older than a change of names.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            _row(record | {"study": study, "label": run.label, "backbone": run.rows.backbone})
            for run in runs
            if (record := self._records.get(run.key)) is not None
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=results_schema()), sink)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / RESULTS, sink.getvalue().to_pybytes())
        return self.folder / RESULTS


def results_schema() -> pa.Schema:
    """Columns of the table; `docs/studies.md` says what they hold."""
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    return pa.schema(
        [
            ("key", text),
            ("study", text),
            ("dataset", text),
            ("backbone", text),
            ("method", text),
            ("label", text),
            ("epsilon", number),
            ("delta", number),
            ("seed", whole),
            ("parameters", text),
            ("status", text),
            ("error", text),
            ("accuracy", number),
            ("class_names", pa.list_(text)),
            ("per_class_accuracy", pa.list_(number)),
            ("confusion", pa.list_(pa.list_(whole))),
            ("n_features", whole),
            ("n_classes", whole),
            ("seconds", number),
            ("private", pa.bool_()),
            ("statement", text),
            ("code", text),
            ("versions", text),
            ("finished", text),
        ]
    )


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: record.get(name) for name in results_schema().names}
    row["epsilon"] = float(record["epsilon"])  # JSON has "inf" as a word
    for name in ("parameters", "versions", "statement"):
        if row[name] is not None:
            row[name] = json.dumps(row[name], sort_keys=True)
    return row


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(read_regular(path, limit="json_bytes").decode())
        if record["key"] != path.stem:
            raise ValueError("its key must be the file's name")
        check_run(_row(record))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{path} is not a run of a sweep: remove it to run it again.") from None
    return record
