"""Rounded Gaussians have exactly their law; also what float64 leaves open is decided rightly.

OpenDP's sampler draws another law, the discrete Gaussian: the two can be compared only where both
are close to the same normal law (see the test, which needs `opendp`).
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_checks import FALSE_ALARM
from scipy import stats

from dpfc.mechanism import rounded_gaussian as module
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.mechanism.rounded_gaussian import LARGEST_SIGMA, rounded_gaussian

HEIGHT, STRIPS, CUT = 809, 304, Fraction(19, 4)  # of the docstring: H, 64 r, r
INSIDE = 1 << 47
ZEROS, ONES = 0, 2**64 - 1


def seeded(seed):
    return np.random.default_rng(seed).bytes


def word(choice, inside, negative=False):
    """A sign, 47 digits of x inside its strip, and the choice of a box."""
    return (((~inside if negative else inside) << 16) | choice) % 2**64


class Words:
    """A source of given words, which then repeats the last one; it counts what was asked."""

    def __init__(self, *words):
        self.words, self.asked = list(words), 0

    def __call__(self, size):
        count, rest = divmod(size, 8)
        assert rest == 0
        self.asked += count
        taken = [self.words.pop(0) if len(self.words) > 1 else self.words[0] for _ in range(count)]
        return np.array(taken, dtype="<u8").tobytes()


def curve(x):
    """Certain bounds of F(x), by mpmath's intervals."""
    mpmath.iv.prec = 400
    x = mpmath.iv.mpf(x.numerator) / x.denominator
    ends = (HEIGHT * mpmath.iv.exp(-x * x / 2))._mpi_
    return [(-1) ** sign * Fraction(int(m)) * Fraction(2) ** e for sign, m, e, _ in ends]


def below(x):
    return curve(x)[0]


def above(x):
    return curve(x)[1]


def choices_below():
    """The choices that lie below the curve, and the strip of each."""
    boxes = module._boxes()
    return (boxes.start[: boxes.first_crossed] / INSIDE).astype(int)


# -- the law -------------------------------------------------------------------------


def law_p_value(draws, sigma):
    """Chi-square test of P(k) = Φ((k + ½)/σ) − Φ((k − ½)/σ); bins that expect few are joined."""
    edges = np.arange(np.ceil(8 * sigma) + 1) + 0.5
    probability = -np.diff(stats.norm.sf(np.r_[0.0, edges] / sigma))
    last = int(np.argmax(np.r_[probability, 0.0] * draws.size < 20)) - 1
    half = np.r_[probability[1:last], stats.norm.sf(edges[last - 1] / sigma)]
    expected = np.r_[half[::-1], 2 * probability[0], half] * draws.size
    counts = np.bincount(np.clip(draws, -last, last) + last, minlength=2 * last + 1)
    return stats.chisquare(counts, expected).pvalue


SOURCES = {"system": os.urandom, "seeded": seeded(0)}


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 40.0])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_integers_have_their_law_and_one_percent_of_sigma_is_noticed(source, sigma):
    draws = rounded_gaussian(sigma, 2_000_000, source)
    assert draws.dtype == np.int64
    assert law_p_value(draws, sigma) > FALSE_ALARM
    assert law_p_value(draws, 0.99 * sigma) < FALSE_ALARM
    assert law_p_value(draws, 1.01 * sigma) < FALSE_ALARM


