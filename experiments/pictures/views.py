"""What pictures and reports of a study show: means a data set, curves, and runs in detail."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from dpfc.experiments.studies.runs import CEILING
from dpfc.experiments.studies.table import Group, best_settings, group_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from dpfc.accounting import ReleaseRecord

__all__ = [
    "Curve",
    "Panel",
    "budget_shares",
    "class_names",
    "curves",
    "is_wide",
    "label_sides",
    "light_rows",
    "means_panel",
    "setting_words",
    "spaced",
    "standard_error",
    "study_panels",
    "swept_parameters",
]

# Large where there are many classes, and needed of few runs.
_HEAVY = ("class_names", "per_class_accuracy", "confusion")
# More ticks than this on an axis run into each other.
_TICKS = 9
_LOG_SPAN = 20.0
# A label beside a point and the point itself, as parts of a small chart's width and height.
_LABEL_WIDTH, _LABEL_HEIGHT, _POINT = 0.32, 0.09, 0.035


class Panel(NamedTuple):
    """One data set with one backbone.

    Attributes
    ----------
    name : str
    groups : list of Group
        Of private methods; every ε and setting, averaged over seeds.
    best : list of Group
        Of each label and ε, the setting with the best mean.
    settings : dict of str to int
        By label, the most settings at one ε: what `best` was chosen from.
    ceiling : Group or None
        Logistic regression without privacy.
    examples : dict of str to mapping
        By label one whole row of the table: of the runs at the largest ε and their best setting,
        the one of median accuracy.
    """

    name: str
    groups: list[Group]
    best: list[Group]
    settings: dict[str, int]
    ceiling: Group | None
    examples: dict[str, Mapping[str, Any]]

    def epsilons(self) -> list[float]:
        """Finite budgets of private runs; a logarithmic axis has no room for ∞."""
        return sorted({group.epsilon for group in self.groups if math.isfinite(group.epsilon)})


class Curve(NamedTuple):
    """Accuracy of one method at one ε by the value of one parameter.

    Attributes
    ----------
    label : str
    epsilon : float
    points : list of (float, Group)
        By value; where other parameters vary as well, the best setting with that value.
    joined : bool
        Whether a line through the points says something: not where each has other values of
        other parameters too, as sampled settings do.
    """

    label: str
    epsilon: float
    points: list[tuple[float, Group]]
    joined: bool
    chosen_from: int


def means_panel(
    name: str,
    runs: Mapping[str, Mapping[float, Sequence[float]]],
    ceiling: tuple[str, float] | None = None,
) -> Panel:
    """Sum up runs that are not a study's, one setting a method and ε.

    Parameters
    ----------
    name : str
    runs : mapping of str to mapping of float to sequence of float
        For each method's name, accuracies in [0, 1] of its runs by ε.
    ceiling : (str, float), optional
        Name and accuracy of what is reached without privacy.
    """
    groups = [
        _mean(name, label, epsilon, values)
        for label, found in runs.items()
        for epsilon, values in found.items()
    ]
    top = None if ceiling is None else _mean(name, ceiling[0], math.inf, ceiling[1:])
    return Panel(name, groups, groups, dict.fromkeys(runs, 1), top, examples={})


def _mean(dataset: str, label: str, epsilon: float, values: Sequence[float]) -> Group:
    error = standard_error(values) if len(values) > 1 else None
    return Group(dataset, None, label, epsilon, "{}", fmean(values), error, None, len(values))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of some runs; 0 for one, which says nothing of it."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def light_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows without what grows with the classes; ``row`` is a row's place in the table."""
    rows: list[dict[str, Any]] = table.drop_columns(list(_HEAVY)).to_pylist()
    return [row | {"row": place} for place, row in enumerate(rows)]


def study_panels(table: pa.Table) -> list[Panel]:
    """Sum a study up, a panel a data set and backbone, in the table's order.

    Parameters
    ----------
    table : pyarrow.Table
        Of `results.load_results`.
    """
    places: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for row in light_rows(table):
        found = places.setdefault((row["dataset"], row["backbone"]), [])
        if row["status"] == "ok" and row["accuracy"] is not None:
            found.append(row)
    return [_panel(table, *place, rows) for place, rows in places.items()]


def _panel(
    table: pa.Table, dataset: str, backbone: str | None, rows: Sequence[dict[str, Any]]
) -> Panel:
    private = [row for row in rows if row["method"] != CEILING]
    groups = group_rows(private)
    best = best_settings(groups)
    ceilings = best_settings(group_rows(row for row in rows if row["method"] == CEILING))
    settings: dict[tuple[str, float], int] = {}
    for group in groups:
        place = (group.label, group.epsilon)
        settings[place] = settings.get(place, 0) + 1
    labels = dict.fromkeys(group.label for group in groups)
    return Panel(
        name=dataset if backbone is None else f"{dataset} ({backbone})",
        groups=groups,
        best=best,
        settings={
            label: max(n for (name, _), n in settings.items() if name == label) for label in labels
        },
        ceiling=max(ceilings, key=lambda group: group.accuracy, default=None),
        examples={label: _example(table, best, private, label) for label in labels},
    )


