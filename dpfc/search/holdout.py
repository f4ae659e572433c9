"""One secret coin a row decides who trains and who validates: the hold-out of a search.

A person who has several rows has one coin for all of them: read "person" for "row" then.
A shuffled split moves most rows when one row is removed. Coins do not: each row has its own,
and the part of a row says nothing about the others.

Why a run costs max(fit, score) and not their composition. Let a run fit on the training part
by a μ-GDP mechanism and score on the validation part by another, and let k runs and a refit
on all rows at μ_r follow one another, each free to look at what came before. Publish the
coins as well; forgetting them again is post-processing. Take two data sets that differ in row
i, and give the row that is missing from one of them a coin all the same: the coins then have
one law for both. Fix their values. If row i trains, the k fits tell the data sets apart,
k μ² in all, and the scores, given the models, do not see it. If row i validates, the scores
tell them apart, k μ² in all, and the fits do not. Either way the refit adds μ_r². So for
every value c of the coins the whole is √(k μ² + μ_r²)-GDP: a test with false-positive rate
a_c misses with probability of at least G(a_c), G the trade-off function of that μ. Over
the coins the test has the rate a = E a_c and misses with probability E G(a_c) >= G(E a_c) =
G(a), because trade-off functions are convex. The same holds for Renyi divergences, which
random stopping is bounded by: those of a pair with one common part, the coins, are at most
the largest of the conditional ones (joint quasi-convexity).

Under "replace_one" coins belong to positions and do not depend on the data, so that the size
of a part may be used like the number of rows. Under "add_or_remove_one" it may not.

References
----------
Dong, Roth and Su (2022), "Gaussian Differential Privacy", Sections 2.1 and 3. van Erven and
Harremoes (2014), "Renyi Divergence and Kullback-Leibler Divergence", Theorem 13.
"""

from __future__ import annotations

from dpfc.mechanism.bounded_sums import LabeledRows, n_units_of
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.rows import SelectedRows

__all__ = ["Holdout"]


class Holdout:
    """A training part and a validation part of private rows.

    Parameters
    ----------
    rows : LabeledRows
    validation_fraction : float in (0, 1)
        Probability with which each row, independently, validates.
    noise : NoiseSource
        Where the coins come from.

    Attributes
    ----------
    rows, training, validation : LabeledRows
        All rows and the two parts, either of which may be empty.
    """

    def __init__(self, rows: LabeledRows, validation_fraction: float, noise: NoiseSource):
        coins = noise.bernoulli(validation_fraction, n_units_of(rows))
        if rows.shares is not None and rows.shares.units is not None:
            coins = coins[rows.shares.units]
        self.rows = rows
        self.training = SelectedRows(rows, ~coins)
        self.validation = SelectedRows(rows, coins)
