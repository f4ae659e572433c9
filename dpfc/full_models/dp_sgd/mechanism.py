"""Sums of clipped gradients, as they train a network, drawn through a `PrivateRun`.

A training loop holds a `GradientMechanism` and never the rows. Each call draws a Poisson
sample, sums the clipped gradients of its rows, and has the run add noise to the sum. Where persons
have several rows, the sample is one of persons, with one row each: `dp_sgd.people` has the proof
that all that is said of rows here and in the accounting then holds for persons.

Gradients are added up in floating point, and their sum becomes integers before noise is added:

1. Rounding. The computed sum is within e of the exact one (`ClippedSums.rounding`), so the computed
   sums of neighbours are within Δ + 2e.
2. Grid. Each of the sum's m entries is rounded to a whole number of steps g, a power of two. That
   moves the sum by at most g √m / 2, so neighbours are then within Δ + 2e + g √m, or, counted in
   steps, Δ / g + slack with slack = 2e / g + √m.

All of Δ, e, g and m are public. `dpfc.mechanism.noisy_sum` says why integer noise is then exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from dpfc.accounting import ReleaseRecord
from dpfc.full_models.augmentation import Augmentation
from dpfc.full_models.dp_sgd.clipping import ClippedSums
from dpfc.full_models.dp_sgd.passes import Passes, choose_passes
from dpfc.full_models.dp_sgd.rows import MAX_ROWS, ModuleRows
from dpfc.full_models.silence import in_silence
from dpfc.mechanism.noisy_sum import BoundedSum
from dpfc.mechanism.private_run import PrivateRun

__all__ = ["COUNT", "GRADIENT", "GradientMechanism"]

COUNT, GRADIENT = "count", "gradient"
_GRID_SLACK = 2.0**-16  # of the sensitivity: what rounding to the grid may add, up to a factor of 2
_MOST_STEPS = 2.0**48  # of the grid in the noise's standard deviation: a run takes four times that


class GradientMechanism:
    """Draws a plan's releases: a noisy count, then one noisy gradient a step.

    Parameters
    ----------
    rows : ModuleRows
    sums : ClippedSums
        Of the module that is trained; its parameters get the releases as gradients.
    run : PrivateRun
        Its plan is of "gradient", and of "count" unless the number of rows is public.
    n_samples : int or None
        A public number of rows, or of persons. Under "replace_one" the true number is public.
    augmentation : Augmentation
    physical_batch_size : int
        Most copies of rows that go through the network at a time; decides memory, and no
        result but by rounding. See `passes` for how many do.
    device : torch.device
        Of the module.
    """

    def __init__(
        self,
        rows: ModuleRows,
        sums: ClippedSums,
        run: PrivateRun,
        *,
        n_samples: int | None,
        augmentation: Augmentation,
        physical_batch_size: int,
        device: torch.device,
    ):
        if n_samples is None and run.plan.neighboring_relation == "replace_one":
            n_samples = rows.n_units
        self._rows = rows
        self._sums = sums
        self._augmentation = augmentation
        self._most_rows = max(1, physical_batch_size // augmentation.multiplicity)
        self._passes: Passes | None = None
        self._device = device
        self._n_samples = n_samples
        self.run = run

    @property
    def steps(self) -> int:
        """How many gradients were drawn."""
        drawn = self.run.record_of(GRADIENT)
        return 0 if drawn is None else drawn.count

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; all of it was released or is public."""
        records = [record.model_dump(mode="json") for record in self.run.records]
        return {"n_samples": self._n_samples, "records": records}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on after what a checkpoint says was drawn.

        Raises
        ------
        ValueError
            If it was not drawn under this plan.
        """
        kept, n_samples = state["records"], state["n_samples"]
        if type(kept) is not list or type(n_samples) is not int or n_samples < 1:
            raise ValueError("its records or n_samples are none")
        try:
            records = [ReleaseRecord.model_validate(record) for record in kept]
        except ValueError as error:  # pydantic's words take several lines
            raise ValueError("one of its records is not as a fit writes it") from error
        self.run.go_on_after(records)
        self._n_samples = n_samples

    @property
    def passes(self) -> Passes:
        """Passes of one shape for all steps; it follows from public numbers."""
        if self._passes is None:
            self._passes = choose_passes(
                self._sums,
                self._rows.like(self._device),
                n_copies=self._augmentation.multiplicity,
                most_rows=self._most_rows,
                expected_rows=self.expected_batch_size(),
                sampling_probability=self.run.plan[GRADIENT].sampling_probability,
            )
        return self._passes

    # -- releases --------------------------------------------------------------------

    def n_samples(self) -> int:
        """Number of rows or persons: stated, or released with noise as "count"; at least 1."""
        if self._n_samples is None:
            count = self.run.release(
                COUNT, self._sum(COUNT), lambda: torch.tensor([self._rows.n_units])
            )
            self._n_samples = round(max(1.0, float(count.value[0])))
        return self._n_samples

    def expected_batch_size(self) -> float:
        """What sums are divided by: the sampling probability times `n_samples`; public."""
        return self.run.plan[GRADIENT].sampling_probability * self.n_samples()

    def gradient_noise(self) -> float:
        """Standard deviation of every entry of a mean gradient's noise; draws no gradient."""
        scale = self.run.noise_scale(GRADIENT, self._sum(GRADIENT))
        return scale / self.expected_batch_size()

    def release_gradient(self) -> None:
        """Draw one step: every trainable parameter's `grad` becomes its noisy mean gradient."""
        divisor, of = self.expected_batch_size(), self._sum(GRADIENT)

        def total() -> torch.Tensor:
            for parameter in self._sums.parameters:
                parameter.grad = None  # the last step's: its memory is free for this one
            summed = self._clipped_sum(self._sampled_rows())
            return (summed if self.run.exact else _whole_steps(summed, of.unit)).cpu()

        mean = self.run.release(GRADIENT, of, total).value / divisor
        for parameter, part in zip(self._sums.parameters, self._parts(mean), strict=True):
            parameter.grad = part.to(parameter)

    @property
    def _n_entries(self) -> int:
        """Of one gradient."""
        return sum(p.numel() for p in self._sums.parameters)

    def _sampled_rows(self) -> torch.Tensor:
        """Places of the rows that take part, one of each drawn person; there may be none."""
        probability = self.run.plan[GRADIENT].sampling_probability
        drawn = np.arange(self._rows.n_units)
        if probability < 1.0:
            drawn = drawn[self.run.noise.bernoulli(probability, len(drawn))]
        if self._rows.people is not None:
            drawn = self._rows.people.one_row_each(drawn, self.run.noise)
        return torch.from_numpy(drawn)

    def _parts(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """View a vector of all parameters' entries as one tensor a parameter."""
        parameters = self._sums.parameters
        parts = torch.split(flat, [p.numel() for p in parameters])
        return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]

    def _clipped_sum(self, places: torch.Tensor) -> torch.Tensor:
        """Sum of some rows' clipped gradients, all parameters as one float64 vector."""
        flat = torch.zeros(self._n_entries, dtype=torch.float64, device=self._device)
        totals = self._parts(flat)
        passes = self.passes
        # Dropout and augmentation draw from a generator of their own; they carry no privacy.
        seed = int(self.run.noise.uniform(1)[0] * 2**53)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), in_silence():
            # torch.manual_seed looks for accelerators that are not there, at every step.
            torch.default_generator.manual_seed(seed)
            if self._device.type == "cuda":
                torch.cuda.manual_seed(seed)
            # An empty tensor splits into one empty part, which would be a pass of its own.
            for part in torch.split(places, passes.n_rows) if len(places) else ():
                X, codes = self._rows.take(part, self._device)
                self._add_pass(passes, self._augmentation(X), codes, totals)
        return flat

    def _add_pass(
        self,
        passes: Passes,
        X: torch.Tensor,
        codes: torch.Tensor,
        totals: Sequence[torch.Tensor],
    ) -> None:
        """Add the rows of one pass; one that the module raises at adds nothing.

        Weights move, and a module of the user's own may come to raise at a row that it took
        before the first step. That it does, and its words, would tell of the row. So would rows
        that are left out because of another one: each is tried again in its own place of a pass
        that has no other rows, and with the same random numbers, where it adds the same bits.
        """
        drawn = self._random_state()
        try:
            self._sums.add(*passes.lay_out(X, codes), totals, n_rows=len(codes))
            return
        except Exception as error:  # whatever a module of the user's own raises
            if _is_of_memory(error):
                raise
        for place in range(len(codes)):
            only = slice(place, place + 1)
            filled = passes.filled_with(X[only], codes[only])
            self._set_random_state(drawn)
            with suppress(Exception):
                self._sums.add(*filled, totals, n_rows=1, first=place)

    def _random_state(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of the generators that dropout draws from."""
        of_gpu = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return torch.default_generator.get_state(), of_gpu

    def _set_random_state(self, state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        torch.default_generator.set_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._device)

    def _sum(self, name: str) -> BoundedSum:
        """What is public of the number of rows, or of a sum over at most `MAX_ROWS` gradients."""
        one = "" if self._rows.people is None else ", of one row a person"
        twice = 2.0 if self.run.plan.neighboring_relation == "replace_one" else 1.0
        if name == COUNT:  # with as many rows on both sides, there is nothing to release
            return BoundedSum(f"1{one}", [1], 2.0 - twice)
        m = self._n_entries
        formula = f"the gradient of the row's loss, clipped at l2_clip_norm{one}"
        sensitivity, rounding = twice * self._sums.l2_clip_norm, self._sums.rounding(MAX_ROWS)
        if self.run.exact:
            return BoundedSum(formula, [m], sensitivity)
        step = _grid_step(sensitivity + 2.0 * rounding, m, self.run.plan[name].noise_multiplier)
        slack = math.nextafter(2.0 * rounding / step + math.sqrt(m), math.inf)
        return BoundedSum(formula, [m], sensitivity / step, step, slack)


def _grid_step(distance: float, n_entries: int, noise_multiplier: float) -> float:
    """g: fine, but so that noise stays far below 2^63 steps; 1 where the run will refuse."""
    step = distance * max(_GRID_SLACK / math.sqrt(n_entries), noise_multiplier / _MOST_STEPS)
    return 2.0 ** math.ceil(math.log2(step)) if 0.0 < step < math.inf else 1.0


def _whole_steps(values: torch.Tensor, step: float) -> torch.Tensor:
    """Round float64 values to the grid, as numbers of steps."""
    return (values / step).round_().to(torch.int64)


def _is_of_memory(error: Exception) -> bool:
    """Whether a pass was too large for the machine, which no row is to blame for."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)
    )
