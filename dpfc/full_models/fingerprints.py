"""A digest of whatever Python objects hold, to see whether they were changed."""

from __future__ import annotations

import functools
import hashlib
import random
import types
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["Fingerprint"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, np.generic)
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, staticmethod, classmethod)
# Whose functions and classes keep nothing of a user's rows, and are large.
_LIBRARIES = ("torch", "numpy", "opacus", "scipy", "sklearn", "builtins", "collections", "abc")
_KEPT_IN_GLOBALS = (torch.Tensor, np.ndarray, list, dict, set, deque, int, float, str, bytes)


class Fingerprint:
    """Walks through an object, and digests what it finds.

    Parameters
    ----------
    names : dict of int to str
        Objects by their id that count by name alone: they are looked at elsewhere.
    """

    def __init__(self, names: dict[int, str]):
        self._names = names
        self._hash = hashlib.blake2b(digest_size=16)
        # Objects by id, kept alive so that no id is used twice.
        self._seen: dict[int, object] = {}

    def digest(self) -> bytes:
        """Of all that was added."""
        return self._hash.digest()

    def add(self, value: Any) -> None:
        """Enter a value as deep as it goes."""
        name = self._names.get(id(value))
        if name is not None:
            self._note(name)
        elif isinstance(value, _PLAIN):
            self._note(f"{type(value).__name__} {value!r}")
        elif id(value) in self._seen:
            self._note("again")
        else:
            self._seen[id(value)] = value
            self._note(type(value).__qualname__)
            self._add_new(value)

    def add_class(self, cls: type) -> None:
        """Enter attributes of a class that is the user's own, and of the classes it comes from."""
        for base in cls.__mro__:
            if _of_a_library(base) or id(base) in self._seen:
                continue
            self._seen[id(base)] = base
            for name, value in vars(base).items():
                if not (name.startswith("__") and name.endswith("__")) or name == "__call__":
                    self._note(name)
                    self._add_member(value)

    def _add_member(self, value: Any) -> None:
        if isinstance(value, property):
            self.add(value.fget)
        else:
            self.add(value)

    def _note(self, text: str) -> None:
        self._hash.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def _add_new(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray):
            self._add_array(value)
        elif isinstance(value, Mapping):
            self._add_items(value)
            self.add(getattr(value, "__dict__", None))  # of a subclass
        elif isinstance(value, list | tuple | deque):
            self._note(str(len(value)))
            for item in value:
                self.add(item)
            self.add(getattr(value, "__dict__", None))  # of a subclass
        elif isinstance(value, set | frozenset):
            self._note(" ".join(sorted(map(repr, value))))
        elif isinstance(value, weakref.ref):
            self.add(value())
        elif isinstance(value, _FUNCTIONS):
            self._add_function(value)
        elif isinstance(value, type):
            self.add_class(value)
        elif not isinstance(value, types.ModuleType | types.BuiltinFunctionType):
            self._add_object(value)

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        self._note(f"{tuple(tensor.shape)} {tensor.dtype}")
        with torch.no_grad():
            dense = tensor.detach()
            dense = dense if dense.layout == torch.strided else dense.to_dense()
            dense = dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
            self._hash.update(dense.view(torch.uint8).numpy().data)
        self._add_items(vars(tensor))

    def _add_array(self, array: np.ndarray[Any, Any]) -> None:
        self._note(f"{array.shape} {array.dtype}")
        if array.dtype.hasobject:
            for item in array.ravel().tolist():
                self.add(item)
        else:
            self._hash.update(np.ascontiguousarray(array).tobytes())

    def _add_items(self, items: Mapping[Any, Any]) -> None:
        self._note(str(len(items)))
        for key, value in items.items():
            self.add(key)
            self.add(value)

    def _add_function(self, function: Any) -> None:
        if isinstance(function, types.MethodType):
            self.add(function.__self__)
            function = function.__func__
        elif isinstance(function, staticmethod | classmethod):
            function = function.__func__
        elif isinstance(function, functools.partial):
            for bound in (function.func, function.args, function.keywords):
                self.add(bound)
            return
        if not isinstance(function, types.FunctionType) or _of_a_library(function):
            self._note(str(getattr(function, "__qualname__", "")))
            return
        for part in (function.__defaults__, function.__kwdefaults__, vars(function)):
            self.add(part)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # not filled yet
                self._note("empty")
        for name in sorted(_names(function.__code__)):
            value = function.__globals__.get(name)
            own = isinstance(value, types.FunctionType) and not _of_a_library(value)
            if own or isinstance(value, _KEPT_IN_GLOBALS):
                self._note(name)
                self.add(value)

    def _add_object(self, value: Any) -> None:
        self.add_class(type(value))
        self._add_slots(value)
        if isinstance(value, torch.Generator):
            self.add(value.get_state())
        elif isinstance(value, random.Random):
            self.add(value.getstate())
        elif isinstance(value, functools._lru_cache_wrapper):
            self._note(str(value.cache_info().currsize))
            self.add(value.__wrapped__)
        elif getattr(value, "__dict__", None):
            self._add_items(vars(value))
        else:
            self._add_reduced(value)

    def _add_slots(self, value: Any) -> None:
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                    self._note(name)
                    self.add(getattr(value, name))

    def _add_reduced(self, value: Any) -> None:
        """Enter what pickle would keep of an object that has no attributes, such as an iterator."""
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # whatever an object raises that cannot be pickled
            return
        if isinstance(parts, tuple):
            for part in parts:
                self.add(list(part) if isinstance(part, Iterator) and part is not value else part)


def _names(code: types.CodeType) -> set[str]:
    """Global names that code uses, that of inner functions as well."""
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _of_a_library(thing: Any) -> bool:
    """Whether a class or function comes with a library, or with dpfc."""
    module = getattr(thing, "__module__", None) or "builtins"
    return module.split(".")[0] in _LIBRARIES or module.startswith("dpfc.")
