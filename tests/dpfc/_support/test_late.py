"""torch comes when first used, and whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

INTERRUPTED = """
import os, signal, threading, time
import numpy as np
from dpfc import DPFCClassifier
model = DPFCClassifier(epsilon=8.0, classes=[0, 1], n_samples=40)
X, y = np.eye(40), np.arange(40) % 2
threading.Timer({delay}, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    model.fit(X, y)
    time.sleep(3.0)
except KeyboardInterrupt:
    print("interrupted")
model.fit(X, y)
print("fitted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize("delay", [0.01, 0.5])
def test_an_interrupt_while_torch_is_imported_comes_after_it(delay):
    """Else the process is left with half of it, and the next fit fails or crashes."""
    code = INTERRUPTED.format(delay=delay)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["interrupted", "fitted", "True"]
