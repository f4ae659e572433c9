"""Which code made a result."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

__all__ = ["code_version", "library_versions"]

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "opacus", "dp-accounting")
# Lie in the folder of dpfc where it is installed, and beside it in the repository.
_BESIDE = ("accounting", "features", "experiments")


@cache
def code_version() -> str:
    """The version of dpfc, and a digest of the modules that its classifiers are made of."""
    import dpfc
    import dpfc.accounting

    own, accounting = (Path(str(package.__file__)).parent for package in (dpfc, dpfc.accounting))
    digest = hashlib.sha256()
    for folder in (own, accounting):
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder)
            if folder == own and name.parts[0] in _BESIDE:
                continue
            digest.update(f"{folder.name}/{name.as_posix()}\0".encode() + path.read_bytes())
    return f"dpfc {dpfc.__version__} {digest.hexdigest()[:8]}"


@cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result's digits."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}
