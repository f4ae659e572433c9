"""Optional packages, which an extra of dpfc brings."""

from __future__ import annotations

from importlib.util import find_spec

from dpfc.exceptions import MissingDependencyError

__all__ = ["require"]


def require(package: str, what: str, extra: str) -> None:
    """Refuse to go on without an optional package.

    Raises
    ------
    MissingDependencyError
        Names the extra to install.
    """
    if find_spec(package) is None:
        raise MissingDependencyError(
            f'{what} needs the package {package}: run pip install "dpfc[{extra}]".'
        )
