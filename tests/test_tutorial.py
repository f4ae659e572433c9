"""The commands of the tutorial run, in order, in one folder, as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dpfc.accounting import PrivacyLedger, PrivacyStatement, gaussian_epsilon, gaussian_mu

TUTORIAL = Path(__file__).parents[1] / "docs/tutorial-hospital.md"
BLOCK = re.compile(r"```(python|sh|text)( exit=(\d+))?\n(.*?)```", flags=re.DOTALL)
pytestmark = pytest.mark.slow
TRAIN, TEST = "stays-2026", "stays-2026-test"


def run(command: list[str] | str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> Path:
    """The reader's folder after the last command; what a `text` block quotes was printed."""
    folder = tmp_path_factory.mktemp("hospital")
    printed = ""
    for language, _, code, text in BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        if language == "text":
            for line in text.splitlines():
                assert line in printed, f"not printed: {line}\nbut:\n{printed}"
            continue
        commands = [[sys.executable, "-c", text]] if language == "python" else text.splitlines()
        printed = ""
        for command in commands:
            done = run(command, folder)
            assert done.returncode == int(code or 0), f"{command}\n{done.stdout}{done.stderr}"
            printed += done.stdout + done.stderr
    return folder


def test_every_spend_is_on_record_and_none_too_many(hospital):
    ledger = PrivacyLedger(hospital / "hospital.db")
    spends = ledger.history(TRAIN)
    assert [spend.statement.kind for spend in spends] == ["fit", "fit", "search", "fit"]
    assert [spend.statement.kind for spend in ledger.history(TEST)] == ["evaluation"]
    shares = [spend.share_of_budget for spend in spends]
    squares = [gaussian_mu(epsilon, 1e-6) ** 2 for epsilon in (1, 0.5, 1.5)]
    whole = gaussian_mu(3, 1e-6) ** 2
    assert shares[:3] == pytest.approx([square / whole for square in squares], rel=1e-6)
    assert 0.999 < sum(shares) <= 1
    assert ledger.remaining(TRAIN).epsilon < 0.1


def test_the_budget_is_worth_more_than_a_sum_of_epsilons(hospital):
    third = PrivacyLedger(hospital / "hospital.db").history(TRAIN)[3].statement
    spent = sum(gaussian_mu(epsilon, 1e-6) ** 2 for epsilon in (1, 0.5, 1.5))
    left = gaussian_mu(3, 1e-6) ** 2 - spent
    assert third.target_epsilon == pytest.approx(gaussian_epsilon(left**0.5, 1e-6), rel=1e-3)
    assert 1 + 0.5 + 1.5 + third.target_epsilon > 4


def test_the_refused_model_does_not_exist_and_the_report_covers_the_others(hospital):
    assert sorted(path.name for path in hospital.glob("*.safetensors")) == [
        "first.safetensors",
        "searched.safetensors",
        "second.safetensors",
        "third.safetensors",
    ]
    page = (hospital / "stays-2026.html").read_text(encoding="utf-8")
    assert "(ε = 3, δ = 1e-06)-DP, add or remove one patient" in page
    done = run("dpfc report privacy hospital.db --dataset stays-2026 --format json", hospital)
    statement = PrivacyStatement.from_json(done.stdout)
    assert statement.private and len(statement.budget.spends) == 4
