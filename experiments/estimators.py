"""Names of the private classifiers on the command line, and their parameters as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc._support.suggestions import did_you_mean
from dpfc._support.validation import Choice, check

if TYPE_CHECKING:
    from dpfc import DPSGDClassifier
    from dpfc.features import FeatureCache
    from dpfc.linear.base import PrivateLinearClassifier

__all__ = [
    "ESTIMATORS",
    "LABELS",
    "NETWORK_METHOD",
    "STUDY_ESTIMATORS",
    "STUDY_LABELS",
    "fitted_report",
    "make_estimator",
    "make_grid",
    "make_network_classifier",
    "make_study_estimator",
    "parse_class_weight",
    "parse_classes",
]

# Of `--method`: last layers.
ESTIMATORS = {
    "fc": "DPFCClassifier",
    "ls": "DPLeastSquaresClassifier",
    "newton": "DPNewtonClassifier",
    "gd": "DPGradientClassifier",
}
LABELS = {"fc": "DP-FC", "ls": "DP-LS", "newton": "DP-Newton", "gd": "DP-GD"}
# Whole networks: `dpfc train`, and a method of studies.
NETWORK_METHOD = "dpsgd"
STUDY_ESTIMATORS = ESTIMATORS | {NETWORK_METHOD: "DPSGDClassifier"}
STUDY_LABELS = LABELS | {NETWORK_METHOD: "DP-SGD"}

# What has an option of its own, or is not a parameter of the mathematics.
_OPTIONS = {
    "epsilon": "--epsilon",
    "delta": "--delta",
    "classes": "--classes",
    "n_samples": "--n-samples",
    "neighboring_relation": "--neighboring-relation",
    "accountant": "--accountant",
    "ledger": "--ledger",
    "dataset": "--dataset",
    "random_state": "--seed",
    "public_features": "--public-features",
}
_TRAIN_OPTIONS = _OPTIONS | {
    "module": "--network",
    "n_steps": "--steps",
    "schedule_norms": "--schedule-norms",
    "checkpoint": "--checkpoint",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            "optimizer", "mechanic", "schedule", "learning_rate", "sampling_probability",
            "l2_clip_norm", "clipping", "augmentation", "augmentation_multiplicity", "ema_decay",
            "physical_batch_size", "device",
        )
    },
}  # fmt: skip
# Who watches; and what tokens are counted by, which features are not.
_UNSETTABLE = {"verbose", "vocabulary_size"}
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def make_estimator(
    method: str, settings: Iterable[str] = (), **parameters: Any
) -> PrivateLinearClassifier:
    """Build the classifier that a command line asks for.

    Parameters
    ----------
    method : str
        A key of `ESTIMATORS`.
    settings : iterable of str
        Further parameters as ``name=value``.
    **parameters
        Parameters that are typed already.

    Raises
    ------
    ValueError
        If the method or a parameter is unknown, or a value is of the wrong type.
    """
    import dpfc

    check("method", method, Choice(tuple(ESTIMATORS)))
    estimator: PrivateLinearClassifier = getattr(dpfc, ESTIMATORS[method])()
    estimator.set_params(**parameters)
    estimator.set_params(**_parse(settings, estimator.get_params(), ESTIMATORS[method]))
    return estimator


def make_network_classifier(settings: Iterable[str] = (), **parameters: Any) -> DPSGDClassifier:
    """Build the classifier that `dpfc train` fits, or a study under `NETWORK_METHOD`.

    Parameters
    ----------
    settings, **parameters
        As for `make_estimator`.

    Raises
    ------
    ValueError
        As there, and if there is no such network.
    """
    from dpfc import DPSGDClassifier
    from dpfc.full_models import NETWORKS

    name = parameters.get("module", NETWORKS[0])
    if name not in NETWORKS:
        hint = did_you_mean(name, NETWORKS, otherwise=f" It is one of {', '.join(NETWORKS)}.")
        raise ValueError(f"there is no network {name!r}.{hint}")
    estimator = DPSGDClassifier(**parameters)
    defaults = DPSGDClassifier().get_params()
    estimator.set_params(**_parse(settings, defaults, "DPSGDClassifier", options=_TRAIN_OPTIONS))
    return estimator


def make_study_estimator(
    method: str, **parameters: Any
) -> PrivateLinearClassifier | DPSGDClassifier:
    """Build the classifier of a method of studies, a key of `STUDY_ESTIMATORS`.

    Raises
    ------
    ValueError
        If a parameter is unknown.
    """
    if method == NETWORK_METHOD:
        return make_network_classifier(**parameters)
    return make_estimator(method, **parameters)


def make_grid(tries: Iterable[str], estimator: PrivateLinearClassifier) -> dict[str, list[Any]]:
    """Turn every ``name=a,b,c`` into a parameter and the values to try.

    Raises
    ------
    ValueError
        If a parameter is unknown or given twice, or a value is of the wrong type or twice.
    """
    grid: dict[str, list[Any]] = {}
    for attempt in tries:
        name, equals, text = attempt.partition("=")
        if not equals:
            raise ValueError(f"--try takes name=a,b,c, got {attempt!r}.")
        if name in grid:
            raise ValueError(f"--try {name} is given twice.")
        # The defaults are a fresh estimator's: what --set made of them tells no type.
        defaults, owner = type(estimator)().get_params(), type(estimator).__name__
        values = [
            _parse([f"{name}={value.strip()}"], defaults, owner, option="--try")[name]
            for value in text.split(",")
        ]
        if any(value in values[:position] for position, value in enumerate(values)):
            raise ValueError(f"--try {name} holds a value twice: {text!r}.")
        grid[name] = values
    return grid


def parse_classes(text: str | None, cache: FeatureCache) -> list[str] | list[int] | None:
    """Class labels as the cache has them: names, or integers where it names none.

    Raises
    ------
    ValueError
        If the labels are not whole numbers where they have to be.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if cache.class_names is not None:
        return parts
    try:
        return [int(part) for part in parts]
    except ValueError:
        raise ValueError(
            f"--classes must be whole numbers, as the labels of this cache are, got {text!r}."
        ) from None


