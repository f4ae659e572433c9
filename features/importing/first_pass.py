"""The first pass over imported rows: it checks each of them before anything is written."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.labels import SideFile, Values
from dpfc.features.importing.rows import IdDigests, Rows, Source

__all__ = ["Survey"]


class Survey:
    """All rows of some files, which follow each other.

    Parameters
    ----------
    sources : sequence of Source
    dtype : {"float16", "float32"}
        What features must fit into.
    skip_failed : bool
        Whether requests that a service could not answer are left out, or refused.

    Attributes
    ----------
    n_rows : int
        Rows, those of failed requests with them.
    n_features : int
        Length of a row.
    failed : list of int
        Positions of failed requests.
    answered : set of int
        Those of them that another record answers, or tells of too: they are no rows.
    """

    def __init__(self, sources: Sequence[Source], dtype: str, *, skip_failed: bool) -> None:
        self.sources = sources
        self.n_rows = 0
        self.n_features = 0
        self.failed: list[int] = []
        self.answered: set[int] = set()
        self._dtype = dtype
        self.skip_failed = skip_failed
        self._digests = IdDigests()

    def blocks(self) -> Iterator[Rows]:
        """Read all rows, unchecked."""
        return chain.from_iterable(source.rows() for source in self.sources)

    def run(self) -> Iterator[object]:
        """Check all rows, and yield the labels that stand beside them.

        Raises
        ------
        DatasetError
            If a row is not as it must be; the message names the file and the row or line.
        """
        for rows in self.blocks():
            if rows.X is None:
                self.failed.append(self.n_rows)
            else:
                self._check(rows, rows.X)
            for text in rows.id_texts() or ():
                self._digests.add(text)
            rows.group_texts()
            self.n_rows += len(rows)
            yield from rows.labels or ()
        self._settle_failures()
        if self.n_features == 0:
            raise DatasetError(f"{self.sources[0].path} holds no rows with features.")
        repeated = self._digests.first_repeated(self.answered)
        if repeated is not None:
            raise DatasetError(
                f"{self._place(repeated)} has an id that stands before: a row was embedded twice, "
                "or the ids are in another column (id_column)."
            )

    def spread(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """From codes of the rows with features to codes of all rows, -1 for the others."""
        spread = np.full(self.n_rows, -1, dtype=np.int32)
        spread[self._kept()] = codes
        return spread

    def match(self, file: SideFile[Values]) -> NDArray[np.int32]:
        """Codes of all rows, from a file of labels or groups.

        Raises
        ------
        DatasetError
            If rows and labels do not match, one to one, or a row has no group.
        """
        codes = file.values.codes
        if file.digests is not None:
            return self._match_by_id(file)
        unsure = [source.path for source in self.sources if not source.keeps_order]
        if unsure:
            raise DatasetError(
                f"{file.path} holds {file.what}s without ids, but records of {unsure[0]} have "
                "ids, since services may change the order: give a table with columns id and "
                f"{file.what}."
            )
        if len(codes) != self.n_rows:
            raise DatasetError(
                f"{file.path} holds {len(codes)} {file.what}s for {self.n_rows} rows: there must "
                "be as many (the first line of a table is its header)."
            )
        return codes

    def place_of_kept(self, position: int) -> str:
        """Name the row at a position among those with features, for people."""
        seen = 0
        for rows in self.blocks():
            if rows.X is not None:
                if position < seen + len(rows):
                    return rows.place(position - seen)
                seen += len(rows)
        return f"row {position}"

    def _place(self, position: int) -> str:
        """Name the row at a position: found again only when a message needs it."""
        seen = 0
        for rows in self.blocks():
            if position < seen + len(rows):
                return rows.place(position - seen)
            seen += len(rows)
        return f"row {position}"

    def _kept(self) -> NDArray[np.int64]:
        return np.delete(np.arange(self.n_rows), np.array(self.failed, dtype=np.int64))

    def _match_by_id(self, file: SideFile[Values]) -> NDArray[np.int32]:
        if not self.sources[0].has_ids:
            raise DatasetError(
                f"{file.path} has ids beside the {file.what}s, the rows of {self.sources[0].path} "
                f"have none: name their column with id_column, or give {file.what}s alone, in the "
                "rows' order."
            )
        codes, unused = file.by_id(self._digests.to_array())
        missing = np.flatnonzero(codes[self._kept()] < 0)
        if len(missing) and not (self.skip_failed and file.what == "label"):
            raise DatasetError(
                f"{self.place_of_kept(int(missing[0]))} has an id without a {file.what} in "
                f"{file.path}, and so have {len(missing) - 1} others: add their {file.what}s."
            )
        # One table may say of training and test rows alike whose they are.
        if len(unused) and file.what == "label":
            raise DatasetError(
                f"row {unused[0]} of {file.path} has an id that no row of features has, and so "
                f"have {len(unused) - 1} others: import all files of features together (failed "
                "requests with them), or remove these labels."
            )
        return codes

    def _settle_failures(self) -> None:
        """Find the failed requests that were sent again, and refuse the others or keep them."""
        if self.failed and self.sources[0].has_ids:
            digests = self._digests.to_array()
            seen = set(digests[self._kept()].tolist())
            for position in self.failed:
                digest = digests[position]
                if digest in seen:
                    self.answered.add(position)
                seen.add(digest)
        lost = next((place for place in self.failed if place not in self.answered), None)
        if lost is not None and not self.skip_failed:
            raise DatasetError(
                f"{self._place(lost)} tells of a request that the service could not answer: send "
                "it again, or leave it out with on_error='skip'."
            )

    def _check(self, rows: Rows, X: NDArray[np.number]) -> None:
        self.n_features = self.n_features or X.shape[1]
        if X.shape[1] != self.n_features:
            raise DatasetError(
                f"{rows.place(0)} has {X.shape[1]} features, those before it {self.n_features}: "
                "all rows need the same number, from one model with one setting."
            )
        with np.errstate(over="ignore"):
            stored = X.astype(self._dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if not len(bad):
            return
        where = rows.place(int(bad[0]))
        if not np.isfinite(X[bad[0]]).all():
            raise DatasetError(f"{where} holds NaN or infinity: correct it or remove the row.")
        remedy = "store it as float32 (dtype)" if self._dtype == "float16" else "scale the features"
        raise DatasetError(f"{where} holds a number too large for {self._dtype}: {remedy}.")
