"""`DPSGDClassifier` beside Opacus driven by hand: the same weights after the same steps, and time.

Run `python -m dpfc.experiments.benchmarks.opacus_parity`. Both sides get the same network, initial
weights, Poisson batches, noise and learning rate, so that their weights may differ by rounding
alone: Opacus divides by a gradient's length plus 1e-6, we multiply by a little less than C.
Noise is drawn beforehand, and its drawing is in nobody's time. Times are processor time of one
thread, which other processes on the machine disturb least.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Protocol
from unittest.mock import patch

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from dpfc.accounting import PrivacyPlan
from dpfc.experiments.cli.console import run_command
from dpfc.full_models.augmentation import Augmentation
from dpfc.full_models.dp_sgd.clipping import CLIPPINGS, make_clipped_sums
from dpfc.full_models.dp_sgd.mechanism import GRADIENT, GradientMechanism
from dpfc.full_models.dp_sgd.rows import ModuleRows
from dpfc.full_models.networks.factory import make_network
from dpfc.full_models.optimizers.factory import OptimizerSettings, make_optimizer
from dpfc.mechanism.private_run import PrivateRun

__all__ = ["PEERS", "Comparison", "Setup", "compare", "main", "make_setup"]

PEERS = {"hooks": "hooks", "functorch": "functorch", "ghost": "fast gradient clipping"}
_CLIP_NORM = 1.0
_EPSILON, _DELTA = 8.0, 1e-5
# Where two inputs of a max pool differ by less than rounding, either may win, and a step's gradient
# jumps by 1e-5. At a low rate that stays below what is compared.
_RATES = {"mlp": 0.2, "cnn": 0.01}


@dataclass(frozen=True)
class Setup:
    """All that both sides share.

    Attributes
    ----------
    draws : list of ndarray of bool
        Rows of each step's batch; some batches may be empty.
    normals : list of ndarray
        Standard normal noise of each step, all parameters as one vector.
    n_samples : int
        Public number of rows; it times the sampling probability is what sums are divided by.
    """

    network: str
    rows: ModuleRows
    plan: PrivacyPlan
    n_samples: int
    draws: list[NDArray[np.bool_]]
    normals: list[NDArray[np.float64]]
    settings: OptimizerSettings

    @property
    def expected_batch_size(self) -> float:
        """Of a mean gradient."""
        return self.plan[GRADIENT].sampling_probability * self.n_samples

    def make_network(self) -> torch.nn.Module:
        """Make the network; the same weights every time."""
        network = make_network(
            self.network, input_shape=tuple(self.rows.X.shape[1:]), n_classes=10, seed=0
        )
        return network.train()


def make_setup(
    network: str,
    X: torch.Tensor,
    codes: torch.Tensor,
    *,
    steps: int,
    sampling_probability: float,
    n_samples: int | None = None,
    empty: tuple[int, ...] = (),
    learning_rate: float | None = None,
) -> Setup:
    """Draw batches and noise, for plain SGD at ε = 8.

    `n_samples` is the stated number of rows (None: the true one), `empty` names steps whose batch
    is to be empty, and `learning_rate` is 0.2 for "mlp" and 0.01 for "cnn" where it is None.
    """
    stated = len(codes) if n_samples is None else n_samples
    rate = learning_rate or _RATES[network]
    generator = np.random.default_rng(0)
    draws = [generator.random(len(codes)) < sampling_probability for _ in range(steps)]
    for step in empty:
        draws[step][:] = False
    setup = Setup(
        network,
        ModuleRows(X, codes),
        _plan(steps, sampling_probability, stated),
        stated,
        draws,
        [],
        OptimizerSettings("sgd", learning_rate=rate, momentum=0.0),
    )
    entries = sum(p.numel() for p in setup.make_network().parameters())
    setup.normals.extend(generator.standard_normal(entries) for _ in range(steps))
    return setup


def _plan(steps: int, sampling_probability: float, n_samples: int) -> PrivacyPlan:
    from dpfc import DPSGDClassifier

    return DPSGDClassifier(
        epsilon=_EPSILON,
        delta=_DELTA,
        n_samples=n_samples,
        n_steps=steps,
        sampling_probability=sampling_probability,
    ).privacy_plan()


class _Trainer(Protocol):
    """One side: `run` takes the steps of a range."""

    network: torch.nn.Module

    def run(self, steps: range) -> None: ...


@dataclass
class _Script:
    """A noise source that plays back a setup's batches and noise."""

    setup: Setup
    description: str = "made beforehand"
    reproducible: bool = True
    steps: dict[str, int] = field(default_factory=lambda: {"draws": 0, "normals": 0})

    def rounded_gaussian(self, sigma: float, size: int) -> NDArray[np.int64]:
        self.steps["normals"] += 1
        return np.rint(sigma * self.setup.normals[self.steps["normals"] - 1]).astype(np.int64)

    def random_bytes(self, size: int) -> bytes:
        return bytes(size)  # as below: nothing is drawn but batches and noise

    def uniform(self, size: int) -> NDArray[np.float64]:
        return np.zeros(size)  # seeds augmentation and dropout, of which there is none

    def bernoulli(self, probability: float, size: int) -> NDArray[np.bool_]:
        self.steps["draws"] += 1
        return self.setup.draws[self.steps["draws"] - 1]


