"""Parameters on the API pages: griffe misreads two habits of numpydoc, and imports nothing."""

from __future__ import annotations

from typing import Any

from griffe import (
    Alias,
    Class,
    DocstringSectionParameters,
    ExprSubscript,
    ExprTuple,
    Extension,
    Function,
    Module,
    Object,
    Parameters,
)

_LAST = ("random_state", "verbose")


class ParameterTables(Extension):
    """Defaults as the signature has them, and a type such as "path-like" without spaces.

    griffe takes the first of several choices for the default, although a parameter may have
    none, and reads "path-like or None" as a subtraction. A dataclass's signature becomes what
    `dpfc._support.validation.declared` makes of it.
    """

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Go through the public names; listed after "dataclasses", which makes signatures."""
        for module in (pkg, *pkg.members.values()):
            if isinstance(module, Module):
                for name in set(module.exports or ()) & module.members.keys():
                    _correct(module.members[name])


def _correct(item: Object | Alias) -> None:
    if isinstance(item, Alias):
        item = item.final_target
    if isinstance(item, Class):
        for member in item.members.values():
            _correct(member)
        init = item.members.get("__init__")
        if "dataclass" in item.labels and isinstance(init, Function):
            for parameter in init.parameters:
                parameter.annotation = _without_constraint(parameter.annotation)
            ordered = sorted(init.parameters, key=lambda parameter: parameter.name in _LAST)
            init.parameters = Parameters(*ordered)
    if item.docstring is None or not isinstance(item, Class | Function):
        return
    for section in item.docstring.parsed:
        if isinstance(section, DocstringSectionParameters):
            for parameter in section.value:
                if parameter.name in item.parameters:
                    parameter.value = item.parameters[parameter.name].default
                parameter.annotation = _joined(parameter.annotation)


def _without_constraint(annotation: Any) -> Any:
    match annotation:
        case ExprSubscript(canonical_path="typing.Annotated", slice=ExprTuple(elements=[kind, *_])):
            return kind
    return annotation


def _joined(annotation: Any) -> Any:
    text = str(annotation)
    return text.replace(" - ", "-") if " - " in text else annotation
