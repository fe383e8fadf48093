"""`purple --reproducible`: kernels that every x86 processor has, and their results."""

from __future__ import annotations

import os
import subprocess
import sys

from purpleteam.core.machine import KERNELS, is_reproducible

RESTARTED = """
from purpleteam.core.machine import is_reproducible
from purpleteam.cli import main
if is_reproducible():
    print("under the settings")
main(["--reproducible", "--version"])
"""
ROOTS = """
import numpy as np, torch
from purpleteam.models.devices import has_fast_bf16
x = torch.rand(64, 33, generator=torch.Generator().manual_seed(0))
found = [x.sqrt(), x.clone().sqrt_(), torch.sqrt(x, out=torch.empty_like(x))]
found += torch._foreach_sqrt([x])
assert all(np.array_equal(one.numpy(), np.sqrt(x.numpy())) for one in found)
y = x.clone().requires_grad_(True)
y.sqrt().sum().backward()
torch.testing.assert_close(y.grad, 0.5 / x.sqrt())
assert torch.tensor(4).sqrt() == 2 and torch.tensor([4.0]).half().sqrt().dtype == torch.float16
assert not has_fast_bf16("cpu") and torch.backends.cpu.get_cpu_capability() == "DEFAULT"
"""


def python(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    return done.stdout


def test_the_command_starts_itself_anew_whatever_the_environment_asks_for() -> None:
    assert not is_reproducible()
    said = python(RESTARTED, {"ATEN_CPU_CAPABILITY": "avx2"})
    assert said.startswith("under the settings\npurpleteam ")


def test_a_square_root_is_correctly_rounded_and_no_wider_kernel_is_used() -> None:
    python(ROOTS, KERNELS)