class _Ours:
    """What `DPSGDClassifier.fit` runs for each step."""

    def __init__(self, setup: Setup, clipping: str):
        self.network = setup.make_network()
        sums = make_clipped_sums(clipping, self.network, _CLIP_NORM)
        self._mechanism = GradientMechanism(
            setup.rows,
            sums,
            PrivateRun(_Script(setup), setup.plan),
            n_samples=setup.n_samples,
            augmentation=Augmentation(),
            physical_batch_size=len(setup.rows),  # one pass a step, as Opacus makes
            device=torch.device("cpu"),
        )
        self.noise_scale = self._mechanism.gradient_noise() * setup.expected_batch_size
        self._rule = make_optimizer(
            setup.settings,
            sums.parameters,
            n_steps=len(setup.draws),
            uniform=lambda: 0.0,
        )

    def run(self, steps: range) -> None:
        for _ in steps:
            self._mechanism.release_gradient()
            self._rule.step()


class _Opacus:
    """Opacus' own classes, with batches handed over and noise played back."""

    def __init__(self, setup: Setup, clipping: str, noise_scale: float):
        self._setup, self._clipping, self._scale = setup, clipping, noise_scale
        self.network = setup.make_network()
        self._criterion: Any = torch.nn.CrossEntropyLoss()
        sgd = torch.optim.SGD(
            self.network.parameters(), lr=setup.settings.resolved_learning_rate, momentum=0.0
        )
        self._wrapped, self._optimizer = _wrap(self.network, sgd, setup, clipping)
        if clipping == "ghost":
            from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

            self._criterion = DPLossFastGradientClipping(
                self._wrapped, self._optimizer, self._criterion
            )

    def run(self, steps: range) -> None:
        vectors = [self._setup.normals[step] for step in steps]
        with _played_back(vectors, self._scale):
            for step in steps:
                self._optimizer.zero_grad()
                self._gradients(torch.from_numpy(self._setup.draws[step]).nonzero()[:, 0])
                self._optimizer.step()

    def _gradients(self, places: torch.Tensor) -> None:
        if len(places) == 0 and self._clipping == "functorch":
            # Its functorch rule stops at empty batches of images (groups=0 in a convolution).
            for p in self.network.parameters():
                p.grad_sample = p.new_zeros((0, *p.shape))  # type: ignore[attr-defined]
            return
        X, codes = self._setup.rows.take(places, torch.device("cpu"))
        self._criterion(self._wrapped(X), codes).backward()


def _wrap(
    network: torch.nn.Module, sgd: torch.optim.Optimizer, setup: Setup, clipping: str
) -> tuple[Any, Any]:
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping

    common: dict[str, Any] = {
        "noise_multiplier": setup.plan[GRADIENT].noise_multiplier,
        "max_grad_norm": _CLIP_NORM,
        "expected_batch_size": setup.expected_batch_size,
        "loss_reduction": "mean",
    }
    if clipping == "ghost":
        return (
            GradSampleModuleFastGradientClipping(
                network, loss_reduction="mean", max_grad_norm=_CLIP_NORM
            ),
            DPOptimizerFastGradientClipping(sgd, **common),
        )
    wrapped = GradSampleModule(
        network, loss_reduction="mean", force_functorch=clipping == "functorch"
    )
    return wrapped, DPOptimizer(sgd, **common)


