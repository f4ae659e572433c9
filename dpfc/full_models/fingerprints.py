"""A digest of whatever Python objects hold, to see whether they were changed."""

from __future__ import annotations

import functools
import gc
import hashlib
import logging
import random
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["Fingerprint", "digest_of"]

_PLAIN = (
    bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, np.generic,
    types.UnionType, types.GenericAlias,
)  # fmt: skip
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, staticmethod, classmethod)
# Whose functions and classes keep nothing of a user's rows, and are large.
_LIBRARIES = ("torch", "numpy", "opacus", "scipy", "sklearn", "builtins", "collections", "abc")
# Of a class that every class has, whatever was done to its objects.
_OF_EVERY_CLASS = frozenset(
    (
        "__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__qualname__",
        "__slotnames__", "__annotations_cache__",  # noted down at a first look
    )
)  # fmt: skip
# Of a logger: from these one comes to all loggers of a process, which libraries add to.
_OF_ALL_LOGGERS = ("manager", "parent", "handlers", "_cache", "root")
# Types without a digest of their objects, which keep nothing of a user's rows.
_KEEPS_NOTHING = ("torch", "numpy", "typing", "_abc", "_thread", "logging", "re", "opacus")
# What code of installed packages is asked for: they name much that is large and theirs.
_KEPT_IN_GLOBALS = (torch.Tensor, np.ndarray, list, dict, set, deque, int, float, str, bytes)


class Fingerprint:
    """Walks through an object, and digests what it finds.

    Parameters
    ----------
    names : dict of int to str
        Objects by their id that count by name alone: they are looked at elsewhere.
    where : str, default="an object"
        For words: what is added.
    """

    def __init__(self, names: dict[int, str], where: str = "an object"):
        self._names = names
        self._where: str | None = where
        self._hash = hashlib.blake2b(digest_size=16)
        # Objects by id, kept alive so that no id is used twice.
        self._seen: dict[int, object] = {}
        self._classes: set[type] = set()

    def digest(self) -> bytes:
        """Of all that was added."""
        return self._hash.digest()

    def add(self, value: Any) -> None:
        """Enter a value as deep as it goes.

        Raises
        ------
        ValueError
            If something in it does not tell what it holds, such as a generator.
        """
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
            if _of_a_library(base) or base in self._classes:
                continue
            self._classes.add(base)
            for name, value in vars(base).items():
                if name not in _OF_EVERY_CLASS:
                    self._note(name)
                    self._add_member(value)

    def _add_member(self, value: Any) -> None:
        if isinstance(value, property):
            self.add((value.fget, value.fset))
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
        elif isinstance(value, bytearray | memoryview):
            self._hash.update(bytes(value))
        elif isinstance(value, weakref.ref):
            self.add(value())
        elif isinstance(value, types.CellType):
            self._add_cell(value)
        elif isinstance(value, _FUNCTIONS):
            self._add_function(value)
        elif isinstance(value, type):
            self.add_class(value)
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            self.add(value.__self__)  # as the list of its `append`
        elif not isinstance(value, types.ModuleType):
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
            self._add_cell(cell)
        self._add_globals(function.__globals__, _names(function.__code__))

    def _add_cell(self, cell: types.CellType) -> None:
        if cell == types.CellType():  # not filled yet
            self._note("empty")
        else:
            self.add(cell.cell_contents)

    def _add_globals(self, scope: dict[str, Any], names: set[str]) -> None:
        """Enter what code names: of the user's own all, of installed packages what is plain."""
        own = not _installed(scope)
        for name in sorted(names & scope.keys()):
            value = scope[name]
            if isinstance(value, types.ModuleType):
                if own and not _of_a_library(value) and not _installed(vars(value)):
                    self._add_module(value, names)
            elif _is_kept(value) or (own and not _is_of_a_library(value)):
                self._note(name)
                with self._at(f"the global {name!r}" if own else None):
                    self.add(value)

    def _add_module(self, module: types.ModuleType, names: set[str]) -> None:
        if id(module) not in self._seen:
            self._seen[id(module)] = module
            self._add_globals(vars(module), names)

    @contextmanager
    def _at(self, where: str | None) -> Iterator[None]:
        """Name a place; None for a library's own, of which nothing is refused."""
        outer, self._where = self._where, where
        yield
        self._where = outer

    def _add_object(self, value: Any) -> None:
        self.add_class(type(value))
        self._add_slots(value)
        if isinstance(value, torch.Generator):
            self.add(value.get_state())
        elif isinstance(value, random.Random):
            self.add(value.getstate())
        elif isinstance(value, functools._lru_cache_wrapper):
            self._add_cache(value)
        elif isinstance(value, logging.Logger):
            own = {name: kept for name, kept in vars(value).items() if name not in _OF_ALL_LOGGERS}
            self._add_items(own)
        elif isinstance(value, threading.local) or getattr(value, "__dict__", None):
            self._add_items(vars(value))
        else:
            self._add_reduced(value)

    def _add_cache(self, function: Any) -> None:
        """Enter what `functools.lru_cache` keeps.

        Hits are left out: they count passes, which a cache that depends on shapes may do.
        """
        info = function.cache_info()
        self._note(f"{info.misses} {info.currsize}")
        for part in gc.get_referents(function):
            for kept in (*part, *part.values()) if isinstance(part, dict) else (part,):
                if type(kept).__name__ != "_lru_list_elem":  # what is in there comes by itself
                    self.add(kept)

    def _add_slots(self, value: Any) -> None:
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                    self._note(name)
                    self.add(getattr(value, name))

    def _add_reduced(self, value: Any) -> None:
        """Enter what pickle would keep of an object that has no attributes, such as an iterator."""
        draws = isinstance(value, np.random.Generator | np.random.RandomState)
        if type(value).__module__.split(".")[0] in _KEEPS_NOTHING and not draws:
            return
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # whatever an object raises that cannot be pickled
            if self._where is None:
                return
            raise ValueError(
                f"{self._where} is, or holds, a {type(value).__qualname__}, which does not tell "
                "whether it keeps something of rows. Remove it."
            ) from None
        if isinstance(parts, tuple):
            for part in parts:
                self.add(list(part) if isinstance(part, Iterator) and part is not value else part)


def digest_of(value: object, names: dict[int, str], where: str) -> bytes:
    """Digest a value as deep as it goes; see `Fingerprint`."""
    fingerprint = Fingerprint(names, where)
    fingerprint.add(value)
    return fingerprint.digest()


def _names(code: types.CodeType) -> set[str]:
    """Global names that code uses, that of inner functions as well."""
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _of_a_library(thing: Any) -> bool:
    """Whether a class, function or module comes with a library, Python, or dpfc."""
    own_name = thing.__name__ if isinstance(thing, types.ModuleType) else None
    module = own_name or getattr(thing, "__module__", None) or "builtins"
    top = module.split(".")[0]
    return top in _LIBRARIES or top in sys.stdlib_module_names or top == "dpfc"


def _is_of_a_library(value: Any) -> bool:
    """Whether it is a function or class of a library, rather than an object that holds things."""
    return isinstance(value, type | types.FunctionType) and _of_a_library(value)


def _is_kept(value: Any) -> bool:
    own_function = isinstance(value, types.FunctionType) and not _of_a_library(value)
    return own_function or isinstance(value, _KEPT_IN_GLOBALS)


def _installed(scope: dict[str, Any]) -> bool:
    """Whether globals are of a package that was installed, and not the user's own."""
    return any(part in (scope.get("__file__") or "") for part in ("site-packages", "dist-packages"))
