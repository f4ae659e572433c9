"""From images to a feature cache: decode, embed and write, resumable."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones import Backbone, available_cores
from dpfc.features.cache import FeatureCache
from dpfc.features.cache_writer import FeatureCacheWriter
from dpfc.features.datasets import ImageDataset, ImageItem
from dpfc.features.exceptions import DatasetError
from dpfc.features.manifest import CacheDescription

__all__ = ["extract"]

Report = Callable[[int, int], object]


def extract(
    dataset: ImageDataset,
    backbone: Backbone,
    out: str | Path,
    *,
    batch_size: int | str = "auto",
    dtype: str = "float16",
    workers: int | None = None,
    progress: bool | Report | None = None,
    overwrite: bool = False,
    shard_rows: int = 8192,
) -> FeatureCache:
    """Embed every image of a data set into a feature cache.

    Stopped at any moment (Ctrl-C, kill), it keeps the finished shards, and the same call goes
    on from there; the result is the same, byte by byte, as if it had not been stopped. Over a
    complete cache of the same inputs it does nothing, but redoes shards that are damaged.

    Parameters
    ----------
    dataset : ImageDataset
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
        Threads that decode and embed, a batch each; the available cores by default.
    progress : bool or callable, optional
        True shows a bar, False none, None one if standard error is a terminal. A callable is
        called after each batch with the rows done and the rows in all.
    overwrite : bool
        Start afresh over a feature cache of other inputs.
    shard_rows : int
        Rows in a shard.

    Returns
    -------
    FeatureCache

    Raises
    ------
    ValueError
        If a parameter is out of range.
    UnreadableImageError, DatasetError
        If an image or the data set cannot be read.
    FeatureCacheError
        If the folder is foreign, in use, holds a cache of other inputs, or cannot be written.
    """
    if batch_size != "auto" and (type(batch_size) is not int or batch_size < 1):
        raise ValueError(f"batch_size must be an int > 0 or 'auto', got {batch_size!r}.")
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ValueError(f"workers must be an int > 0 or None, got {workers!r}.")
    description = _describe(dataset, backbone, dtype, shard_rows)
    with FeatureCacheWriter(out, description, overwrite=overwrite) as writer:
        if not writer.is_complete:
            rows = backbone.best_batch_size if isinstance(batch_size, str) else batch_size
            with _reporting(progress, writer.n_written, len(dataset)) as report:
                _run(dataset, backbone, writer, rows, workers or available_cores(), report)
    return FeatureCache.open(out)


def _describe(
    dataset: ImageDataset, backbone: Backbone, dtype: str, shard_rows: int
) -> CacheDescription:
    names = dataset.class_names
    return CacheDescription(
        n_features=backbone.n_features,
        dtype=dtype,
        class_names=None if names is None else tuple(names),
        has_labels=dataset.has_labels,
        has_ids=True,
        shard_rows=shard_rows,
        backbone={"spec": backbone.spec, "weights_sha256": backbone.weights_sha256},
        preprocessing=backbone.preprocessing,
        dataset={
            "name": dataset.name,
            "n_samples": len(dataset),
            "fingerprint": dataset.fingerprint,
        },
    )


def _run(
    dataset: ImageDataset,
    backbone: Backbone,
    writer: FeatureCacheWriter,
    batch_size: int,
    workers: int,
    report: Report,
) -> None:
    """Decode and embed batches in threads, write them here in order.

    A thread takes a batch through decoding and the network: Pillow and ONNX Runtime release the
    interpreter's lock, so all cores are busy without any waiting for another.
    """
    done, total = writer.n_written, len(dataset)
    pending: deque[tuple[list[ImageItem], Future[NDArray[np.float32]]]] = deque()

    def write_next() -> None:
        nonlocal done
        batch, features = pending.popleft()
        labels = np.array([item.label for item in batch]) if dataset.has_labels else None
        writer.write(features.result(), labels, [item.id for item in batch])
        done += len(batch)
        report(done, total)

    with ThreadPoolExecutor(workers, thread_name_prefix="dpfc-extract") as pool:
        try:
            for batch in _batches(dataset, done, writer.shard_rows, batch_size):
                pending.append((batch, pool.submit(_embed, batch, backbone)))
                # Few in flight: a batch of photographs can take 100 MB.
                if len(pending) >= workers + 2:
                    write_next()
            while pending:
                write_next()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if done != total:
        raise DatasetError(
            f"{dataset.name} gave {done} rows instead of {total}: it changed while it was read. "
            "Run again when nothing writes to it."
        )
    writer.finish()


def _batches(
    dataset: ImageDataset, start: int, shard_rows: int, batch_size: int
) -> Iterator[list[ImageItem]]:
    """Batches that never straddle shards: they are the same wherever a run starts."""
    items = dataset.items(start)
    position = start
    while True:
        room = shard_rows - position % shard_rows
        batch = list(islice(items, min(batch_size, room)))
        if not batch:
            return
        position += len(batch)
        yield batch


def _embed(batch: list[ImageItem], backbone: Backbone) -> NDArray[np.float32]:
    prepared = [backbone.prepare(item.decode(at_least=backbone.image_size)) for item in batch]
    return backbone.embed(np.stack(prepared))


@contextmanager
def _reporting(progress: bool | Report | None, done: int, total: int) -> Iterator[Report]:
    """What to call after each batch with the rows done and the rows in all."""
    if callable(progress):
        yield progress
        return
    from rich.console import Console

    console = Console(stderr=True)
    if progress is False or (progress is None and not console.is_terminal):
        yield lambda done, total: None
        return
    with _progress_bar(console) as bar:
        task = bar.add_task("extracting", total=total, completed=done, speed="")
        began, first = time.monotonic(), done

        def show(done: int, total: int) -> None:
            speed = (done - first) / max(time.monotonic() - began, 1e-9)
            bar.update(task, completed=done, total=total, speed=f"{speed:,.0f} rows/s")

        yield show


def _progress_bar(console: Any) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
    )