@pytest.mark.parametrize("sigma", [1e5, 2.0**30, 2.0**50])
def test_a_large_sigma_gives_the_normal_law(sigma):
    draws = rounded_gaussian(sigma, 400_000, os.urandom) / sigma
    assert stats.kstest(draws, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(1.02 * draws, "norm").pvalue < FALSE_ALARM
    for threshold in (3.0, 4.0, 4.7):
        expected = 2 * stats.norm.sf(threshold)
        seen = int((np.abs(draws) > threshold).sum())
        assert stats.binomtest(seen, draws.size, expected).pvalue > FALSE_ALARM


def test_opendp_draws_the_same_where_both_laws_are_normal():
    """Rounding adds 1/12 to the variance; from σ = 50 on the laws differ by less than 10^-8."""
    dp = pytest.importorskip("opendp.prelude")
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    noise = dp.m.make_gaussian(*space, scale=float(np.sqrt(2500 + 1 / 12)))
    theirs = np.array(noise([0] * 200_000))

    def p_value(sigma):
        ours = rounded_gaussian(sigma, 2_000_000, seeded(1))
        edges = np.r_[-(2**62), np.arange(-149.5, 150, 10), 2**62]
        table = [np.histogram(draws, edges)[0] for draws in (theirs, ours)]
        return stats.chi2_contingency(table).pvalue

    assert p_value(50.0) > FALSE_ALARM
    assert p_value(51.0) < FALSE_ALARM


def test_draws_are_symmetric_and_independent():
    draws = rounded_gaussian(1000.0, 400_000, os.urandom).astype(float)
    bound = stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(draws.size)
    assert abs(draws.mean()) < 1000 * bound < abs((draws + 30).mean())
    assert stats.binomtest(int((draws > 0).sum()), int((draws != 0).sum())).pvalue > FALSE_ALARM
    for lag in (1, 2, module._CHUNK):
        for a, b in ((draws[lag:], draws[:-lag]), (draws[lag:] ** 2, draws[:-lag] ** 2)):
            assert abs(np.corrcoef(a, b)[0, 1]) < 1.1 * bound
            assert abs(np.corrcoef(a + 0.03 * b, b)[0, 1]) > 1.1 * bound


def test_every_draw_is_fresh_also_over_chunks_and_after_rejections():
    draws = rounded_gaussian(2.0**50, 3 * module._CHUNK + 17, seeded(2))
    assert np.unique(draws).size == draws.size


# -- boxes ---------------------------------------------------------------------------


def test_boxes_cover_the_curve_once_and_those_that_are_accepted_lie_below_it():
    boxes = module._boxes()
    below_strips = choices_below()
    crossed = list(zip(boxes.strip.astype(int), boxes.level.astype(int), strict=True))
    for i in range(STRIPS):
        accepted = int((below_strips == i).sum())
        levels = [level for strip, level in crossed if strip == i]
        assert levels == list(range(accepted, accepted + len(levels)))
        assert accepted <= below(Fraction(i + 1, 64))
        assert accepted + len(levels) >= min(above(Fraction(i, 64)), HEIGHT)
    np.testing.assert_array_equal(
        boxes.start[boxes.first_crossed : boxes.tail], boxes.strip * INSIDE
    )
    assert boxes.tail == below_strips.size + len(crossed) < 1 << 16


def test_a_proposal_has_the_same_density_everywhere_and_covers_the_tail():
    density = Fraction(1, 2**16) / (Fraction(1, 64) * 1)  # of the boxes: probability, area
    end = Fraction(STRIPS, 64)
    assert end == CUT
    for g in range(200):
        digits = (*[ZEROS] * (g // 64), 1 << 63 - g % 64, ONES)
        left, y = module._tail_point(0, Words(*digits))
        right, _ = module._tail_point(INSIDE - 1, Words(*digits))
        height = y.bounds()[1]
        assert left.bounds()[0] == end
        end = right.bounds()[1]
        area = (end - left.bounds()[0]) * height
        assert Fraction(1, 2**16) * Fraction(1, 2 ** (g + 1)) / area == density
        assert height >= above(left.bounds()[0])


# -- float64's bounds ----------------------------------------------------------------


def test_float64_knows_the_curve_within_its_bound():
    rng = np.random.default_rng(3)
    strips = np.r_[np.repeat(np.arange(STRIPS), 3), rng.integers(STRIPS, size=1500)]
    inside = rng.integers(INSIDE, size=strips.size)
    inside[: 3 * STRIPS] = np.tile([0, INSIDE // 2, INSIDE - 1], STRIPS)
    values = module._curve(strips.astype(float), inside * 2.0**-53)
    exact = [
        below(Fraction(int(i) * INSIDE + int(u), 2**53))
        for i, u in zip(strips, inside, strict=True)
    ]
    errors = [abs(float(Fraction(v) / f - 1)) for f, v in zip(exact, values, strict=True)]
    assert 0 < max(errors) < 6 * 2.0**-52
    assert 6 * 2.0**-52 * HEIGHT < module._CURVE_BOUND / 2


@pytest.mark.parametrize("x", [0, Fraction(1, 64), 1, Fraction(22, 7), Fraction(19, 4), 20, 60])
@pytest.mark.parametrize("decimals", [3, 40, 100])
def test_bounds_in_multiple_precision_hold_the_curve_and_are_close(x, decimals):
    low, high = module._curve_bounds(Fraction(x), decimals)
    assert low <= below(Fraction(x)) and (x == 0 or above(Fraction(x)) <= high)
    assert high <= HEIGHT and (high - low) < high * Fraction(x * x + 4) / 10 ** (decimals - 2)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 2.7, 1e6 / 3, 2.0**40 / 3, 2.0**50 - 0.125])
def test_the_nearest_integer_is_right_to_the_last_digit(sigma):
    """Of given digits of x below the curve, followed by zeros where more are asked for."""
    rng = np.random.default_rng(4)
    strips = choices_below()
    choice = rng.integers(strips.size, size=20_000)
    inside = rng.integers(INSIDE, size=choice.size)
    words = [word(int(c), int(u), u % 2 == 1) for c, u in zip(choice, inside, strict=True)]
    draws = rounded_gaussian(sigma, len(words), Words(*words, ZEROS))
    for k, c, u in zip(draws, choice, inside, strict=True):
        x = Fraction(int(strips[c]) * INSIDE + int(u), 2**53)
        expected = (Fraction(sigma) * x + Fraction(1, 2)).__floor__()
        assert k == (-expected if u % 2 else expected)


def counted(calls, name):
    function = getattr(module, name)

    def call(*args):
        calls[name] += 1
        return function(*args)

    return call


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1e6 / 3, 2.0**45])
def test_exact_decisions_are_those_of_float64(monkeypatch, sigma):
    fast = rounded_gaussian(sigma, 50_000, seeded(5))
    decided = Counter()
    for name in ("_nearest_integer", "_is_below_curve"):
        monkeypatch.setattr(module, name, counted(decided, name))
    monkeypatch.setattr(module, "_ROUNDING_BOUND", 2.0)
    monkeypatch.setattr(module, "_CURVE_BOUND", np.inf)
    np.testing.assert_array_equal(rounded_gaussian(sigma, 50_000, seeded(5)), fast)
    assert decided["_nearest_integer"] == 50_000
    assert decided["_is_below_curve"] > 500


def test_float64_almost_never_asks_for_an_exact_decision(monkeypatch):
    """Else a bound would be far too wide, and the sampler slow."""
    decided = Counter()
    for name in ("_nearest_integer", "_is_below_curve"):
        monkeypatch.setattr(module, name, counted(decided, name))
    rounded_gaussian(1e6, 200_000, seeded(6))
    assert 0 < decided.total() < 50  # points of the tail: three of 200,000


# -- what float64 leaves open --------------------------------------------------------


def below_choice(strip):
    return int(np.argmax(choices_below() == strip))


@pytest.mark.parametrize("negative", [False, True])
def test_x_at_a_half_integer_is_decided_by_its_last_digit(negative):
    at_half = word(below_choice(32), 0, negative)
    before = word(below_choice(31), INSIDE - 1, negative)
    source = Words(at_half, before)
    np.testing.assert_array_equal(rounded_gaussian(1.0, 2, source), [-1 if negative else 1, 0])
    assert source.asked == 2


@pytest.mark.parametrize(("last", "expected"), [(ZEROS, 0), (ONES, 1)])
@pytest.mark.parametrize("further", [0, 1, 5])
def test_x_gets_digits_until_its_rounding_is_decided(last, expected, further):
    """σ = 3: x = 1/6 is a half-integer, and no digits are those of 1/6 for ever."""
    digits = 2 ** (53 + 64 * further) // 6
    further_words = [digits >> 64 * n & ONES for n in reversed(range(further))]
    start = digits >> 64 * further
    source = Words(word(below_choice(start // INSIDE), start % INSIDE), *further_words, last)
    assert rounded_gaussian(3.0, 1, source) == [expected]
    assert source.asked == 1 + further + 1


def crossing():
    """Digits (choice, x, y) that leave open whether y < F(x): it is up to further ones."""
    boxes = module._boxes()
    for n in range(300, boxes.strip.size):
        strip, level = int(boxes.strip[n]), int(boxes.level[n])
        for digits in range(strip * INSIDE, (strip + 1) * INSIDE, INSIDE // 64):
            low, high = (
                below(Fraction(digits + 1, 2**53)),
                above(Fraction(digits, 2**53)),
            )
            if level < low and high < level + 1:
                y = int((low + high) / 2 * 2**64) - (level << 64)
                return boxes.first_crossed + n, digits, y
    raise AssertionError


def sigma_that_needs_more(digits):
    """σ and n such that σ x = n + ½ for an x of these digits, before half of the further ones."""
    for n in range(10**6, 10**6 + 1000):
        sigma = float((n + Fraction(1, 2)) * 2**53 / (digits + Fraction(1, 2)))
        ends = [Fraction(sigma) * Fraction(2 * digits + k, 2**54) for k in (0, 2)]
        if ends[0] < n + Fraction(1, 2) < ends[1]:
            return sigma, n
    raise AssertionError


def test_a_point_on_the_curve_gets_digits_and_keeps_them():
    choice, digits, y = crossing()
    sigma, n = sigma_that_needs_more(digits)
    # The curve falls: x's next digits being zeros, y is below it; being ones, above.
    source = Words(word(choice, digits % INSIDE), y, ZEROS, ZEROS, ONES)
    assert rounded_gaussian(sigma, 1, source) == [n]
    assert source.asked == 4  # no new digits to round σ x, which would give n + 1

    # Rejected: another word is drawn.
    source = Words(word(choice, digits % INSIDE), y, ONES, ZEROS, word(below_choice(0), 0, True), 0)
    assert rounded_gaussian(sigma, 1, source) == [0]
    assert source.asked == 5


# -- the tail ------------------------------------------------------------------------


def tail_words(box):
    return [*[ZEROS] * (box // 64), 1 << 63 - box % 64]


@pytest.mark.parametrize("box", [*range(61), 64, 130])
@pytest.mark.parametrize("negative", [False, True])
def test_the_tail_reaches_everywhere(box, negative):
    inside = INSIDE // 3
    source = Words(word(module._boxes().tail, inside, negative), *tail_words(box), ZEROS)
    x = CUT + Fraction(box + Fraction(inside, INSIDE)) / 4
    expected = round(2**40 * x)
    assert rounded_gaussian(2.0**40, 1, source) == [-expected if negative else expected]


@pytest.mark.parametrize("box", [0, 1, 2, 7, 30])
def test_a_point_of_the_tail_is_accepted_below_the_curve_only(box):
    inside = INSIDE // 5
    x = CUT + Fraction(box + Fraction(inside, INSIDE)) / 4
    end = x + Fraction(1, 2**49)
    last = word(below_choice(0), 0)
    for bound, shift, accepted in ((below(end), -1, True), (above(x), 1, False)):
        digits = int(bound * 2 ** (box + 5 + 64 * 4)) + shift  # of y, in units of its box's height
        first, *others = (digits >> 64 * n & ONES for n in (3, 2, 1, 0))
        pairs = [w for y in others for w in (ZEROS if not accepted else ONES, y)]
        source = Words(word(module._boxes().tail, inside), *tail_words(box), first, *pairs, last)
        draw = int(rounded_gaussian(1000.0, 1, source)[0])
        assert draw == (round(1000 * x) if accepted else 0)


def test_points_of_the_tail_have_the_law_of_the_tail():
    """And not the one that boxes are proposed with."""
    rng, source = np.random.default_rng(7), seeded(7)
    points = [module._tail_point(int(u), source) for u in rng.integers(INSIDE, size=12_000)]
    accepted = [x for x, y in points if module._is_below_curve(x, y, source)]
    x = np.array([float(x.bounds()[0]) for x in accepted])
    edges = np.array([4.75, 4.8, 4.85, 4.9, 5.0, 5.25, np.inf])
    counts = np.histogram(x, edges)[0]
    law = -np.diff(stats.norm.sf(edges)) / stats.norm.sf(4.75)
    assert stats.chisquare(counts, law * x.size).pvalue > FALSE_ALARM
    proposed = np.array([0.1, 0.1, 0.1, 0.2, 0.25, 0.25])
    assert stats.chisquare(counts, proposed * x.size).pvalue < FALSE_ALARM


def test_an_integer_beyond_int64_is_an_error(monkeypatch):
    boxes = 4 * 2**13
    source = Words(word(module._boxes().tail, 0), *tail_words(boxes), ZEROS)
    monkeypatch.setattr(module, "_is_below_curve", lambda *args: True)
    with pytest.raises(OverflowError):
        rounded_gaussian(LARGEST_SIGMA, 1, source)


# -- arguments, sources --------------------------------------------------------------


def no_bytes(size):
    raise AssertionError(f"{size} bytes were drawn")


@given(
    st.floats(max_value=0.0)
    | st.floats(min_value=LARGEST_SIGMA, exclude_min=True)
    | st.sampled_from([np.nan, -np.nan, np.inf, -np.inf])
)
def test_a_sigma_out_of_range_is_refused(sigma):
    with pytest.raises(ValueError, match=r"sigma must be in \(0, 2\^50\]"):
        rounded_gaussian(sigma, 5, no_bytes)


@given(st.integers(max_value=-1))
def test_a_negative_size_is_refused(size):
    with pytest.raises(ValueError, match="size must be in"):
        rounded_gaussian(1.0, size, no_bytes)
    with pytest.raises(ValueError, match="size must be in"):
        SystemNoise().rounded_gaussian(1.0, size)


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
@pytest.mark.parametrize("sigma", [5e-324, 1e-310, 1e-9, LARGEST_SIGMA])
def test_any_size_and_the_ends_of_sigma(sigma, size):
    draws = rounded_gaussian(sigma, size, seeded(8))
    assert draws.shape == (size,)
    assert (draws != 0).all() if sigma > 1 else (draws == 0).all()


def test_threads_draw_what_one_thread_would():
    alone = [rounded_gaussian(1e4, 100_000, seeded(seed)) for seed in range(6)]
    module._boxes.cache_clear()
    with ThreadPoolExecutor(6) as pool:
        together = pool.map(lambda seed: rounded_gaussian(1e4, 100_000, seeded(seed)), range(6))
        np.testing.assert_array_equal(list(together), alone)


def test_sources_draw_by_this_sampler():
    draws = SeededNoise(3).rounded_gaussian(1e5, 1000)
    np.testing.assert_array_equal(draws, rounded_gaussian(1e5, 1000, seeded(3)))
    np.testing.assert_array_equal(draws, SeededNoise(3).rounded_gaussian(1e5, 1000))
    assert not np.array_equal(draws, SeededNoise(4).rounded_gaussian(1e5, 1000))
    assert SeededNoise(3).random_bytes(9) == seeded(3)(9)


@pytest.mark.parametrize("cores", [None, 1, 3])
def test_system_noise_is_of_the_system_in_however_many_threads(monkeypatch, cores):
    asked = []
    urandom = os.urandom

    def recorded(size):
        asked.append(size)
        return urandom(size)

    monkeypatch.setattr(os, "urandom", recorded)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    draws = SystemNoise().rounded_gaussian(2.0**50, 400_001)
    assert draws.shape == (400_001,)
    assert np.unique(draws).size >= draws.size - 3  # equal by chance: one, once in 50,000 runs
    assert sum(asked) > 8 * draws.size
    assert stats.kstest(draws / 2.0**50, "norm").pvalue > FALSE_ALARM
