"""The soundness verdict on every honest net with every ladder, and on every masked net.

    python benchmarks/soundness_grid.py

tests/attacks holds the same on a part of these: here are all the pairs. Prints a line for each
verdict that is not the right one, and ends with their number: two minutes on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "attacks"))

from attack_models import Deceiver
from soundness_models import HONEST, MASKED, honest, small_digits
from test_attack_soundness_honest import LADDERS, verdict

from purpleteam.attacks import PGD


def main() -> None:
    """Go through both grids."""
    images, wrong = small_digits().test.first(60), 0
    for name in HONEST:
        for ladder, attack in LADDERS.items():
            soundness = verdict(honest(name), images, attack)
            if soundness.reasons:
                wrong += 1
                print(f"{name}, {ladder}: {soundness.verdict}, {soundness.reasons}", flush=True)
    coarse = PGD(norm="l2", epsilon=0.5, steps=20)
    for name, answer in MASKED.items():
        soundness = verdict(Deceiver(honest("batch norm"), answer), images.first(12), coarse)
        if soundness.verdict != "not_established":
            wrong += soundness.verdict == "sound"
            print(f"{name} on few images, l2: {soundness.verdict}", flush=True)
    print(f"{wrong} of {len(HONEST) * len(LADDERS) + len(MASKED)} verdicts are wrong")


if __name__ == "__main__":
    main()
