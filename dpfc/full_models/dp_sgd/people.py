"""A step's rows where a person has several: each person by a coin, and one row of his by another.

The unit of privacy is a person with all of his rows. Every step draws each person independently
with the sampling probability q, as it draws rows otherwise, and of each drawn person one row,
uniformly, by a secret coin of his own; that row's clipped gradient is his part of the sum. What is
counted, and known to be public, is persons.

A step is then the Poisson-sampled Gaussian on persons, of the sensitivity and the event of rows:

1. Let R hold a rank for every person, drawn or not: which of his rows would be taken. His rank's
   law depends on the number of his own rows and on nobody else's, and ranks are independent of one
   another, of the coins with q, and of the noise. (That ranks of who is not drawn are never looked
   at changes no law.)
2. Given R, the data are one row a person, and the step is the plain one on them. Data that differ
   in one person are, given the same ranks of the others, data that differ in one row: one added or
   removed row, or, whatever ranks the two persons have that replace each other, one replaced row.
   So P_R and Q_R, the laws of what is released, are a pair that the accountant's event dominates.
3. P and Q are the mixtures of P_R and Q_R over one and the same law of R (and, for a replaced
   person, of the ranks of both). Hockey-stick divergences are jointly convex, and so is
   exp((α - 1) D_α) of Rényi divergences of order α > 1: H(P || Q) <= E_R H(P_R || Q_R), which the
   event's own divergence bounds (Dwork and Roth 2014; van Erven and Harremoës 2014, theorem 11).
4. Ranks are drawn afresh in every step, and 1 to 3 hold for whatever was released before; so the
   steps compose as those of rows do.

Nothing of this needs ranks to be uniform: ⌊u n⌋ with u a multiple of 2⁻⁵³ is, to 2⁻⁵³.

References
----------
Dwork, Roth (2014), The Algorithmic Foundations of Differential Privacy.
van Erven, Harremoës (2014), Rényi Divergence and Kullback-Leibler Divergence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dpfc.mechanism.noise import NoiseSource

__all__ = ["People"]


@dataclass(frozen=True)
class People:
    """Whose rows are; persons stand in the order of their first rows, whatever they are called.

    Attributes
    ----------
    order : ndarray of shape (n_rows,), int64
        Places of rows, each person's next to each other.
    sizes : ndarray of shape (n_people,), int64
        Rows of each person.
    """

    order: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, units: NDArray[np.int64]) -> Self:
        """Sort rows by the persons that they belong to, shape (n_rows,)."""
        _, first, codes, sizes = np.unique(
            units, return_index=True, return_inverse=True, return_counts=True
        )
        return cls(np.argsort(first[codes], kind="stable"), sizes[np.argsort(first)])

    def __len__(self) -> int:
        return len(self.sizes)

    def one_row_each(self, drawn: NDArray[np.int64], noise: NoiseSource) -> NDArray[np.int64]:
        """Places of one row of each drawn person, who has a coin of his own where he has several.

        Parameters
        ----------
        drawn : ndarray of shape (n_drawn,)
            Persons, each once.
        noise : NoiseSource

        Returns
        -------
        ndarray of shape (n_drawn,), int64
        """
        sizes, starts = self.sizes[drawn], (np.cumsum(self.sizes) - self.sizes)[drawn]
        ranks, several = np.zeros_like(drawn), sizes > 1
        coins = noise.uniform(int(several.sum()))
        ranks[several] = np.floor(coins * sizes[several])  # below the size, also as rounded
        return np.asarray(self.order[starts + ranks])
