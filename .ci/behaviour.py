"""Print, as JSON, what this checkout does with fixed seeds: models, statements, command lines.

`.ci/same-behaviour` runs it in two checkouts and compares. It imports public names alone, which
stay where they are when files move.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ |= {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}

import numpy as np

import dpfc
import dpfc.accounting
import dpfc.features

CHECKOUT = Path(dpfc.__file__).resolve().parents[1]
CLASSES = ("ant", "bee", "cow")
TIMES = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00|Z)?", "TIME"),
    (r"[\d,.]+ (ms|s|rows/s|min|h)\b", "DURATION"),
    (r"dpfc \d+\.\d+\.\d+ [0-9a-f]{8}", "VERSION"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
)


def command() -> Callable[[list[str]], int]:
    """What the console script `dpfc` of this checkout calls."""
    settings = (CHECKOUT / "setup.cfg").read_text(encoding="utf-8")
    found = re.search(r"^    dpfc = ([\w.]+):(\w+)$", settings, flags=re.M)
    assert found is not None
    called: Callable[[list[str]], int] = getattr(import_module(found[1]), found[2])
    return called


def rows(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that can be told apart."""
    generator = np.random.default_rng(seed)
    y = np.arange(shape[0]) % 3
    X = generator.normal(size=shape).astype(np.float32)
    X.reshape(shape[0], -1)[np.arange(shape[0]), y] += 3.0
    return X, np.array(CLASSES)[y]


