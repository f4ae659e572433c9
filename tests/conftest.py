"""What all tests need of the process that they run in."""

import signal


def pytest_sessionstart():
    """Hear Ctrl-C: a shell that runs tests in the background has it ignored, children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
