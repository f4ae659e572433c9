"""Test accuracy of every optimizer of `DPSGDClassifier` against its learning rate.

Run `python -m dpfc.experiments.benchmarks.optimizers`. Each optimizer runs with its default
learning rate times 0.001 to 1000, and all see the same budget, steps and rows. What is asked is
whether Mechanic spares the search for a rate, and whether Schedule-Free spares the schedule.
Seeds are used so that anyone can repeat it: models fitted this way are not private.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any

import numpy as np
import typer

from dpfc.experiments.benchmarks.common import DELTA
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import load_named

__all__ = ["METHODS", "MULTIPLIERS", "Job", "Method", "Table", "judgements", "main", "run_job"]

MULTIPLIERS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
# Public: the largest value that a pixel can have.
_SCALES = {"digits": 16.0, "mnist5k": 255.0}
_FIRST_RUN_SEED = 1_000_000  # added to a seed, for the run whose norms a second one uses


@dataclass(frozen=True)
class Method:
    """A line of the table: an optimizer, and what is set beside its learning rate."""

    label: str
    optimizer: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def _with_schedules(optimizer: str, schedules: Sequence[str]) -> list[Method]:
    plain = Method(optimizer, optimizer)
    return [plain, *(Method(f"{optimizer}, {s}", optimizer, {"schedule": s}) for s in schedules)]


METHODS: tuple[Method, ...] = (
    *_with_schedules("sgd", ("linear", "cosine", "refined")),
    Method("adam", "adam"),
    *_with_schedules("adamw", ("linear", "cosine")),
    Method("schedule-free-sgd", "schedule-free-sgd"),
    Method("schedule-free-adamw", "schedule-free-adamw"),
    Method("o2nc", "o2nc"),
    *(Method(f"mechanic({name})", name, {"mechanic": True}) for name in ("sgd", "adam", "adamw")),
)
_SCHEDULE_FREE = {"schedule-free-sgd": "sgd", "schedule-free-adamw": "adamw"}


@dataclass(frozen=True)
class Job:
    """One fit of the table."""

    data: str
    network: str
    n_steps: int
    sampling_probability: float
    method: Method
    epsilon: float
    multiplier: float
    seed: int


# Mean test accuracies, of every label, epsilon and multiplier.
Table = Mapping[tuple[str, float, float], float]


def run_job(job: Job) -> float:
    """Fit and test; a run whose weights diverge counts as a guess."""
    from dpfc import PrivacyWarning

    (named,) = load_named([job.data])
    data, scale = named.data, _SCALES[job.data]
    with warnings.catch_warnings():  # the table says that its runs are seeded
        warnings.simplefilter("ignore", PrivacyWarning)
        try:
            model = _fit(job, data, scale)
        except FloatingPointError:
            return 1.0 / data.n_classes
    return float(model.score(data.X_test / scale, data.y_test))


def _fit(job: Job, data: Data, scale: float) -> Any:
    """Fit once; for "refined" twice, with half of the budget each, as `_half` has it."""
    from dpfc import DPSGDClassifier
    from dpfc.full_models import OptimizerSettings

    rate = OptimizerSettings(name=job.method.optimizer).resolved_learning_rate
    model = DPSGDClassifier(
        job.network,
        epsilon=job.epsilon,
        delta=DELTA,
        classes=range(data.n_classes),
        n_samples=len(data.y),
        n_steps=job.n_steps,
        sampling_probability=job.sampling_probability,
        clipping="ghost",  # the fastest of three that give the same
        optimizer=job.method.optimizer,
        learning_rate=rate * job.multiplier,
        device="cpu",
        random_state=job.seed,
    )
    parameters = dict(job.method.parameters)
    if parameters.get("schedule") == "refined":
        model.set_params(epsilon=_half(job), schedule="linear")
        model.set_params(random_state=job.seed + _FIRST_RUN_SEED).fit(data.X / scale, data.y)
        model.set_params(random_state=job.seed, schedule_norms=model.gradient_norms_)
    return model.set_params(**parameters).fit(data.X / scale, data.y)


def _half(job: Job) -> float:
    """Give the ε of a run of which two, the second using the first, are within the job's ε."""
    import dp_accounting

    from dpfc.accounting import calibrate_noise_multiplier, compute_epsilon

    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon=job.epsilon,
        target_delta=DELTA,
        steps=2 * job.n_steps,
        sampling_probability=job.sampling_probability,
    )
    step = dp_accounting.PoissonSampledDpEvent(
        job.sampling_probability, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    return compute_epsilon(
        dp_accounting.SelfComposedDpEvent(step, job.n_steps),
        DELTA,
        neighboring_relation="add_or_remove_one",
    )


def judgements(table: Table, epsilon: float) -> list[str]:
    """Say in words what the table shows at one ε; differences are in points."""
    lines = []
    for name in ("sgd", "adam", "adamw"):
        best, rate = _best(table, (name,), epsilon)
        tuned = _row(table, f"mechanic({name})", epsilon)
        lost = {rate: 100 * (best - accuracy) for rate, accuracy in tuned.items()}
        within = sum(points <= 1.0 for points in lost.values())
        lines.append(
            f"Mechanic around {name}: {100 * min(tuned.values()):.1f} to "
            f"{100 * max(tuned.values()):.1f} over all rates; the best rate alone ({rate}) gives "
            f"{100 * best:.1f}. {_verdict(max(lost.values()))} the best over the whole range, at "
            f"{within} of {len(lost)} rates within 1 point."
        )
    for free, name in _SCHEDULE_FREE.items():
        labels = [m.label for m in METHODS if m.optimizer == name and "mechanic" not in m.label]
        accuracy = _row(table, free, epsilon)[1.0]
        default, label = max((_row(table, label, epsilon)[1.0], label) for label in labels)
        best, where = _best(table, labels, epsilon)
        lines.append(
            f"{free} at its default rate: {100 * accuracy:.1f}. {_verdict(100 * (best - accuracy))}"
            f" the best of all schedules and rates ({where}: {100 * best:.1f}); "
            f"{_verdict(100 * (default - accuracy)).lower()} the best schedule at the default rate "
            f"({label}: {100 * default:.1f})."
        )
    return lines


def _verdict(lost: float) -> str:
    if lost <= 0.0:
        return f"Above by {-lost:.1f}, and so within 1 point of"
    return f"Behind by {lost:.1f}: {'within' if lost <= 1.0 else 'NOT within'} 1 point of"


def _row(table: Table, label: str, epsilon: float) -> dict[float, float]:
    return {
        rate: value for (name, e, rate), value in table.items() if (name, e) == (label, epsilon)
    }


def _best(table: Table, labels: Sequence[str], epsilon: float) -> tuple[float, str]:
    return max(
        (accuracy, f"{label}, {rate:g} times its default")
        for label in labels
        for rate, accuracy in _row(table, label, epsilon).items()
    )


def _command(
    data: Annotated[str, typer.Option(help=f"One of {', '.join(_SCALES)}.")] = "digits",
    network: Annotated[str, typer.Option(help="Name of a network.")] = "mlp",
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")] = "1,8",
    seeds: Annotated[int, typer.Option(help="Runs a cell, seeded 0, 1, ….", min=1)] = 3,
    steps: Annotated[int, typer.Option(help="Of a fit.", min=1)] = 150,
    sampling: Annotated[float, typer.Option(help="Sampling probability.")] = 0.1,
    workers: Annotated[int, typer.Option(help="Processes, one thread each.", min=1)] = 2,
) -> None:
    """Print, as Markdown, test accuracies by optimizer and rate, and what they say.

    Example: python -m dpfc.experiments.benchmarks.optimizers --data mnist5k --network cnn
    """
    if data not in _SCALES:
        raise ValueError(f"--data takes {', '.join(_SCALES)}, got {data!r}.")
    budgets = parse_numbers(epsilons, "--epsilons")
    jobs = [
        Job(data, network, steps, sampling, method, epsilon, multiplier, seed)
        for epsilon, method, multiplier, seed in product(
            budgets, METHODS, MULTIPLIERS, range(seeds)
        )
    ]
    scores = _run(jobs, workers)
    for epsilon in budgets:
        print(f"\n{data}, {network}, ε = {epsilon:g}, δ = {DELTA:g}, {steps} steps:\n")
        print(_markdown(scores, epsilon))
        print()
        for line in judgements({cell: float(np.mean(v)) for cell, v in scores.items()}, epsilon):
            print(f"- {line}")


def _run(jobs: Sequence[Job], workers: int) -> dict[tuple[str, float, float], list[float]]:
    from dpfc.experiments.studies.loop import process_pool

    scores: dict[tuple[str, float, float], list[float]] = {}
    with process_pool(workers, 1) as pool:
        for done, (job, score) in enumerate(zip(jobs, pool.map(run_job, jobs), strict=True), 1):
            scores.setdefault((job.method.label, job.epsilon, job.multiplier), []).append(score)
            if done % 50 == 0:
                print(f"{done} of {len(jobs)} fits done", file=sys.stderr)
    return scores


def _markdown(scores: Mapping[tuple[str, float, float], list[float]], epsilon: float) -> str:
    """Means over seeds in percent, and the largest standard error of all of them."""
    lines = [
        "| optimizer | " + " | ".join(f"× {rate:g}" for rate in MULTIPLIERS) + " |",
        "|---|" + "---|" * len(MULTIPLIERS),
    ]
    errors = []
    for method in METHODS:
        cells = [scores[method.label, epsilon, rate] for rate in MULTIPLIERS]
        means = " | ".join(f"{100 * np.mean(cell):.1f}" for cell in cells)
        lines.append(f"| {method.label} | {means} |")
        errors += [np.std(c, ddof=1) / math.sqrt(len(c)) for c in cells if len(c) > 1]
    if errors:
        lines.append(
            f"\nTest accuracy in percent, mean of {len(cells[0])} seeds. Standard errors: half are "
            f"below {100 * np.median(errors):.1f}, the largest is {100 * max(errors):.1f}."
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