@contextmanager
def _played_back(vectors: list[NDArray[np.float64]], scale: float) -> Iterator[None]:
    """Let Opacus take its noise, parameter by parameter, from vectors that were drawn before."""
    left, later = torch.empty(0, dtype=torch.float64), iter(vectors)

    def next_part(std: float, reference: torch.Tensor, **_: Any) -> torch.Tensor:
        nonlocal left
        if len(left) == 0:
            left = torch.from_numpy(next(later))
        part, left = left[: reference.numel()], left[reference.numel() :]
        return (part * scale).view_as(reference).to(reference)

    with (
        patch("opacus.optimizers.optimizer._generate_noise", next_part),
        patch("opacus.optimizers.optimizer_fast_gradient_clipping._generate_noise", next_part),
    ):
        yield


class Comparison(NamedTuple):
    """Largest difference of a weight at the end, and processor seconds a step of either side."""

    difference: float
    ours: float
    opacus: float


def compare(setup: Setup, clipping: str) -> Comparison:
    """Run both sides, taking turns for half of the steps each: ours, theirs, theirs, ours."""
    with warnings.catch_warnings():
        # Rows need no gradient of their own, and Opacus' hooks know what to do then.
        warnings.simplefilter("ignore", UserWarning)
        ours = _Ours(setup, clipping)
        opacus = _Opacus(setup, clipping, ours.noise_scale)
        n_steps = len(setup.draws)
        first, second = range(n_steps // 2), range(n_steps // 2, n_steps)
        seconds = [
            _seconds(trainer, steps)
            for trainer, steps in ((ours, first), (opacus, first), (opacus, second), (ours, second))
        ]
    difference = max(
        float((a - b).detach().abs().max())
        for a, b in zip(ours.network.parameters(), opacus.network.parameters(), strict=True)
    )
    return Comparison(
        difference, (seconds[0] + seconds[3]) / n_steps, (seconds[1] + seconds[2]) / n_steps
    )


def _seconds(trainer: _Trainer, steps: range) -> float:
    began = time.process_time()
    trainer.run(steps)
    return time.process_time() - began


def _rows(network: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits for "mlp"; made-up pixels of 28 x 28 for what takes images."""
    if network == "mlp":
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        return torch.from_numpy(X / 16.0).float(), torch.from_numpy(y)
    generator = torch.Generator().manual_seed(0)
    X = torch.rand((2000, 1, 28, 28), generator=generator)
    return X, torch.randint(10, (2000,), generator=generator)


def _command(
    networks: Annotated[str, typer.Option(metavar="N,N,…", help="Of cnn, mlp.")] = "mlp,cnn",
    batch: Annotated[int, typer.Option(help="Expected rows of a batch.", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="Of a run.", min=2)] = 50,
    repeats: Annotated[int, typer.Option(help="The median of so many runs counts.", min=1)] = 5,
) -> None:
    """Print, as Markdown, how far weights are apart and how long a step takes."""
    torch.set_num_threads(1)
    print("| network | clipping | largest difference | dpfc, ms | Opacus, ms | ratio |")
    print("|---|---|---|---|---|---|")
    for network in networks.split(","):
        if network not in ("cnn", "mlp"):
            raise ValueError(f"--networks takes cnn and mlp, got {network!r}.")
        X, codes = _rows(network)
        setup = make_setup(
            network,
            X,
            codes,
            steps=steps,
            sampling_probability=batch / len(codes),
            empty=(steps // 2,),
        )
        for clipping in CLIPPINGS:
            runs = [compare(setup, clipping) for _ in range(repeats)]
            ours, opacus, ratio = (
                statistics.median(values)
                for values in zip(
                    *((r.ours, r.opacus, r.ours / r.opacus) for r in runs), strict=True
                )
            )
            print(
                f"| {network} | {clipping} / {PEERS[clipping]} | "
                f"{max(run.difference for run in runs):.1e} | {1e3 * ours:.1f} | "
                f"{1e3 * opacus:.1f} | {ratio:.2f} |"
            )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
