"""The rounded Gaussian, drawn exactly: k = round(N), N ~ N(0, σ²).

P(k) = Φ((k + ½)/σ) − Φ((k − ½)/σ) for every integer k, without any approximation. For an integer
sum S, S + k = round(S + N): releasing S + k is the Gaussian mechanism with that σ, followed by
rounding. Its privacy is the Gaussian mechanism's, and nothing is added to δ.

Why the law is exact
--------------------
A draw is N = ± σ x with x ≥ 0 of density ∝ f(x) = exp(−x²/2). A point (x, y) is proposed with
constant density on a region that covers the one below F(x) = H f(x), and accepted if y < F(x):
an accepted point is uniform below F, so its x has density ∝ f. Sixteen random bits choose

- a box [i, i + 1)/64 × [j, j + 1), i < 64 r, j < ⌈F(i/64)⌉, with r = 4.75. These cover F on [0, r),
  since F falls. Each has probability 2^-16 and area 2^-6: density 2^-10;
- or the tail, with probability 2^-16. With probability 2^-(g+1), g = 0, 1, …, its point is in a box
  of width ¼ from r + g/4 and of height 2^-(g+5). Probability 2^-(g+17), area 2^-(g+7): density
  2^-10 again. These cover F on [r, ∞), since F(r) < 2^-5, and F(x + ¼) < F(x)/2 for x ≥ r;
- or nothing, which is a rejection. A rejected draw is proposed anew, from new bits.

In its box a point has coordinates of unlimited random binary digits. Only as many are drawn as
two decisions need: whether y < F(x), and which integer is nearest to σ x. Nothing is cut off: x of
q known digits stands for an interval of width 2^-q, and what is decided holds for all of it.

- A box with j + 1 ≤ F((i + 1)/64) is below F, and its points are accepted.
- For other points float64 decides whether y < F(x) where they differ by more than `_CURVE_BOUND`,
  and for all points which integer is nearest where σ x is further than `_ROUNDING_BOUND` σ from
  half-integers. The bounds hold every rounding and the width of the intervals: see `_curve` and
  `_propose`.
- What this leaves open is decided with integers and with bounds of F in multiple precision. Where
  the interval has points on both sides, 64 random digits more are drawn, until it has not: with
  probability 1 that ends. Digits of x that decided y < F(x) stay when σ x is rounded.

The tail has no end. An integer beyond int64 (x ≥ 2^13 at the largest σ: a probability below
exp(−2^25)) is an OverflowError, not another value. As with every method that rejects, time and
the number of random bytes depend on the draws.

References
----------
Marsaglia, Tsang (2000), The Ziggurat Method for Generating Random Variables: rejection from boxes.
Karney (2016), Sampling Exactly from the Normal Distribution: digits drawn as they are needed.
"""

from __future__ import annotations

import decimal
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGEST_SIGMA", "rounded_gaussian"]

RandomBytes = Callable[[int], bytes]
_IntOrArray = TypeVar("_IntOrArray", int, NDArray[np.int64])

LARGEST_SIGMA = 2.0**50
_HEIGHT = 809  # H: the most whose boxes 16 bits can number
_STRIPS = 304  # 64 r, r = 4.75
_TAIL_PLACES = 5  # box g of the tail has height 2^-(g + 5)
_PLACES = 53  # of x after one word: 6 for the strip, 47 inside it
_CURVE_BOUND = 2.0**-38
_ROUNDING_BOUND = 2.0**-48
_CHUNK = 1 << 15  # words at once: what is worked on stays in the cache


def rounded_gaussian(sigma: float, size: int, random_bytes: RandomBytes) -> NDArray[np.int64]:
    """Draw independent integers k = round(N), N ~ N(0, sigma²), exactly.

    Parameters
    ----------
    sigma : float
        In (0, 2^50]; the law is exact for this very float64.
    size : int
    random_bytes : callable
        Returns so many independent uniform bytes, as `os.urandom` does. Called from several threads
        if this function is.

    Returns
    -------
    ndarray of int64, shape (size,)

    Raises
    ------
    ValueError
        If `sigma` or `size` is out of range.
    """
    sigma = float(sigma)
    if not 0.0 < sigma <= LARGEST_SIGMA:
        raise ValueError(f"sigma must be in (0, 2^50], got {sigma!r}.")
    if operator.index(size) < 0:
        raise ValueError(f"size must be in [0, inf), got {size}.")
    draws = np.empty(size, dtype=np.int64)
    for start in range(0, size, _CHUNK):
        chunk = draws[start : start + _CHUNK]
        rejected = _propose(sigma, chunk, random_bytes)
        while rejected.size:
            again = np.empty(rejected.size, dtype=np.int64)
            still = _propose(sigma, again, random_bytes)
            chunk[rejected] = again
            rejected = rejected[still]
    return draws


