import signal

import pytest


@pytest.fixture
def interruptible():
    """SIGINT as in a terminal: a shell starts a job in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
