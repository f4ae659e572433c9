"""Schedules have the published shapes, and none wastes a step that was paid for."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc.full_models.optimizers.schedules import (
    SCHEDULES,
    refined_multipliers,
    schedule_multipliers,
)


def shape_of(schedule, n_steps, warmup_steps=0):
    norms = [1.0] * n_steps if schedule == "refined" else None
    return schedule_multipliers(schedule, n_steps, warmup_steps, norms=norms)


def test_linear_cosine_and_constant_have_their_textbook_values():
    assert shape_of("constant", 3) == [1.0, 1.0, 1.0]
    assert shape_of("linear", 4) == [1.0, 0.75, 0.5, 0.25]
    assert shape_of("cosine", 4) == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_warmup_rises_linearly_and_the_schedule_fills_the_rest():
    assert shape_of("linear", 6, 2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert shape_of("constant", 4, 3) == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 7, 1000])
def test_every_step_has_a_positive_multiplier_and_the_largest_is_one(schedule, n_steps):
    multipliers = shape_of(schedule, n_steps)
    assert len(multipliers) == n_steps
    assert min(multipliers) > 0.0
    assert max(multipliers) == 1.0


def test_refined_is_linear_decay_where_norms_are_constant():
    # Defazio et al. (2023), section 3: the linear schedule is the special case.
    for power in (1.0, 2.0):
        assert refined_multipliers([3.0] * 50, 50, power) == pytest.approx(shape_of("linear", 50))


def test_refined_follows_the_closed_form():
    # w = 1/4, 1, 1/16 and once more 1/16; below ten norms the filter does nothing.
    rates = np.array([0.25 * 1.125, 1.0 * 0.125, 0.0625 * 0.0625])
    assert refined_multipliers([2.0, 1.0, 4.0], 3, 2.0) == pytest.approx(rates / rates.max())
    rates = np.array([0.5 * 1.5, 1.0 * 0.5, 0.25 * 0.25])
    assert refined_multipliers([2.0, 1.0, 4.0], 3, 1.0) == pytest.approx(rates / rates.max())


def test_refined_warms_up_then_anneals_where_norms_fall():
    """Figure 1 of Defazio et al. (2023): norms that fall early call for a warmup."""
    steps = np.arange(400)
    multipliers = np.array(refined_multipliers(1.0 + 9.0 * np.exp(-steps / 40), 400, 2.0))
    peak = int(multipliers.argmax())
    assert 60 < peak < 240
    assert multipliers[0] < 0.05
    # The filter's first window is flat, and so the decay shows there by less than 5 %.
    assert (np.diff(multipliers[20:peak]) > 0).all()
    assert (np.diff(multipliers[peak:]) < 0).all()
    assert multipliers[-1] < 0.01


def test_refined_decays_faster_than_linearly_where_norms_rise_at_the_end():
    norms = np.concatenate([np.ones(300), np.linspace(1.0, 4.0, 100)])
    assert (
        np.array(refined_multipliers(norms, 400, 2.0))[320:]
        < 0.8 * np.array(shape_of("linear", 400))[320:]
    ).all()


def test_the_median_filter_ignores_outliers_narrower_than_half_its_width():
    norms = np.ones(100)
    norms[[1, 40, 41, 98]] = (1e6, 1e-6, 0.0, 1e6)
    assert refined_multipliers(norms, 100, 2.0) == pytest.approx(shape_of("linear", 100))


def test_norms_of_a_shorter_run_are_stretched():
    short = np.linspace(4.0, 1.0, 100)
    long = np.linspace(4.0, 1.0, 1000)
    stretched = np.array(refined_multipliers(short, 1000, 2.0))
    assert np.abs(stretched - refined_multipliers(long, 1000, 2.0)).max() < 0.02


def test_tiny_and_huge_norms_do_not_overflow():
    multipliers = refined_multipliers([1e-200, 1e200, 1e-200], 3, 2.0)
    assert np.isfinite(multipliers).all()
    assert max(multipliers) == 1.0


def test_norms_that_are_zero_for_long_are_refused():
    with pytest.raises(ValueError, match="zero over a tenth of the run"):
        refined_multipliers([1.0] * 50 + [0.0] * 50, 100, 2.0)
