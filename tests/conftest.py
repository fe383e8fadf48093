"""What holds for every test: one thread, whatever the machine has: same bytes everywhere."""

from __future__ import annotations

import os
import sys

import pytest

# Read by the thread pools when they start, so they must stand here before any test imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep torch to one thread where a test has loaded it; the others need not wait for it."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