def _example(
    table: pa.Table, best: Sequence[Group], rows: Sequence[dict[str, Any]], label: str
) -> Mapping[str, Any]:
    """Pick a run that is neither the luckiest nor the unluckiest of its setting."""
    own = [group for group in best if group.label == label]
    group = max(own, key=lambda group: (math.isfinite(group.epsilon), group.epsilon))
    wanted = (label, group.epsilon, group.parameters)
    runs = [row for row in rows if (row["label"], row["epsilon"], row["parameters"]) == wanted]
    runs.sort(key=lambda row: row["accuracy"])
    place = runs[(len(runs) - 1) // 2]["row"]
    chosen: Mapping[str, Any] = table.slice(place, 1).to_pylist()[0]
    return chosen


# -- parameters ----------------------------------------------------------------------


def swept_parameters(panel: Panel) -> list[str]:
    """Names of numeric parameters that take two or more values for one method."""
    values: dict[tuple[str, str], set[float]] = {}
    for group in panel.groups:
        for name, value in json.loads(group.parameters).items():
            if _is_number(value):
                values.setdefault((name, group.label), set()).add(value)
    return sorted({name for (name, _), found in values.items() if len(found) > 1})


def curves(panel: Panel, parameter: str) -> list[Curve]:
    """Accuracy by the value of one parameter, a curve a method and finite ε."""
    found: dict[tuple[str, float], list[tuple[float, Group]]] = {}
    for group in panel.groups:
        value = json.loads(group.parameters).get(parameter)
        if _is_number(value) and math.isfinite(group.epsilon):
            found.setdefault((group.label, group.epsilon), []).append((value, group))
    return [
        _curve(label, epsilon, points)
        for (label, epsilon), points in found.items()
        if len({value for value, _ in points}) > 1
    ]


def _curve(label: str, epsilon: float, points: Sequence[tuple[float, Group]]) -> Curve:
    best: dict[float, Group] = {}
    for value, group in points:
        if value not in best or group.accuracy > best[value].accuracy:
            best[value] = group
    settings = [json.loads(group.parameters) for _, group in points]
    names = {name for setting in settings for name in setting}
    varying = [name for name in names if len({str(each.get(name)) for each in settings}) > 1]
    shared = Counter(value for value, _ in points).most_common(1)[0][1]
    return Curve(
        label,
        epsilon,
        points=sorted(best.items(), key=lambda point: point[0]),
        joined=len(varying) == 1 or shared > 1,
        chosen_from=shared,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# -- words and figures of single runs -------------------------------------------------


def setting_words(parameters: str) -> str:
    """Write a run's parameters for people; nothing where a study set none."""
    return ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in json.loads(parameters).items()
    )


def class_names(run: Mapping[str, Any], n_classes: int) -> list[str]:
    """Names for axes: the run's, made different from each other, or numbers from 0."""
    names = run["class_names"]
    if not names or len(names) != n_classes:
        return [str(code) for code in range(n_classes)]
    if len(set(names)) < len(names):
        return [f"{code}: {name}" for code, name in enumerate(names)]
    return list(names)


def budget_shares(run: Mapping[str, Any]) -> list[ReleaseRecord]:
    """Releases of a run's statement that have a share of μ²; none without a readable statement."""
    from dpfc.accounting import PrivacyStatement

    if run["statement"] is None:
        return []
    try:
        releases = PrivacyStatement.model_validate_json(run["statement"]).releases
    except ValueError:
        return []
    return [release for release in releases if release.share_of_budget is not None]


def spaced(epsilons: Sequence[float]) -> list[float]:
    """Keep, of sorted budgets, those that are far enough apart to be ticks of an axis."""
    kept = list(epsilons[:1])
    for epsilon in epsilons[1:]:
        if math.log(epsilon / kept[-1]) >= math.log(epsilons[-1] / epsilons[0]) / _TICKS:
            kept.append(epsilon)
    return kept


def is_wide(values: Sequence[float]) -> bool:
    """Whether values want a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) >= _LOG_SPAN


def label_sides(points: Sequence[tuple[float, float]]) -> list[str]:
    """Say on which side of each point a short label covers no other point and no other label.

    Parameters
    ----------
    points : sequence of (float, float)
        Of one chart, whose x axis is logarithmic where `is_wide` says so.

    Returns
    -------
    list of str
        "right", "left", or "" where there is room on neither side.
    """
    places = _places(points)
    taken = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in places]
    sides = []
    for own, (x, y) in enumerate(places):
        low, high = y - _LABEL_HEIGHT / 2, y + _LABEL_HEIGHT / 2
        boxes = {
            "right": (x + _POINT, low, x + _POINT + _LABEL_WIDTH, high),
            "left": (x - _POINT - _LABEL_WIDTH, low, x - _POINT, high),
        }
        others = [box for place, box in enumerate(taken) if place != own]
        free = [
            side
            for side, box in boxes.items()
            if box[0] >= -_POINT
            and box[2] <= 1 + _LABEL_WIDTH
            and not any(_overlap(box, other) for other in others)
        ]
        sides.append(free[0] if free else "")
        taken += [boxes[side] for side in free[:1]]
    return sides


def _places(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Bring points into the unit square, as a chart does."""
    columns = [[x for x, _ in points], [y for _, y in points]]
    if points and is_wide(columns[0]):
        columns[0] = [math.log(x) for x in columns[0]]
    scaled = [[(v - min(c)) / ((max(c) - min(c)) or 1.0) for v in c] for c in columns]
    return list(zip(*scaled, strict=True))


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
