"""Draws rooms.svg, the rooms of the house and which of them imports which, from the code itself.

python docs/rooms.py
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"
FOLDERS = ("accounting", "features", "experiments")
WIDTH, BOX, GAP = 980, 64, 46
LINE = '<path d="M{x},{y} C{x},{y2} {u},{v2} {u},{v}" stroke-width="{width:.1f}"/>'


def imports() -> grimp.ImportGraph:
    """Imports between modules as they are called when installed; benchmarks are not."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "dpfc")
        package.mkdir()
        for path in [*(ROOT / "dpfc").iterdir(), *(ROOT / name for name in FOLDERS)]:
            (package / path.name).symlink_to(path)
        sys.path.insert(0, folder)
        try:
            graph = grimp.build_graph("dpfc", exclude_type_checking_imports=True, cache_dir=None)
        finally:
            sys.path.remove(folder)
    for module in sorted(graph.modules):
        if module.startswith("dpfc.experiments.benchmarks"):
            graph.remove_module(module)
    return graph


def room_of(module: str) -> str:
    """The part of the package that a module is in."""
    return module.split(".")[1] if "." in module else ""


def arrows(graph: grimp.ImportGraph) -> Counter[tuple[str, str]]:
    """How many imports there are from one room to another."""
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = room_of(module), room_of(imported)
            if not {"", "_version", "exceptions"} & set(pair) and pair[0] != pair[1]:
                found[pair] += 1
    return found


def floors(rooms: set[str], found: Counter[tuple[str, str]]) -> list[list[str]]:
    """Rooms from the top down; each stands above all that it imports."""
    height = dict.fromkeys(rooms, 0)
    for _, (above, below) in product(rooms, found):
        height[above] = max(height[above], height[below] + 1)
    if max(height.values()) >= len(rooms):
        raise ValueError("rooms import each other in a circle")
    return [
        sorted(room for room in rooms if height[room] == level)
        for level in range(max(height.values()), -1, -1)
    ]


def sub_rooms(graph: grimp.ImportGraph, room: str) -> str:
    """Names of the folders in a room."""
    children = graph.find_children(f"dpfc.{room}")
    return " · ".join(sorted(c.rpartition(".")[2] for c in children if graph.find_children(c)))


def draw(graph: grimp.ImportGraph) -> str:
    """The picture as SVG."""
    found = arrows(graph)
    rooms = {room for pair in found for room in pair}
    files = Counter(room_of(module) for module in graph.modules)
    place, boxes = {}, []
    levels = floors(rooms, found)
    for level, names in enumerate(levels):
        y, slot = 20 + level * (BOX + GAP), WIDTH / len(names)
        for number, name in enumerate(names):
            x = slot * (number + 0.5)
            place[name] = (x, y)
            half = min(slot, 420) / 2 - 12
            boxes += [
                f'<rect x="{x - half:.0f}" y="{y}" width="{2 * half:.0f}" height="{BOX}" rx="8"/>',
                f'<text x="{x:.0f}" y="{y + 24}" class="name">{name} ({files[name]})</text>',
                f'<text x="{x:.0f}" y="{y + 46}">{sub_rooms(graph, name)}</text>',
            ]
    lines = []
    for (above, below), n in sorted(found.items()):
        (x, y), (u, v) = place[above], place[below]
        lines.append(
            LINE.format(
                x=f"{x:.0f}",
                y=y + BOX,
                u=f"{u:.0f}",
                v=v,
                y2=y + BOX + 40,
                v2=v - 40,
                width=0.6 + n**0.5 / 2,
            )
        )
    height = 20 + len(levels) * (BOX + GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="13" text-anchor="middle">',
            "<style>rect{fill:#eef1fb;stroke:#3f51b5}path{fill:none;stroke:#3f51b5;opacity:.45}"
            ".name{font-size:16px;font-weight:600}</style>",
            *lines,
            *boxes,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    picture.write_text(draw(imports()), encoding="utf-8")
