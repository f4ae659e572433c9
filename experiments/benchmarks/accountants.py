"""Noise multipliers by accountant and ε, and the time of PLD against dp_accounting's own.

Run `python -m dpfc.experiments.benchmarks.accountants`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers

__all__ = ["main"]

_RELATIONS = ("add_or_remove_one", "replace_one")
_DELTA = 1e-5
# An event for which dp_accounting's PLD ends within a minute on the grid that ours needs.
_NOISE_MULTIPLIER, _SAMPLING_PROBABILITY = 2.0, 0.01


def compare(
    epsilons: Annotated[
        str, typer.Option(metavar="A,B,C", help="Budgets of the tables.")
    ] = "0.01,0.1,0.5,1,2,4,8,16",
    steps: Annotated[
        int, typer.Option(min=1, help="Poisson-sampled steps of the second table.")
    ] = 10_000,
    sampling_probability: Annotated[
        float, typer.Option(help="Sampling probability of the second table.")
    ] = 0.01,
) -> None:
    """Print noise multipliers by accountant, and how fast PLD is; needs no data."""
    budgets = parse_numbers(epsilons, "--epsilons")
    print(f"δ = {_DELTA:g}\n\nOne full-batch Gaussian release (the same for both relations)")
    _print_multipliers(budgets, ("exact", "pld", "rdp"), 1, 1.0, "add_or_remove_one")
    for relation in _RELATIONS:
        print(f"\n{steps:,} steps, Poisson sampling at {sampling_probability:g}, {relation}")
        _print_multipliers(budgets, ("pld", "rdp"), steps, sampling_probability, relation)
    for relation in _RELATIONS:
        _print_speed(relation, min(steps, 1000))


def _print_multipliers(
    budgets: Sequence[float],
    accountants: Sequence[str],
    steps: int,
    probability: float,
    relation: str,
) -> None:
    from dpfc.accounting import UnsupportedEventError
    from dpfc.accounting.calibration import calibrate_noise_multiplier

    print("ε      " + "".join(f"{name:>10}" for name in accountants) + "   ms (first)")
    for epsilon in budgets:
        cells, seconds = [], 0.0
        for name in accountants:
            began = time.perf_counter()
            try:
                z = calibrate_noise_multiplier(
                    target_epsilon=epsilon,
                    target_delta=_DELTA,
                    steps=steps,
                    sampling_probability=probability,
                    neighboring_relation=relation,
                    accountant=name,
                )
                cells.append(f"{z:10.5g}")
            except UnsupportedEventError:
                cells.append(f"{'-':>10}")
            if name == accountants[0]:
                seconds = time.perf_counter() - began
        print(f"{epsilon:<7g}{''.join(cells)}   {1000 * seconds:.1f}")


def _print_speed(relation: str, steps: int) -> None:
    """Time one epsilon by both, on grids of about the same error."""
    import dp_accounting
    from dp_accounting.pld import privacy_loss_distribution

    from dpfc.accounting import compute_epsilon

    gaussian = dp_accounting.GaussianDpEvent(_NOISE_MULTIPLIER)
    sampled = dp_accounting.PoissonSampledDpEvent(_SAMPLING_PROBABILITY, gaussian)
    event = dp_accounting.SelfComposedDpEvent(sampled, steps)

    def ours() -> float:
        return compute_epsilon(event, _DELTA, neighboring_relation=relation, accountant="pld")

    epsilon, own = _timed(ours)

    def peer() -> float:
        replaces = relation == "replace_one"
        pld = privacy_loss_distribution.from_gaussian_mechanism(
            # Under REPLACE_ONE it means the noise over half of the sensitivity.
            _NOISE_MULTIPLIER * (2 if replaces else 1),
            value_discretization_interval=epsilon / math.sqrt(steps) / 1000,
            sampling_prob=_SAMPLING_PROBABILITY,
            neighboring_relation=getattr(dp_accounting.NeighboringRelation, relation.upper()),
        )
        return float(pld.self_compose(steps).get_epsilon_for_delta(_DELTA))

    theirs, peer_seconds = _timed(peer)
    print(
        f"\n{steps:,} steps, z = {_NOISE_MULTIPLIER:g}, q = {_SAMPLING_PROBABILITY:g}, {relation}: "
        f"ε = {epsilon:.6f} in {own:.3f} s, dp_accounting {theirs:.6f} in {peer_seconds:.3f} s: "
        f"{peer_seconds / own:.0f} times as long"
    )


def _timed(run: Callable[[], float]) -> tuple[float, float]:
    """Return the value, and the seconds of the faster of two runs."""
    seconds = math.inf
    for _ in range(2):
        began = time.perf_counter()
        value = run()
        seconds = min(seconds, time.perf_counter() - began)
    return value, seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the arguments of the command line."""
    return run_command(compare, argv)


if __name__ == "__main__":
    sys.exit(main())