def parse_class_weight(text: str | None, cache: FeatureCache) -> Mapping[Any, float] | str | None:
    """Weights of classes as ``NAME=WEIGHT,…``, or "balanced"; names as the cache has them.

    Raises
    ------
    ValueError
        If it is neither, or a class is named twice.
    """
    if text is None or text == "balanced":
        return text
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        weights = [float(weight) for _, _, weight in parts]
    except ValueError:
        weights = []
    if not weights or not all(equals for _, equals, _ in parts):
        raise ValueError(f"--class-weight takes balanced or NAME=WEIGHT,…, got {text!r}.")
    names = parse_classes(",".join(name for name, _, _ in parts), cache) or []
    if len(set(names)) < len(names):
        raise ValueError(f"--class-weight names a class twice: {text!r}.")
    return dict(zip(names, weights, strict=True))


def _parse(
    settings: Iterable[str],
    defaults: Mapping[str, Any],
    owner: str,
    option: str = "--set",
    options: Mapping[str, str] = _OPTIONS,
) -> dict[str, Any]:
    """Turn ``name=value`` into typed parameters; some have `options` of their own."""
    known = sorted(set(defaults) - set(options) - _UNSETTABLE)
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{option} takes name=value, got {setting!r}.")
        if name in options:
            raise ValueError(f"{option} {name} is not needed: use {options[name]}.")
        if name not in known:
            hint = did_you_mean(name, known, otherwise=f" It has {', '.join(known)}.")
            raise ValueError(f"{owner} has no parameter {name!r}.{hint}")
        if name in parsed:
            raise ValueError(f"{option} {name} is given twice.")
        parsed[name] = _typed(name, text, defaults[name])
    return parsed


def _typed(name: str, text: str, default: object) -> Any:
    """Read a value as the type that the parameter's default has."""
    if isinstance(default, bool):
        if text.lower() not in _FLAGS:
            raise ValueError(f"{name} must be true or false, got {text!r}.")
        return _FLAGS[text.lower()]
    if (default is None or isinstance(default, str)) and text.lower() == "none":
        return None  # the estimator knows whether it may be
    # Words ("auto") may stand where numbers are meant; the estimator knows which are allowed.
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if isinstance(default, int | float):
        raise ValueError(f"{name} must be a number, got {text!r}.")
    return text


def fitted_report(command: str, model: Any, out: Path, **chosen: str) -> dict[str, Any]:
    """What `command` prints of a fitted model with --json; `chosen` names what was asked for.

    Everything in it may be published; the number of rows and the time are not among it.
    """
    return {
        "command": command,
        "model": str(out),
        **chosen,
        "estimator": type(model).__name__,
        "n_features": model.n_features_in_,
        "classes": model.classes_,
        "privacy": model.privacy_.model_dump(mode="json"),
    }
