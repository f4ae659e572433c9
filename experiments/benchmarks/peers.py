"""What other people's private linear classifiers reach; simulated, to compare with.

Sums are plain float32 and noise comes from NumPy's seeded generator: nothing here is a private
release. Every peer is given more than it has in practice: its settings are chosen on the test
rows, exact row counts and mean lengths are used for free, and the accounting is exact except
where a peer's own accounting is what is compared (`peers_paper`).

References
----------
Panda, Tang, Nasr, Mahloujifar, Sehwag, Mittal (2024), A New Linear Scaling Rule for Private
Adaptive Hyperparameter Optimization, ICML (DP-RAFT).
"""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from dpfc.accounting import gaussian_mu
from dpfc.experiments.benchmarks.common import DELTA
from dpfc.experiments.studies.data import Data

__all__ = [
    "PEERS",
    "STEP_OVERHEAD",
    "Head",
    "Noise",
    "Peer",
    "Rows",
    "Setting",
    "clipped_residual",
    "exact_mu",
    "gradient_work",
    "noise_scale",
    "search",
    "setting_key",
]

Setting = Mapping[str, Any]

_KEPT = 8  # intermediate results, the largest of them K matrices of d² each
_STAGES = 4  # of the search: one, two and three places, and pairs
# What a step costs beside its arithmetic, as floating-point operations.
STEP_OVERHEAD = 1e7


