"""Base classes of scikit-learn, with types.

scikit-learn ships none. A dataclass below a class without a type takes any parameter, to a type
checker: a misspelt name of one would pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sklearn.utils import Tags

__all__ = ["BaseEstimator", "ClassifierMixin", "MetaEstimatorMixin"]

if TYPE_CHECKING:

    class BaseEstimator:
        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def __sklearn_tags__(self) -> Tags: ...

    class ClassifierMixin: ...

    class MetaEstimatorMixin: ...

else:
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
