"""Runs of the accuracy benchmark, summed up in a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dpfc.experiments.benchmarks.common import DELTA, NOTE
from dpfc.experiments.pictures.views import Panel, means_panel

__all__ = [
    "CEILING",
    "OURS",
    "SEARCH_SEED",
    "Cell",
    "Lead",
    "Results",
    "accuracy_panels",
    "gap_closed",
    "leads",
    "make_results",
    "to_markdown",
]

CEILING = "ceiling"
OURS = "fc"
# Runs with this seed or a larger one chose a setting. They are not what it is judged by: the best
# of many settings is partly the one with the luckiest noise, which no method should be paid for.
SEARCH_SEED = 10_000
# Where the best peer is this close to the ceiling there is no gap to share out.
_SMALLEST_GAP = 0.01
_GAP_EPSILONS = 1.0


# As `RunStore` keeps it.
Record = Mapping[str, Any]


class Cell(NamedTuple):
    """The best setting of one method at one ε, and its accuracies by seed."""

    setting: str
    source: str
    accuracies: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(list(self.accuracies.values())))

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None for one run."""
        return _standard_error(list(self.accuracies.values()))


class Lead(NamedTuple):
    """DP-FC with defaults against the best peer: the mean difference and its standard error."""

    data: str
    epsilon: float
    peer: str
    difference: float
    standard_error: float | None
    gap_closed: float | None


# By data set, method and ε.
Results = Mapping[tuple[str, str, float], Cell]


def make_results(records: Iterable[Record]) -> dict[tuple[str, str, float], Cell]:
    """Choose for every method and ε the setting with the most seeds, then the best mean.

    Runs that chose a setting do not count. Of runs with different code or different rows under
    one name, those that ended last count.
    """
    found: dict[tuple[str, str, float], dict[tuple[str, str], dict[str, dict[int, float]]]] = {}
    last: dict[tuple[str, str, float], tuple[str, str]] = {}
    for run in sorted(records, key=lambda record: record["finished"]):
        if run["status"] != "ok" or run["seed"] >= SEARCH_SEED:
            continue
        place = run["dataset"], run["method"], float(run["epsilon"])
        last[place] = version = run["versions"]["rows"], run["code"]
        settings = found.setdefault(place, {}).setdefault(version, {})
        setting = json.dumps(run["parameters"], sort_keys=True)
        settings.setdefault(setting, {})[run["seed"]] = run["accuracy"]
    results = {}
    for place, versions in found.items():
        version = last[place]
        cells = [Cell(text, version[1], seeds) for text, seeds in versions[version].items()]
        results[place] = max(cells, key=lambda cell: (len(cell.accuracies), cell.mean))
    return results


def leads(results: Results, peers: Iterable[str]) -> list[Lead]:
    """Compare DP-FC with the peer whose mean is best, seed by seed, at every data set and ε."""
    peers = list(peers)
    found = []
    for data, method, epsilon in results:
        rivals = [peer for peer in peers if (data, peer, epsilon) in results]
        if method != OURS or not rivals:
            continue
        best = max(rivals, key=lambda peer: results[data, peer, epsilon].mean)
        ours, theirs = results[data, OURS, epsilon], results[data, best, epsilon]
        seeds = sorted(set(ours.accuracies) & set(theirs.accuracies))
        if not seeds:
            continue
        differences = [ours.accuracies[seed] - theirs.accuracies[seed] for seed in seeds]
        difference = float(np.mean(differences))
        top = results.get((data, CEILING, math.inf))
        gap = -math.inf if top is None else top.mean - theirs.mean
        share = difference / gap if gap >= _SMALLEST_GAP else None
        found.append(Lead(data, epsilon, best, difference, _standard_error(differences), share))
    return found


def gap_closed(found: Iterable[Lead]) -> float | None:
    """Mean share of the gap between best peer and ceiling that DP-FC closes, at ε <= 1."""
    shares = [
        lead.gap_closed
        for lead in found
        if lead.epsilon <= _GAP_EPSILONS and lead.gap_closed is not None
    ]
    return float(np.mean(shares)) if shares else None


def accuracy_panels(results: Results, labels: Mapping[str, str]) -> list[Panel]:
    """Means for a picture, a panel a data set; none of data sets without private runs."""
    panels = []
    for data in dict.fromkeys(data for data, _, _ in results):
        runs = {
            label: {
                epsilon: [*results[data, method, epsilon].accuracies.values()]
                for epsilon in _epsilons(results, data)
                if (data, method, epsilon) in results
            }
            for method, label in labels.items()
            if method != CEILING
        }
        top = results.get((data, CEILING, math.inf))
        ceiling = None if top is None else (labels[CEILING], top.mean)
        if any(runs.values()):
            panels.append(means_panel(data, runs, ceiling))
    return panels


