"""What holds for every test: one thread, no deadline on a busy machine, and that Ctrl-C arrives."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import pytest

# Read by the thread pools when they start, so they must stand here before any test imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background so, and a program that a test stops would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

with suppress(ImportError):  # the tests of the base install run where pytest is all there is
    from hypothesis import settings

    settings.register_profile("purpleteam", deadline=None, max_examples=40)
    settings.load_profile("purpleteam")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep torch to one thread where a test has loaded it; the others need not wait for it."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