# -- boxes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Boxes:
    """What sixteen bits choose: boxes below the curve, boxes that it crosses, the tail, nothing.

    Parameters
    ----------
    start : ndarray of float64, shape (65536,)
        Left end of a choice's strip, in units of 2^-53; 0 for the tail and nothing.
    strip, level : ndarray of float64
        i and j of the boxes that the curve crosses.
    first_crossed, tail : int
        Where they begin among the choices.
    curve : ndarray of float64, shape (n_strips,)
        F(i/64), with a relative error of at most 2^-52.
    """

    start: NDArray[np.float64]
    strip: NDArray[np.float64]
    level: NDArray[np.float64]
    first_crossed: int
    tail: int
    curve: NDArray[np.float64]


@cache
def _boxes() -> _Boxes:
    bounds = [_curve_bounds(Fraction(i, 64), decimals=40) for i in range(_STRIPS + 1)]
    inside = np.array([math.floor(low) for low, _ in bounds[1:]])
    covering = np.array([math.ceil(high) for _, high in bounds[:-1]])
    strips = np.arange(_STRIPS)
    below = np.repeat(strips, inside)
    crossed = np.repeat(strips, covering - inside)
    levels = np.concatenate([np.arange(*span) for span in zip(inside, covering, strict=True)])
    start = np.zeros(1 << 16)
    start[: covering.sum()] = np.concatenate([below, crossed]) * 2.0 ** (_PLACES - 6)
    return _Boxes(
        start=start,
        strip=crossed.astype(np.float64),
        level=levels.astype(np.float64),
        first_crossed=below.size,
        tail=int(covering.sum()),
        curve=np.array([float(low) for low, _ in bounds[:-1]]),
    )


# -- float64 decides, nearly always --------------------------------------------------


def _propose(sigma: float, out: NDArray[np.int64], random_bytes: RandomBytes) -> NDArray[np.intp]:
    """Propose a draw for every place of `out`; return the places where it was rejected.

    Let ε = 2^-52, a bound of an operation's relative rounding in every rounding mode. One end of
    x's interval, in units of 2^-53, is rounded once as a sum, and once in the product t with σ
    (whose own scaling underflows by less than 2^-900). So |t − σ x| < σ (2.01 · 4.75 ε + 2^-53)
    < 11 ε σ, whatever x's further digits are. The bound is 16 ε σ: what is left of it is more than
    what its difference from ½ is rounded by if σ > 0.1; and else t < 0.48.
    """
    boxes = _boxes()
    words = _words(out.size, random_bytes)
    choice = words & 0xFFFF
    t = (words >> 16).astype(np.float64)  # U, or −(U + 1): both are ends of ±[U, U + 1)
    start = boxes.start.take(choice, mode="clip")
    t += np.copysign(start, t, out=start)
    t *= sigma * 2.0**-_PLACES
    nearest = np.rint(t)
    out[:] = nearest
    t -= nearest
    np.abs(t, out=t)
    unclear = np.flatnonzero(t > 0.5 - _ROUNDING_BOUND * sigma)
    places = np.flatnonzero(choice >= boxes.first_crossed)
    rejected, known = _settle(places, words[places], random_bytes)
    for place in sorted({*unclear.tolist(), *known}.difference(rejected.tolist())):
        word = int(words[place])
        x = known.get(place) or _Digits(abs(int(start[place])) + _inside(word), _PLACES)
        k = _nearest_integer(sigma, x, random_bytes)
        out[place] = -k if word < 0 else k
    return rejected


def _settle(
    places: NDArray[np.intp], words: NDArray[np.int64], random_bytes: RandomBytes
) -> tuple[NDArray[np.intp], dict[int, _Digits]]:
    """Decide the proposals that are not in a box below the curve.

    Returns
    -------
    rejected : ndarray of int
        Of `places`.
    known : dict
        Where further digits of x were drawn: x.
    """
    boxes = _boxes()
    known = {}
    accepted = np.zeros(places.size, dtype=np.bool_)
    choice = words & 0xFFFF
    crossed = np.flatnonzero(choice < boxes.tail)
    box = choice[crossed] - boxes.first_crossed
    strip, level, inside = boxes.strip[box], boxes.level[box], _inside(words[crossed])
    heights = _words(crossed.size, random_bytes).view(np.uint64)
    above = level + (heights >> np.uint64(11)).astype(np.float64) * 2.0**-53
    above -= _curve(strip, inside.astype(np.float64) * 2.0**-_PLACES)
    accepted[crossed] = above < 0.0
    for n in np.flatnonzero(np.abs(above) <= _CURVE_BOUND):
        x = _Digits((int(strip[n]) << 47) + int(inside[n]), _PLACES)
        y = _Digits((int(level[n]) << 64) + int(heights[n]), 64)
        accepted[crossed[n]] = _is_below_curve(x, y, random_bytes)
        known[int(places[crossed[n]])] = x
    for n in np.flatnonzero(choice == boxes.tail):
        x, y = _tail_point(_inside(int(words[n])), random_bytes)
        accepted[n] = _is_below_curve(x, y, random_bytes)
        known[int(places[n])] = x
    return places[~accepted], known


