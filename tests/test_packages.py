"""Every folder of the code is in the wheel, under the name that it is imported by."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["options"]


def test_the_packages_of_setup_cfg_are_the_folders_of_the_tree():
    homes = dict(line.split(" = ") for line in settings()["package_dir"].strip().splitlines())
    found = [
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for name, folder in homes.items()
        for init in (ROOT / folder).rglob("__init__.py")
    ]
    assert sorted(settings()["packages"].split()) == sorted(found)


def test_every_file_of_code_lies_in_a_package():
    for folder in ("dpfc", "accounting", "features", "experiments"):
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file