class Rows:
    """Rows of a data set as the peers see them, and sums of them that hold no noise.

    Parameters
    ----------
    data : Data

    Attributes
    ----------
    labels : Tensor of shape (n_samples,)
    n_samples, n_features, n_classes : int
    """

    def __init__(self, data: Data):
        self._train, self._test = torch.from_numpy(data.X), torch.from_numpy(data.X_test)
        self.labels = torch.from_numpy(data.y).long()
        self._test_labels = torch.from_numpy(data.y_test).long()
        self.n_samples: int = data.X.shape[0]
        self.n_features: int = data.X.shape[1]
        self.n_classes = data.n_classes
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    @cached_property
    def unit(self) -> torch.Tensor:
        """Training rows scaled to length 1; zero rows stay zero."""
        return torch.nn.functional.normalize(self._train)

    @cached_property
    def _unit_test(self) -> torch.Tensor:
        return torch.nn.functional.normalize(self._test)

    @cached_property
    def _mean_length(self) -> float:
        return float(self._train.norm(dim=1).mean())

    @cached_property
    def level(self) -> torch.Tensor:
        """Training rows over their mean length, one number for all: lengths still differ."""
        return self._train / self._mean_length

    @cached_property
    def gram(self) -> torch.Tensor:
        """Σ x xᵀ of unit rows, shape (n_features, n_features)."""
        return self.unit.T @ self.unit

    @cached_property
    def counts(self) -> torch.Tensor:
        """Rows a class, shape (n_classes,)."""
        return torch.bincount(self.labels, minlength=self.n_classes).float()

    @cached_property
    def class_sums(self) -> torch.Tensor:
        """Σ y xᵀ of unit rows, shape (n_classes, n_features)."""
        one_hot = torch.nn.functional.one_hot(self.labels, self.n_classes).float()
        return one_hot.T @ self.unit

    @cached_property
    def class_grams(self) -> torch.Tensor:
        """Σ y ⊗ x xᵀ of unit rows, shape (n_classes, n_features, n_features)."""
        parts = (self.unit[self.labels == k] for k in range(self.n_classes))
        return torch.stack([part.T @ part for part in parts])

    def keep(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Give what `make` gave for this key; a few of them are kept."""
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def accuracy(self, head: Head) -> float:
        """Share of test rows whose largest score is their class's."""
        rows = self._unit_test if head.rows == "unit" else self._test / self._mean_length
        scores = rows @ head.weights.T + head.intercept
        return float((scores.argmax(dim=1) == self._test_labels).double().mean())


class Head(NamedTuple):
    """A linear classifier on ``unit`` or ``level`` rows: weights (K, d), intercept (K,)."""

    rows: str
    weights: torch.Tensor
    intercept: torch.Tensor


class Noise:
    """Gaussian noise of one run, a stream a release: settings meet the same draws.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int):
        self.seed = seed
        self._streams: dict[str, np.random.Generator] = {}

    def add(
        self, name: str, exact: torch.Tensor, standard_deviation: float, *, symmetric: bool = False
    ) -> torch.Tensor:
        """Add independent noise; of symmetric matrices, its symmetric part (N + Nᵀ)/2."""
        if name not in self._streams:
            key = (self.seed, zlib.crc32(name.encode()))
            self._streams[name] = np.random.default_rng(key)
        draws = self._streams[name].standard_normal(tuple(exact.shape), dtype=np.float32)
        noise = standard_deviation * torch.from_numpy(draws)
        return exact + ((noise + noise.mT) / 2 if symmetric else noise)


@dataclass(frozen=True)
class Peer:
    """A method that dpfc is compared with, and the settings that are tried for it.

    Attributes
    ----------
    name, label : str
        On the command line, and in tables.
    axes : mapping of str to tuple
        Values of every setting; numbers in order.
    starts : tuple of mapping of str to value
        Settings that the search starts from, beside the best one of the last ε: the first for
        weak noise, the last for strong noise.
    fit : callable
        Takes rows, setting, ε and noise; gives the head.
    work : callable
        Takes rows and setting; about how many floating-point operations a fit has.
    left_out : callable
        Takes rows; says why the peer does not run on them, or gives None.
    max_settings : int
        Tried at one ε, at most.
    published : bool
        Whether others propose it. A variation of ours is reported beside the peers.
    """

    name: str
    label: str
    axes: Mapping[str, tuple[Any, ...]]
    starts: tuple[Setting, ...]
    fit: Callable[[Rows, Setting, float, Noise], Head]
    work: Callable[[Rows, Setting], float]
    left_out: Callable[[Rows], str | None] = lambda rows: None
    max_settings: int = 120
    published: bool = True

    def run(self, rows: Rows, setting: Setting, epsilon: float, seed: int) -> float:
        """Test accuracy of one fit."""
        return rows.accuracy(self.fit(rows, setting, epsilon, Noise(seed)))


def exact_mu(epsilon: float) -> float:
    """Give μ of the exact Gaussian accounting at δ = 1e-5; inf for ε = inf."""
    return math.inf if epsilon == math.inf else gaussian_mu(epsilon, DELTA)


def noise_scale(mu: float, sensitivity: float, share: float = 1.0, count: int = 1) -> float:
    """Standard deviation of each of `count` releases that together take `share` of μ²."""
    return sensitivity * math.sqrt(count / share) / mu


def clipped_residual(
    loss: str, logits: torch.Tensor, labels: torch.Tensor, bound: float | torch.Tensor
) -> torch.Tensor:
    """Probabilities minus one-hot labels, no row beyond `bound` (one, or one a row)."""
    residual = torch.softmax(logits, dim=1) if loss == "softmax" else torch.sigmoid(logits)
    residual[torch.arange(len(labels), device=labels.device), labels] -= 1.0
    norms: torch.Tensor = torch.linalg.vector_norm(residual, dim=1).clamp(min=1e-12)
    factors: torch.Tensor = (bound / norms).clamp(max=1.0)
    return residual * factors.unsqueeze(1)


def _fit_raft(rows: Rows, setting: Setting, epsilon: float, noise: Noise) -> Head:
    """Full-batch gradient descent with momentum 0.9 from zero weights, softmax loss."""
    X = rows.unit if setting["rows"] == "unit" else rows.level
    constant = float(setting["bias"])
    steps, clip = setting["steps"], setting["clip"]
    deviation = noise_scale(exact_mu(epsilon), clip, count=steps)
    # A row's gradient is r (x, 1)ᵀ: its norm is that of r times that of (x, 1).
    bounds = clip / (X.square().sum(dim=1) + constant**2).sqrt().clamp(min=1e-12)
    weights = torch.zeros(rows.n_classes, rows.n_features + 1)
    velocity = torch.zeros_like(weights)
    for _ in range(steps):
        logits = X @ weights[:, :-1].T + constant * weights[:, -1]
        residual = clipped_residual("softmax", logits, rows.labels, bounds)
        total = torch.cat([residual.T @ X, residual.sum(dim=0).unsqueeze(1)], dim=1)
        # Over the bound as well: the best rate then hardly depends on it.
        gradient = noise.add("gradient", total, deviation) / (clip * rows.n_samples)
        velocity = 0.9 * velocity + gradient
        weights = weights - setting["total_rate"] / steps * velocity
    return Head(setting["rows"], weights[:, :-1], constant * weights[:, -1])


def gradient_work(rows: Rows, steps: int) -> float:
    """Two products with all rows and a residual, a step."""
    n_outputs = rows.n_samples * rows.n_classes
    return steps * (n_outputs * (4.0 * rows.n_features + 100.0) + STEP_OVERHEAD)


def _fit_prototypes(rows: Rows, setting: Setting, epsilon: float, noise: Noise) -> Head:
    """Noisy class sums, and class counts where they are needed; sensitivity 1 each."""
    mu, share = exact_mu(epsilon), setting["count_share"]
    score = setting["score"]
    needs_counts = score == "euclidean" or setting["centred"]
    share = share if needs_counts else 0.0
    sums = noise.add("sums", rows.class_sums, noise_scale(mu, 1.0, 1.0 - share))
    center = torch.zeros(rows.n_features)
    if needs_counts:
        counts = noise.add("counts", rows.counts, noise_scale(mu, 1.0, share)).clamp(min=1.0)
        means = sums / counts.unsqueeze(1)
        if setting["centred"]:
            center = sums.sum(dim=0) / counts.sum()
            means = means - center
    else:
        means = sums
    if score == "cosine":
        means = torch.nn.functional.normalize(means)
    intercept = -means @ center
    if score == "euclidean":  # |x - m|² is smallest where x·m - |m|²/2 is largest
        intercept = intercept - means.square().sum(dim=1) / 2
    return Head("unit", means, intercept)


def _prototype_work(rows: Rows, setting: Setting) -> float:
    return STEP_OVERHEAD + 4.0 * rows.n_classes * rows.n_features * rows.n_samples


def setting_key(setting: Setting) -> str:
    """Text of a setting, the same whatever the order of its names."""
    return json.dumps(dict(setting), sort_keys=True)


def search(
    peer: Peer,
    starts: Iterable[Setting],
    score: Callable[[Setting], float],
    afford: Callable[[Setting], bool],
) -> list[Setting]:
    """Settings that were tried, the best first.

    From every start, the best first, one axis after another is searched for a better value:
    all words; of numbers the nearest on either side, as far as it gets better. When that finds
    nothing, values two and three places away are tried, then changes of two axes at once. It
    ends when none of them helps, or when `afford` refuses all that is left.
    """
    scores: dict[str, float] = {}

    def tried(setting: Setting) -> float:
        key = setting_key(setting)
        if key not in scores and afford(setting):
            scores[key] = score(setting)
        return scores.get(key, -math.inf)

    for start in sorted(starts, key=tried, reverse=True):
        _climb(peer, start, tried)
    ordered = sorted(scores, key=lambda key: scores[key], reverse=True)
    return [json.loads(key) for key in ordered]


def _climb(peer: Peer, best: Setting, tried: Callable[[Setting], float]) -> None:
    stage = 0
    while stage < _STAGES:
        if stage < _STAGES - 1:
            moved = best
            for axis in peer.axes:
                moved = _along(peer, axis, moved, tried, stage + 1)
        else:
            moved = max([best, *_pairs(peer, best)], key=tried)
        stage = 0 if tried(moved) > tried(best) else stage + 1
        best = moved


def _along(
    peer: Peer, axis: str, best: Setting, tried: Callable[[Setting], float], reach: int
) -> Setting:
    """Move along one axis for as long as it helps."""
    while True:
        values = _neighbours(peer.axes[axis], best[axis], reach)
        moved = max([best, *({**best, axis: value} for value in values)], key=tried)
        if moved is best:
            return best
        best = moved


def _pairs(peer: Peer, best: Setting) -> Iterator[Setting]:
    """Every change of two axes, by one place each."""
    for first, second in itertools.combinations(peer.axes, 2):
        for value in _neighbours(peer.axes[first], best[first], 1):
            for other in _neighbours(peer.axes[second], best[second], 1):
                yield {**best, first: value, second: other}


def _neighbours(values: tuple[Any, ...], value: Any, reach: int) -> list[Any]:
    place = values.index(value)
    if isinstance(value, str | bool):
        return [other for other in values if other != value] if reach == 1 else []
    return [values[i] for i in (place - reach, place + reach) if 0 <= i < len(values)]


def _raft(name: str, label: str, clip: float) -> Peer:
    return Peer(
        name=name,
        label=label,
        axes={
            "total_rate": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4),
            "steps": (1, 2, 5, 10, 20, 40, 70, 100, 150),
            "clip": (clip,),
            "rows": ("unit", "level"),
            "bias": (False, True),
        },
        starts=(
            {"total_rate": 100.0, "steps": 40, "clip": clip, "rows": "unit", "bias": False},
            {"total_rate": 10.0, "steps": 10, "clip": clip, "rows": "unit", "bias": False},
        ),
        fit=_fit_raft,
        work=lambda rows, setting: gradient_work(rows, setting["steps"]),
        published=clip == 1.0,  # the recipe's
    )


PEERS = (
    _raft("dp-raft", "DP-RAFT", 1.0),
    _raft("dp-raft-half", "DP-RAFT, but clipped at 0.5", 0.5),
    Peer(
        name="prototypes",
        label="noisy class means",
        axes={
            "score": ("cosine", "euclidean", "sum"),
            "centred": (False, True),
            "count_share": (0.01, 0.03, 0.1, 0.3),
        },
        starts=({"score": "cosine", "centred": False, "count_share": 0.03},),
        fit=_fit_prototypes,
        work=_prototype_work,
    ),
)
