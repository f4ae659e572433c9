"""Every folder of the code is in the wheel, under the name that it is imported by."""

from __future__ import annotations

import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Run from a clone: no part of the wheel.
BENCHMARKS = "dpfc.experiments.benchmarks"


def settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["options"]


def test_the_packages_of_setup_cfg_are_the_folders_of_the_tree_without_benchmarks():
    homes = dict(line.split(" = ") for line in settings()["package_dir"].strip().splitlines())
    found = [
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for name, folder in homes.items()
        for init in (ROOT / folder).rglob("__init__.py")
    ]
    assert sorted([*settings()["packages"].split(), BENCHMARKS]) == sorted(found)


def test_nothing_that_is_installed_imports_a_benchmark():
    for folder in ("dpfc", "accounting", "features", "experiments"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.parent.name != "benchmarks":
                assert BENCHMARKS not in file.read_text(encoding="utf-8"), file


def test_every_file_of_code_lies_in_a_package():
    for folder in ("dpfc", "accounting", "features", "experiments"):
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


@pytest.mark.parametrize("package", ["dpfc", "dpfc.accounting", "dpfc.features"])
def test_every_public_name_is_there_and_listed(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="Missing"):
        module.Missing  # noqa: B018


def test_importing_a_package_waits_for_no_library():
    code = (
        "import sys, dpfc, dpfc.features; print({'torch', 'sklearn', 'pyarrow'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