def to_markdown(
    results: Results,
    labels: Mapping[str, str],
    peers: Sequence[str],
    notes: Sequence[str] = (),
    variations: Sequence[str] = (),
) -> str:
    """Write the tables: one a data set, then DP-FC against the best peer.

    Parameters
    ----------
    results : mapping
        Of `make_results`.
    labels : mapping of str to str
        Words for every method, in the order of the rows.
    peers : sequence of str
        The methods that DP-FC is compared with.
    notes : sequence of str
        Further lines, such as what was left out.
    variations : sequence of str
        Methods that nobody proposed: compared with in a line of their own.
    """
    found, everyone = leads(results, peers), [*peers, *variations]
    parts = ["# Accuracy\n", _legend(results)]
    for data in dict.fromkeys(data for data, _, _ in results):
        parts += [f"## {data}\n", _data_table(results, data, labels), ""]
        parts += [_best_settings(results, data, labels, everyone)]
    parts += ["## DP-FC with default parameters against the best peer\n", _leads_table(found)]
    parts += ["", _totals(found)]
    if any(method in variations for _, method, _ in results):
        names = ", ".join(labels[name] for name in variations)
        parts += [f"\nWith {names} among the peers:\n", _totals(leads(results, everyone))]
    parts += [f"- {note}" for note in notes]
    return "\n".join(parts).rstrip() + "\n"


def _standard_error(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _legend(results: Results) -> str:
    sources = sorted({cell.source for cell in results.values()})
    return (
        f"Test accuracy in percent, mean ± standard error over seeds, δ = {DELTA:g}, add or\n"
        "remove one row. dpfc runs with default parameters; each peer with the best of many\n"
        "settings, chosen on the test rows at each ε by runs with other noise. Peers are\n"
        "simulated. All runs are\n"
        f"{NOTE}. Code: {', '.join(sources) or 'none'}.\n"
    )


def _epsilons(results: Results, data: str) -> list[float]:
    return sorted({e for name, _, e in results if name == data and e != math.inf})


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(first: str, epsilons: Sequence[float]) -> list[str]:
    titles = [f"ε = {epsilon:g}" for epsilon in epsilons]
    return [_row([first, *titles]), "|---" * (len(epsilons) + 1) + "|"]


def _data_table(results: Results, data: str, labels: Mapping[str, str]) -> str:
    epsilons = _epsilons(results, data)
    most = max(
        (len(c.accuracies) for (name, _, _), c in results.items() if name == data), default=0
    )
    lines = _head("method", epsilons)
    for method, label in labels.items():
        cells = [results.get((data, method, epsilon)) for epsilon in epsilons]
        if any(cells):
            lines.append(_row([label, *(_text(cell, most) for cell in cells)]))
    top = results.get((data, CEILING, math.inf))
    if top is not None:
        lines.append(f"\nNot private, logistic regression (ceiling): {100 * top.mean:.2f}.")
    return "\n".join(lines)


def _text(cell: Cell | None, most: int) -> str:
    if cell is None:
        return "–"
    error = "" if cell.standard_error is None else f" ± {100 * cell.standard_error:.2f}"
    fewer = f" (n = {len(cell.accuracies)})" if len(cell.accuracies) < most else ""
    return f"{100 * cell.mean:.2f}{error}{fewer}"


def _best_settings(
    results: Results, data: str, labels: Mapping[str, str], peers: Sequence[str]
) -> str:
    lines = ["<details><summary>best setting of each peer</summary>\n"]
    for peer in peers:
        for epsilon in _epsilons(results, data):
            if (cell := results.get((data, peer, epsilon))) is not None:
                words = [f"{name} {_value(v)}" for name, v in json.loads(cell.setting).items()]
                lines.append(f"- {labels[peer]}, ε = {epsilon:g}: {', '.join(words)}")
    return "\n".join([*lines, "\n</details>\n"])


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _leads_table(found: Sequence[Lead]) -> str:
    epsilons = sorted({lead.epsilon for lead in found})
    by_key = {(lead.data, lead.epsilon): lead for lead in found}
    lines = [
        "Difference in points, with the standard error of the differences seed by seed; in",
        "brackets the best peer.\n",
        *_head("data set", epsilons),
    ]
    for data in dict.fromkeys(lead.data for lead in found):
        cells = [_lead_text(by_key.get((data, epsilon))) for epsilon in epsilons]
        lines.append(_row([data, *cells]))
    return "\n".join(lines)


def _lead_text(lead: Lead | None) -> str:
    if lead is None:
        return "–"
    error = "" if lead.standard_error is None else f" ± {100 * lead.standard_error:.2f}"
    return f"{100 * lead.difference:+.2f}{error} ({lead.peer})"


def _totals(found: Sequence[Lead]) -> str:
    if not found:
        return "Nothing to compare yet.\n"
    mean = float(np.mean([lead.difference for lead in found]))
    won = sum(lead.difference > 0 for lead in found)
    lines = [
        f"- Average lead: {100 * mean:+.2f} points over {len(found)} pairs of data set and ε; "
        f"ahead in {won}."
    ]
    closed = gap_closed(found)
    if closed is not None:
        lines.append(
            f"- Share of the gap between the best peer and the ceiling that is closed, mean over "
            f"ε <= {_GAP_EPSILONS:g} where the gap is at least {100 * _SMALLEST_GAP:g} point: "
            f"{closed:.0%}."
        )
    return "\n".join(lines)
