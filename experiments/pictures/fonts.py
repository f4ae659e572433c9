"""Fonts for names in any script: found among those installed, and no boxes where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache

__all__ = ["drawable", "families", "warn_of_letters"]

# matplotlib brings it along.
_USUAL = "DejaVu Sans"
# Of systems that are common, looked into first: a desktop has hundreds of fonts.
_PREFERRED = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans JP",
    "Noto Sans SC", "Noto Sans TC", "Noto Sans KR", "Source Han Sans", "Hiragino Sans",
    "PingFang SC", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Apple SD Gothic Neo",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "IPAexGothic", "Noto Sans Devanagari",
    "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Ethiopic", "Noto Sans",
    "Arial Unicode MS",
)  # fmt: skip
# Boxes for every letter; mathematics, some of it under the numbers of other letters.
_NOT_FOR_NAMES = ("Last Resort", "STIX", "cm")


def drawable(text: str) -> str:
    r"""Write letters that no installed font has as their numbers, such as ``\u75c5``."""
    missing = _missing(text, families(text))
    return "".join(ascii(mark)[1:-1] if mark in missing else mark for mark in text)


def warn_of_letters(texts: Iterable[str]) -> None:
    """Say once which letters `drawable` will replace, and what helps."""
    whole = "".join(texts)
    missing = sorted(_missing(whole, families(whole)))
    if missing:
        shown = "".join(missing[:10]) + ("…" if len(missing) > 10 else "")
        warnings.warn(
            f"no font that is installed here has the letters {shown}: pictures show their numbers "
            r"instead (such as \u75c5). Install one that has them, such as Noto Sans CJK.",
            UserWarning,
            stacklevel=2,
        )


def families(text: str) -> list[str]:
    """Name the fonts that draw a text: matplotlib's own, and further ones for what it lacks."""
    found = [_USUAL]
    missing = _missing(text, found)
    for name in _candidates() if missing else ():
        covered = {mark for mark in missing if ord(mark) in _letters(name)}
        if covered:
            found.append(name)
            missing -= covered
        if not missing:
            break
    return found


def _missing(text: str, names: Iterable[str]) -> set[str]:
    known = [_letters(name) for name in names]
    return {m for m in set(text) if not m.isspace() and not any(ord(m) in k for k in known)}


def _candidates() -> Iterator[str]:
    """Installed families, the likely ones first."""
    installed = _installed()
    yield from (name for name in _PREFERRED if name in installed)
    yield from sorted(
        name for name in installed if name not in _PREFERRED and not name.startswith(_NOT_FOR_NAMES)
    )


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    """Path of an upright font of each family."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    # matplotlib remembers fonts from one day to the next; some may have come since.
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                manager.addfont(path)
            except (OSError, RuntimeError):  # a file that is no font
                continue
    return {font.name: font.fname for font in manager.ttflist if font.style == "normal"}


@lru_cache(maxsize=256)
def _letters(name: str) -> frozenset[int]:
    from matplotlib import font_manager

    path = _installed().get(name) or font_manager.findfont(name)
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