def digest(*parts: Any) -> str:
    """One text for arrays and bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return total.hexdigest()


def cleaned(text: str, folder: str) -> str:
    """Without what differs from run to run."""
    text = text.replace(folder, "FOLDER")
    for pattern, word in TIMES:
        text = re.sub(pattern, word, text)
    return text


def estimators() -> Iterator[tuple[str, Callable[[], Any], tuple[int, ...]]]:
    """Names, makers, and shapes of rows."""
    last_layer = {
        dpfc.DPFCClassifier: ({}, {"n_steps": 5}, {"centering": "none"}),
        dpfc.DPLeastSquaresClassifier: ({}, {"l2_regularization": 1.0}),
        dpfc.DPNewtonClassifier: ({"n_steps": 2},),
        dpfc.DPGradientClassifier: ({"n_steps": 5}, {"n_steps": 5, "sampling_probability": 0.3}),
    }
    for kind, several in last_layer.items():
        for options in several:
            if not set(options) <= set(inspect.signature(kind).parameters):
                continue
            for relation in ("add_or_remove_one", "replace_one"):
                for epsilon in (0.5, 8.0, float("inf")):
                    given = {"epsilon": epsilon, "neighboring_relation": relation} | options
                    yield (
                        f"{kind.__name__} {given}",
                        lambda kind=kind, given=given: kind(
                            classes=CLASSES, random_state=0, **given
                        ),
                        (240, 12),
                    )
    shapes = {"linear": (12,), "mlp": (12,), "cnn": (1, 9, 9), "dlr": (7, 2), "vit-tiny": (1, 8, 8)}
    for network, shape in shapes.items():
        for clipping in ("hooks", "functorch", "ghost"):
            yield (
                f"DPSGDClassifier {network} {clipping}",
                lambda network=network, clipping=clipping: dpfc.DPSGDClassifier(
                    network, epsilon=4.0, classes=CLASSES, n_steps=2, clipping=clipping,
                    n_samples=60, random_state=0, device="cpu",
                ),
                (60, *shape),
            )  # fmt: skip
    for optimizer in ("sgd", "adam", "schedule-free-sgd", "o2nc"):
        yield (
            f"DPSGDClassifier mlp {optimizer}",
            lambda optimizer=optimizer: dpfc.DPSGDClassifier(
                "mlp", epsilon=4.0, classes=CLASSES, n_steps=3, optimizer=optimizer,
                random_state=0, device="cpu", ema_decay=0.9, augmentation_multiplicity=1,
            ),
            (60, 12),
        )  # fmt: skip
    yield (
        "DPSearchCV",
        lambda: dpfc.DPSearchCV(
            dpfc.DPGradientClassifier(n_steps=3, classes=CLASSES),
            {"l2_regularization": [0.1, 1.0]},
            epsilon=4.0,
            random_state=0,
        ),
        (240, 12),
    )


def fitted(make: Callable[[], Any], shape: tuple[int, ...], folder: Path) -> dict[str, str]:
    """What a fit comes to."""
    X, y = rows(shape)
    model = make().fit(X, y)
    best = getattr(model, "best_estimator_", model)
    path = folder / "model.safetensors"
    path.unlink(missing_ok=True)
    best.save(path)
    again = dpfc.load_model(path)
    evaluation = dpfc.evaluate_privately(best, X, y, epsilon=1.0, random_state=0)
    return {
        "probabilities": digest(again.predict_proba(X)),
        "weights": digest(best.coef_) if hasattr(best, "coef_") else "",
        "file": digest(path.read_bytes()),
        "statement": cleaned(model.privacy_.model_dump_json()
                             if hasattr(model.privacy_, "model_dump_json")
                             else model.privacy_.to_json(), str(folder)),
        "text": cleaned(str(model.privacy_), str(folder)),
        "evaluation": cleaned(str(evaluation), str(folder)),
    }  # fmt: skip


COMMANDS = """
fit --features {cache} --epsilon 1 --out {out}/fc.safetensors --seed 0
fit --features {cache} --epsilon 1 --out {out}/ls.safetensors --seed 0 --method ls --json
fit --features {cache} --epsilon 1 --out {out}/gd.safetensors --seed 0 --method gd --set n_steps=3
fit --features {cache} --epsilon 0 --out {out}/x.safetensors
fit --features {cache} --epsilon 1 --out {out}/x.safetensors --method nwton
fit --features {out} --epsilon 1 --out {out}/x.safetensors
train --features {cache} --network linear --epsilon 4 --steps 2 --seed 0 --out {out}/n.safetensors
search --features {cache} --method gd --try n_steps=2,3 --epsilon 4 --seed 0 --out {out}/s
evaluate --model {out}/fc.safetensors --features {cache}
evaluate --model {out}/fc.safetensors --features {cache} --epsilon 1 --seed 0 --json
evaluate --model {out}/n.safetensors --features {cache} --epsilon 1 --seed 0
predict --model {out}/fc.safetensors --features {cache}
summarize --features {cache} --epsilon 1 --seed 0
summarize --features {cache} --epsilon 1 --seed 0 --json
features --help
features info {cache}
features verify {cache}
budget create --ledger {out}/l.db --dataset cows --epsilon 3 --delta 1e-5 --unit "one cow"
budget create --ledger {out}/l.db --dataset cows --epsilon 3 --delta 1e-5 --unit "one cow"
budget show --ledger {out}/l.db
budget history --ledger {out}/l.db
budget remaining --ledger {out}/l.db
budget verify --ledger {out}/l.db
budget plan --epsilon 1 --n-samples 1000 --n-classes 3
report privacy --model {out}/fc.safetensors
report privacy --model {out}/n.safetensors --out {out}/p.md
results {out}
sweep {out}/none.yaml
"""


def said(line: str, folder: Path) -> dict[str, Any]:
    """Exit code and words of a command line."""
    import shlex

    out, errors = io.StringIO(), io.StringIO()
    arguments = [
        word.format(cache=folder / "cache", out=folder / "out") for word in shlex.split(line)
    ]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = command()(arguments)
    return {
        "code": code,
        "out": cleaned(out.getvalue(), str(folder)),
        "errors": cleaned(errors.getvalue(), str(folder)),
    }


def helps(folder: Path) -> Iterator[tuple[str, Any]]:
    """Help of every command."""
    seen, waiting = set(), [""]
    while waiting:
        line = waiting.pop()
        text = said(f"{line} --help", folder)
        yield f"dpfc {line} --help", text
        listed = text["out"].partition("\nCommands:")[2]
        for name in re.findall(r"^  ([a-z][a-z-]*)", listed, flags=re.M):
            if (inner := f"{line} {name}".strip()) not in seen:
                seen.add(inner)
                waiting.append(inner)


def public_names() -> Iterator[tuple[str, Any]]:
    """What users import, and the parameters that it takes."""
    for package in (dpfc, dpfc.accounting, dpfc.features):
        for name in package.__all__:
            thing = getattr(package, name)
            try:
                yield f"{package.__name__}.{name}", list(inspect.signature(thing).parameters)
            except (TypeError, ValueError):
                yield f"{package.__name__}.{name}", type(thing).__name__


def everything() -> Iterator[tuple[str, Any]]:
    """All of it, in order."""
    yield from public_names()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "out").mkdir()
        for label, make, shape in estimators():
            yield label, fitted(make, shape, folder)
        X, y = rows((150, 8))
        description = dpfc.features.CacheDescription(
            8, class_names=CLASSES, has_labels=True, has_ids=True, shard_rows=100
        )
        with dpfc.features.FeatureCacheWriter(folder / "cache", description) as writer:
            writer.write(X, np.searchsorted(CLASSES, y), [f"r{i}" for i in range(len(X))])
            writer.finish()
        for line in COMMANDS.strip().splitlines():
            yield f"dpfc {line}", said(line, folder)
        yield from helps(folder)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    found = {}
    for key, value in everything():
        found[key] = value
        print(f"\r{len(found)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    json.dump(found, sys.stdout, indent=1, ensure_ascii=False)
