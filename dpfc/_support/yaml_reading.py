"""YAML as a person wrote it, within bounds: plain values, and the lines where they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dpfc._support.files import read_regular
from dpfc._support.limits import LimitError, check_limit

__all__ = ["parse_yaml", "read_yaml"]

_OCTAL = re.compile(r"[-+]?0[0-9_]+")


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """Nodes and values of a YAML file; both None if it is empty.

    Raises
    ------
    OSError
        If it cannot be opened, or is no regular file.
    LimitError
        If it is larger than the limits, aliases counted as what they stand for.
    ValueError
        If it is not YAML of plain values; with the line.
    """
    content = read_regular(path, limit="yaml_bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not YAML: it is not UTF-8. Convert it.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """Nodes and values of a text; raises as `read_yaml` does.

    Parameters
    ----------
    text : str
    where : str
        What the text is, for messages.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None, None
        # An alias stands for the same node; only what is built of it multiplies.
        check_limit("yaml_nodes", _count(root, {}), f"{where} stands for too many values")
        return root, loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise ValueError(f"{where}{line}: not YAML: {problem}.") from None
    except LimitError:
        raise
    # Such as the 99th of a month, an integer of thousands of digits, a word tagged as a time.
    except (ValueError, AttributeError, TypeError, LookupError, OverflowError):
        raise ValueError(f"{where}: not YAML: it holds a date or number that is none.") from None
    except RecursionError:
        raise ValueError(f"{where}: not a study: its values are nested too deeply.") from None


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Values below a node, itself with them."""
    if not isinstance(node, yaml.CollectionNode):
        _refuse_old_numbers(node)
        return 1
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            mark = node.start_mark
            raise yaml.MarkedYAMLError(problem="a value holds itself", problem_mark=mark)
        return count
    known[id(node)] = None
    parts = node.value
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    total = 1 + sum(_count(part, known) for part in parts)
    known[id(node)] = total
    return total


def _refuse_old_numbers(node: yaml.Node) -> None:
    """Refuse 010, which YAML 1.1 takes for 8, and 1:30, which it takes for 90."""
    number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    if number and (":" in node.value or _OCTAL.fullmatch(node.value)):
        raise yaml.MarkedYAMLError(
            problem=f"{node.value[:40]!r} would be read to base 8 or 60: write it as a plain "
            "number, or in quotes if it is a text",
            problem_mark=node.start_mark,
        )
