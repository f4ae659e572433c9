"""Parameters in messages, spelled as whoever reads them writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

__all__ = ["Flags", "flags_of", "in_flags"]

# Not inside paths, quoted names, flags or longer words.
_WORD = r"(?<![\w./'\"`-])"
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|\[[^\]]*\]|…|[\w.*+-]*[\w*+-])"


@dataclass(frozen=True)
class Flags:
    """How an option is written: with a value or as a switch on, and as a switch off."""

    on: str
    off: str | None


def flags_of(command: Any, arguments: Sequence[str]) -> dict[str, Flags]:
    """The options of the command that a command line runs, by the names of Python.

    Parameters
    ----------
    command : click.Command
        The program's.
    arguments : sequence of str
        Without the program's name.
    """
    for argument in arguments:
        command = getattr(command, "commands", {}).get(argument, command)
    found = {}
    for parameter in command.params:
        flags = [flag for flag in (*parameter.opts, *parameter.secondary_opts) if flag[:2] == "--"]
        if flags:
            off = next((flag for flag in parameter.secondary_opts if flag[:2] == "--"), None)
            found[parameter.name] = Flags(flags[0], off)
            if parameter.name.startswith("no_"):  # a switch that takes away what Python has
                found[parameter.name.removeprefix("no_")] = Flags(flags[0], flags[0])
    return found


def in_flags(message: str, flags: Mapping[str, Flags]) -> str:
    """Put a command's options in the place of the parameters that a message of Python names.

    ``text_column=…`` becomes ``--text-column …``, ``overwrite=True`` becomes ``--overwrite``, and a
    name with an underscore becomes its flag. Other words stay: ``labels`` may be just a word.
    """
    for name, flag in flags.items():
        message = re.sub(rf"{_WORD}{name}=({_VALUE})", partial(_with_value, flag), message)
        if "_" in name:
            message = re.sub(rf"{_WORD}{name}\b(?![/'\"`=(]|\.\w)", flag.on, message)
    return message


def _with_value(flag: Flags, found: re.Match[str]) -> str:
    value = found.group(1)
    if value == "True":
        return flag.on
    if value == "False":
        return flag.off or f"no {flag.on}"
    if value.startswith("["):
        return f"{flag.on} …"
    return f"{flag.on} {value.strip(chr(39) + chr(34))}"
