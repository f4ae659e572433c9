"""From images or texts to a feature cache: decode, embed and write, resumable."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpfc._support.progress import Progress, Report, reporting
from dpfc._support.validation import Interval, check
from dpfc.features.backbones.base import Backbone, available_cores
from dpfc.features.backbones.row_independence import check_rows, one_by_one
from dpfc.features.cache.manifest import NUMBERED_BY_ROWS, CacheDescription
from dpfc.features.cache.reader import FeatureCache
from dpfc.features.cache.writer import FeatureCacheWriter
from dpfc.features.datasets.base import ON_ERROR, Dataset, Item
from dpfc.features.exceptions import DatasetError, OutOfDeviceMemoryError
from dpfc.features.extraction_workers import Batch, Preparation, Rows, prepare_in_processes

__all__ = ["Embedder", "extract"]

BATCH_SIZE = Interval(1, closed="left", integer=True, words=("auto",))
# Below so many rows left, worker processes take longer to start than they save.
_FEW_ROWS = 2048
# Two batches at a time on a GPU: one computes while the other is copied.
_GPU_THREADS = 2


def extract(
    dataset: Dataset,
    backbone: Backbone,
    out: str | Path,
    *,
    batch_size: int | str = "auto",
    dtype: str = "float16",
    workers: int | None = None,
    progress: bool | Report | None = None,
    overwrite: bool = False,
    shard_rows: int = 8192,
    on_error: str = "stop",
) -> FeatureCache:
    """Embed every image or text of a data set into a feature cache.

    Stopped at any moment (Ctrl-C, kill), it keeps the finished shards, and the same call goes
    on from there; the result is the same, byte by byte, as if it had not been stopped. Over a
    complete cache of the same inputs it does nothing, but redoes shards that are damaged.

    Before the first row is read, the backbone embeds made-up ones: where a row's features depend
    on the rows beside it, a `UserWarning` says so and rows go one by one. The manifest says under
    ``passes`` which it was.

    A batch that does not fit into the device's memory is halved, down to one row, and so are
    those after it. Kernels differ with the batch, so features may then differ in their last
    bits from those of a run with room enough; two runs with the same room agree.

    Parameters
    ----------
    dataset : Dataset
        From `open_dataset`.
    backbone : Backbone
        From `load_backbone`.
    out : str or Path
        Folder of the cache: new, empty, or a cache of the same inputs.
    batch_size : int or "auto"
        Rows a forward pass; "auto" asks the backbone.
    dtype : {"float16", "float32"}
        How features are stored.
    workers : int, optional
        On a CPU, threads that decode and embed, a batch each: one more than there are available
        cores by default, so that none idles while a shard is written. On a GPU, processes that
        decode, one a core by default, which a script must start below
        ``if __name__ == "__main__":`` (few rows are decoded in threads).
    progress : bool or callable, optional
        True shows a bar, False none, None one if standard error is a terminal. A callable is
        called after each batch with the rows done and the rows in all.
    overwrite : bool
        Start afresh over a feature cache of other inputs.
    shard_rows : int
        Rows in a shard.
    on_error : {"stop", "skip"}
        What to do with a row that cannot be read: stop and name it, or leave it out and
        list its id and the reason in the manifest, under ``skipped``. Whoever resumes does not
        try a skipped row again.

    Returns
    -------
    FeatureCache

    Raises
    ------
    ValueError
        If a parameter is out of range, or the backbone takes images and the data set holds
        texts, or the other way round, or it keeps something of the rows that went through it.
    UnreadableItemError, DatasetError
        If a row or the data set cannot be read.
    OutOfDeviceMemoryError
        If the device's memory is too small for one row.
    FeatureCacheError
        If the folder is foreign, in use, holds a cache of other inputs, or cannot be written.
    """
    _check(dataset, backbone, batch_size, workers, on_error)
    description = _describe(dataset, backbone, dtype, shard_rows)
    with FeatureCacheWriter(out, description, overwrite=overwrite) as writer:
        if not writer.is_complete:
            rows = backbone.best_batch_size if isinstance(batch_size, str) else batch_size
            # Before any row is read.
            embedder = Embedder(backbone, rows)
            writer.note_passes(embedder.check.describe())
            with reporting(progress, writer.n_covered, len(dataset)) as shown:
                spare = 1 if backbone.device == "cpu" else 0
                threads = workers or available_cores() + spare
                run = _Run(dataset, backbone, writer, embedder, rows, threads, on_error)
                run(shown)
    return FeatureCache.open(out)


def _check(
    dataset: Dataset,
    backbone: Backbone,
    batch_size: int | str,
    workers: int | None,
    on_error: str,
) -> None:
    check("batch_size", batch_size, BATCH_SIZE)
    check("workers", workers, Interval(1, closed="left", integer=True, words=(None,)))
    check("on_error", on_error, ON_ERROR)
    if dataset.modality != backbone.modality:
        raise ValueError(
            f"{dataset.name} holds {dataset.modality}s and {backbone.spec} takes "
            f"{backbone.modality}s: choose a backbone for {dataset.modality}s."
        )


def _describe(
    dataset: Dataset, backbone: Backbone, dtype: str, shard_rows: int
) -> CacheDescription:
    # Names in a manifest count as public; those collected from private labels are not.
    names = None if dataset.class_names_from_labels else dataset.class_names
    return CacheDescription(
        n_features=backbone.n_features,
        dtype=dtype,
        class_names=None if names is None else tuple(names),
        has_labels=dataset.has_labels,
        has_ids=True,
        has_groups=dataset.has_groups,
        shard_rows=shard_rows,
        backbone={"spec": backbone.spec, "weights_sha256": backbone.weights_sha256},
        preprocessing=backbone.preprocessing,
        dataset={
            "name": dataset.name,
            "n_samples": len(dataset),
            "fingerprint": dataset.fingerprint,
            **({"labels": NUMBERED_BY_ROWS} if dataset.class_names_from_labels else {}),
        },
    )


class Embedder:
    """A backbone whose batches are halved, down to one row, when they do not fit.

    Once halved, later batches are cut to that size as well. Cuts fall at multiples of the size
    from a batch's first row, so a resumed run that meets the same limit makes the same passes.

    Parameters
    ----------
    backbone : Backbone
        Looked at here for rows that depend on each other, on made-up rows; see `check_rows`.
    batch_size : int
        Rows a forward pass to begin with.

    Attributes
    ----------
    limit : int
        Rows a forward pass now.
    check : RowCheck
        How rows go through the backbone.
    """

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self._backbone = backbone
        self._lock = threading.Lock()
        self.check = check_rows(backbone, batch_size)
        # Where two rows have no room, one goes at a time from the start.
        self.limit = 1 if self.check.n_rows == 1 else batch_size

    def __call__(self, rows: Rows) -> NDArray[np.float32]:
        """Features, shape (n, n_features), of n prepared rows; may be called by several threads.

        Raises
        ------
        OutOfDeviceMemoryError
            If not even one row fits.
        """
        while True:
            limit = self.limit
            parts = [rows[i : i + limit] for i in range(0, len(rows), limit)]
            try:
                # From the first row again after a halving: a batch is cut in one way only.
                features = [one_by_one(self._backbone, part, self.check) for part in parts]
            except OutOfDeviceMemoryError:
                failed = min(limit, len(rows))
                if failed == 1:
                    raise
                with self._lock:  # unless another thread has gone below
                    self.limit = min(self.limit, failed // 2)
                continue
            return features[0] if len(features) == 1 else np.concatenate(features)


@dataclass(frozen=True)
class _Run:
    """One extraction into a writer that stands where the last one was stopped."""

    dataset: Dataset
    backbone: Backbone
    writer: FeatureCacheWriter
    embedder: Embedder
    batch_size: int
    workers: int
    on_error: str

    def __call__(self, shown: Progress) -> None:
        """Embed batches in threads, write them here in order."""
        embedder = self.embedder
        on_gpu = self.backbone.device != "cpu"
        threads = _GPU_THREADS if on_gpu else self.workers
        done, total = self.writer.n_covered, len(self.dataset)
        pending: deque[tuple[list[Item], Future[tuple[Batch, NDArray[np.float32] | None]]]]
        pending = deque()

        def write_next() -> None:
            nonlocal done
            items, future = pending.popleft()
            self._write(items, *future.result())
            done += len(items)
            if embedder.limit < self.batch_size and not noted:
                noted.append(embedder.limit)
                shown.note(f"the device's memory is short, batches of {embedder.limit} rows")
            shown.report(done, total)

        noted: list[int] = []
        prepared = self._prepared(done, in_processes=on_gpu and total - done >= _FEW_ROWS)
        with (
            closing(prepared),  # ends worker processes
            ThreadPoolExecutor(threads, thread_name_prefix="dpfc-extract") as pool,
        ):
            try:
                for items, prepare in prepared:
                    pending.append((items, pool.submit(_embed, prepare, embedder)))
                    # Few in flight: a batch of photographs can take 100 MB.
                    if len(pending) >= threads + 2:
                        write_next()
                while pending:
                    write_next()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if done != total:
            raise DatasetError(
                f"{self.dataset.name} gave {done} rows instead of {total}: it changed while it "
                "was read. Run again when nothing writes to it."
            )
        self.writer.finish()

    def _prepared(
        self, start: int, in_processes: bool
    ) -> Generator[tuple[list[Item], Callable[[], Batch]]]:
        """Batches of items, each with what prepares it or gives it prepared.

        On a CPU the thread that embeds a batch also decodes it: Pillow and ONNX Runtime release
        the interpreter's lock, so all cores are busy without any waiting for another.
        """
        preparation = Preparation.of(self.backbone)
        if not in_processes:
            for items in self._batches(start):
                yield items, partial(preparation, items)
            return
        sent: deque[list[Item]] = deque()

        def recorded() -> Iterator[list[Item]]:
            for items in self._batches(start):
                sent.append(items)
                yield items

        for batch in prepare_in_processes(preparation, recorded(), self.workers):
            yield sent.popleft(), partial(_same, batch)

    def _batches(self, start: int) -> Iterator[list[Item]]:
        """Batches that never straddle shards: they are the same wherever a run starts."""
        items = self.dataset.items(start)
        position = start
        while True:
            room = self.writer.shard_rows - position % self.writer.shard_rows
            batch = list(islice(items, min(self.batch_size, room)))
            if not batch:
                return
            position += len(batch)
            yield batch

    def _write(self, items: list[Item], batch: Batch, features: NDArray[np.float32] | None) -> None:
        if batch.unreadable and self.on_error == "stop":
            raise next(iter(batch.unreadable.values()))
        for place, reason in batch.unreadable.items():
            self.writer.skip(items[place].id, str(reason))
        kept = [item for place, item in enumerate(items) if place not in batch.unreadable]
        if features is not None:
            labels = np.array([item.label for item in kept]) if self.dataset.has_labels else None
            groups = [item.group or "" for item in kept] if self.dataset.has_groups else None
            self.writer.write(features, labels, [item.id for item in kept], groups)


def _embed(
    prepare: Callable[[], Batch], embedder: Embedder
) -> tuple[Batch, NDArray[np.float32] | None]:
    """A prepared batch and the features of its readable rows, None if there are none."""
    batch = prepare()
    return batch, embedder(batch.rows) if len(batch.rows) else None


def _same(batch: Batch) -> Batch:
    return batch
