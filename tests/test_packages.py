"""Every folder of the code is in the wheel, under the name that it is imported by."""

from __future__ import annotations

import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

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


# Extras that `make test-min` installs.
MIN_EXTRAS = ("onnx", "efficientnet", "demo", "sweep", "full-models", "webdataset")


def test_the_lowest_versions_are_those_that_are_tested():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = parser["options.extras_require"]
    asked = [parser["options"]["install_requires"], *map(extras.get, MIN_EXTRAS)]
    requirements = [
        Requirement(line)
        for line in "\n".join(asked).split("\n")
        if line and not line.startswith(("#", "dpfc["))
    ]
    lines = (ROOT / "constraints-min.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert len(requirements) > 20
    for requirement in requirements:
        (bound,) = requirement.specifier
        assert bound.operator == ">=", requirement
        assert Version(pins[requirement.name]) == Version(bound.version), requirement


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
