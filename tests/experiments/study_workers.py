"""What studies under test run in processes of their own.

A process finds a function by the name of its module, and `tests` may be another package there:
some that pip installs bring one. So these lie in a module that tests share.
"""

import os
import signal
import time

from dpfc.experiments.studies import loop


def die_for_half(spec):
    """Kill the process at ε = 0.5."""
    if spec.epsilon == 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    return loop.failed_record("small", spec, "lived")


def sleep_for_long(spec):
    """Never end by itself."""
    time.sleep(600)
