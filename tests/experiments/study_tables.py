"""Hand-made tables of studies, in the format that `dpfc sweep` writes."""

import functools
import itertools
import json
import math

import pyarrow as pa
from statement_examples import planned, state

from dpfc.experiments.studies.store import results_schema

CLASSES = ["ant", "bee", "cow"]
EPSILONS = (0.1, 1.0, 8.0)
VERSIONS = json.dumps({"numpy": "2.4.6", "python": "3.11.7"})
_KEYS = itertools.count()


@functools.cache
def statement(epsilon=1.0, seeded=True):
    return state(planned(epsilon), seeded=seeded).to_json(indent=None)


def row(accuracy=0.8, **changes):
    """A finished, seeded run of DP-FC; or of what `changes` say."""
    hits = round(100 * (accuracy or 0))
    counts = [[hits, 100 - hits, 0], [0, hits, 100 - hits], [100 - hits, 0, hits]]
    epsilon = changes.get("epsilon", 1.0)
    seed = changes.get("seed", 0)
    return {
        "key": f"{next(_KEYS):016x}",
        "study": "first",
        "dataset": "digits",
        "backbone": None,
        "method": "fc",
        "label": "DP-FC",
        "epsilon": epsilon,
        "delta": 1e-5,
        "seed": seed,
        "parameters": "{}",
        "status": "ok",
        "error": None,
        "accuracy": accuracy,
        "class_names": CLASSES,
        "per_class_accuracy": [counts[code][code] / 100 for code in range(3)],
        "confusion": counts,
        "n_features": 64,
        "n_classes": 3,
        "seconds": 0.5,
        "private": seed is None,
        "statement": statement(epsilon, seed is not None) if epsilon < math.inf else None,
        "code": "abc123",
        "versions": VERSIONS,
        "finished": "2026-01-02T03:04:05+00:00",
        **changes,
    }


def ceiling(accuracy=0.95, **changes):
    """Logistic regression without privacy; like a sweep's, without confusion and statement."""
    nothing = dict.fromkeys(("seed", "statement", "confusion", "per_class_accuracy"))
    changes = {"method": "ceiling", "label": "not private", "epsilon": math.inf, **changes}
    return row(accuracy, **{**nothing, "private": False, **changes})


def failed(error="no memory", **changes):
    """A run that found nothing."""
    fields = ("accuracy", "class_names", "per_class_accuracy", "confusion", "n_features")
    nothing = dict.fromkeys((*fields, "n_classes", "seconds", "private", "statement"))
    return row(**{**nothing, "status": "failed", "error": error, **changes})


def study():
    """Two data sets, two methods, one of them with a grid of settings, three seeds, one failure."""
    rows = []
    for place, (dataset, backbone) in enumerate((("digits", None), ("wards", "timm/vit"))):
        for e, epsilon in enumerate(EPSILONS):
            for seed in range(3):
                base = 0.6 + 0.1 * e - 0.2 * place + 0.01 * seed
                at = {"dataset": dataset, "backbone": backbone, "epsilon": epsilon, "seed": seed}
                rows.append(row(base, seconds=0.5, **at))
                for strength in (0.01, 0.1, 1.0):
                    settings = json.dumps({"l2_regularization": strength})
                    at |= {"method": "ls", "label": "DP-LS", "parameters": settings}
                    # The middle one is the best.
                    rows.append(row(base - 0.05 + 0.02 * (strength == 0.1), seconds=0.1, **at))
        rows.append(ceiling(dataset=dataset, backbone=backbone))
    rows.append(failed("noise is larger than <all> of it", dataset="wards", backbone="timm/vit"))
    return rows


def table(*rows):
    """Make the table of these rows."""
    return pa.Table.from_pylist(list(rows), schema=results_schema())
