"""How many names a pattern with braces stands for, counted before any is made."""

import re

__all__ = ["count_names"]

_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?")


def count_names(pattern: str) -> int:
    """Names that ``braceexpand`` would give; the rules are bash's.

    Raises
    ------
    ValueError
        If the braces do not match.
    RecursionError
        If they are nested too deeply.
    """
    count = 1
    for expression in _groups(pattern):
        count *= _count_group(expression)
    return count


def _groups(pattern: str) -> list[str]:
    """What stands in the outermost braces."""
    groups, depth, start = [], 0, 0
    for place, sign in _signs(pattern):
        if sign == "{":
            start = place + 1 if depth == 0 else start
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                groups.append(pattern[start:place])
    if depth != 0:
        raise ValueError("the braces do not match")
    return groups


def _count_group(expression: str) -> int:
    if (found := _NUMBERS.fullmatch(expression)) is not None:
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1) or 1
        return abs(last - first) // step + 1
    if (found := _LETTERS.fullmatch(expression)) is not None:
        return abs(ord(found[2]) - ord(found[1])) // (int(found[3] or 1) or 1) + 1
    return sum(count_names(part) for part in _alternatives(expression))


def _alternatives(expression: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for place, sign in _signs(expression):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            parts.append(expression[start:place])
            start = place + 1
    return [*parts, expression[start:]]


def _signs(text: str) -> list[tuple[int, str]]:
    """Braces and commas with their places; a backslash takes the next one's meaning."""
    found, place = [], 0
    while place < len(text):
        if text[place] in "{},":
            found.append((place, text[place]))
        place += 2 if text[place] == "\\" else 1
    return found
