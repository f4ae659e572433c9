"""The one way in which Parquet is read whole: on the thread that asks.

Arrow's own threads let go of what they read a moment after the caller has it. Memory of Python's
is let go under the interpreter's lock, and a thread that waits for that lock while the process
ends is killed in the middle of a destructor: the process aborts (signal 6), or never ends.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["read_columns"]


def read_columns(source: Path | pa.BufferReader, columns: Sequence[str] | None = None) -> pa.Table:
    """Read some columns, or all, of a Parquet file.

    Raises
    ------
    OSError, pyarrow.ArrowException
        If the file cannot be read, or is damaged.
    """
    # Not read_table: it takes folders named like `label=3` for columns.
    with pq.ParquetFile(source) as file:
        return file.read(None if columns is None else list(columns), use_threads=False)