def _curve(strip: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
    """F(i/64 + h) = F(i/64) exp(−e), e = h (i/64 + h/2), h in [0, 1/64) a multiple of 2^-53.

    Let ε = 2^-52. A step p = 1 − e p'/m of the Taylor polynomial has e < 0.0742, p and p' in
    [0.92, 1], and turns an error δ of p' into at most 0.0742 (4.1 ε + δ) + ε: that of the last p
    is below 2 ε. The series ends at e^8/8!, and omits less than e^9/9! < ε. With the table's ε and
    the last product's ε, F's relative error is below 6 ε, and F < 2^10: 6 · 2^-42. In `_settle`
    the sum y is rounded by 2^-42 at most, y's further digits are below 2^-53, and those of x
    change F by less than 0.61 H 2^-53 < 2^-43. Together less than 2^-39: half of `_CURVE_BOUND`.
    """
    e = h * (strip / 64.0 + h / 2.0)
    p = np.ones_like(e)
    for m in range(8, 0, -1):
        p = 1.0 - e * p / m
    return np.asarray(_boxes().curve[strip.astype(np.intp)] * p)


def _words(size: int, random_bytes: RandomBytes) -> NDArray[np.int64]:
    return np.frombuffer(random_bytes(8 * size), dtype="<i8").astype(np.int64, copy=False)


def _inside(word: _IntOrArray) -> _IntOrArray:
    """U: the 47 bits of a word below its sign and above its choice of a box."""
    return (word >> 16) ^ (word >> 63)


# -- integers and multiple precision decide the rest ---------------------------------


@dataclass
class _Digits:
    """A uniform number, known to lie in [digits, digits + 1) 2^-places."""

    digits: int
    places: int

    def extend(self, random_bytes: RandomBytes) -> None:
        """Draw 64 further binary digits."""
        self.digits = (self.digits << 64) + int.from_bytes(random_bytes(8), "little")
        self.places += 64

    def bounds(self) -> tuple[Fraction, Fraction]:
        return Fraction(self.digits, 1 << self.places), Fraction(self.digits + 1, 1 << self.places)


def _nearest_integer(sigma: float, x: _Digits, random_bytes: RandomBytes) -> int:
    """round(σ x), which is ⌊σ x + ½⌋ but for ties; x gets digits until one integer is left."""
    numerator, denominator = sigma.as_integer_ratio()
    while True:
        unit = 2 * denominator << x.places
        k, left = divmod(2 * numerator * x.digits + unit // 2, unit)
        if left + 2 * numerator <= unit:
            return k
        x.extend(random_bytes)


def _is_below_curve(x: _Digits, y: _Digits, random_bytes: RandomBytes) -> bool:
    """Whether y < F(x); both get digits until it is decided."""
    while True:
        (x_low, x_high), (y_low, y_high) = x.bounds(), y.bounds()
        decimals = 20 + max(x.places, y.places) // 3
        if y_high <= _curve_bounds(x_high, decimals)[0]:
            return True
        if y_low >= _curve_bounds(x_low, decimals)[1]:
            return False
        x.extend(random_bytes)
        y.extend(random_bytes)


def _tail_point(inside: int, random_bytes: RandomBytes) -> tuple[_Digits, _Digits]:
    """A point of the tail: its box is the number of zeros before the first one of random bits."""
    box = 0
    while not (word := int.from_bytes(random_bytes(8), "little")):
        box += 64
    box += 64 - word.bit_length()
    x = _Digits((_STRIPS // 16 + box << 47) + inside, 49)
    y = _Digits(int.from_bytes(random_bytes(8), "little"), 64 + _TAIL_PLACES + box)
    return x, y


def _curve_bounds(x: Fraction, decimals: int) -> tuple[Fraction, Fraction]:
    """A lower and an upper bound of F(x), with so many decimal digits.

    `decimal` rounds exp correctly, so the exact value is between the result's neighbours.
    """
    half_square = x * x / 2
    ratio = Decimal(half_square.numerator), Decimal(half_square.denominator)
    context = decimal.Context(decimals, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)
    context.rounding = decimal.ROUND_CEILING
    low = context.next_minus(context.exp(context.divide(*ratio).copy_negate()))
    context.rounding = decimal.ROUND_FLOOR
    high = context.next_plus(context.exp(context.divide(*ratio).copy_negate()))
    return _HEIGHT * Fraction(low), _HEIGHT * min(Fraction(high), Fraction(1))
