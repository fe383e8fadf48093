"""What Opacus' accountants say beside those of dp-accounting, into results/privacy.json.

`python benchmarks/privacy_accountant.py --judge PYTHON`, where PYTHON is of an environment of its
own, as dp-accounting asks for another attrs: `python -m venv DIR; DIR/bin/pip install
dp-accounting==0.6.0`. There this file runs again, alone, and answers for dp-accounting.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "results" / "privacy.json"
CASES = [
    {"noise_multiplier": noise, "sampling_rate": rate, "steps": steps, "delta": delta}
    for noise, rate, steps, delta in (
        *itertools.product((0.8, 1.5, 4.0), (0.01, 0.0745), (100, 1000), (1e-5, 1e-6)),
        (1.0, 1.0, 1, 1e-5),
        (6.0, 1.0, 30, 1e-5),
    )
]


def main() -> None:
    """Ask both, and write what they say, unless it is this file that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", help="Python of an environment that has dp-accounting")
    parser.add_argument("--answer", action="store_true", help="answer for dp-accounting")
    asked = parser.parse_args()
    if asked.answer:
        json.dump(answers(json.load(sys.stdin)), sys.stdout)
    elif asked.judge is None:
        parser.error("--judge is missing: the Python of an environment that has dp-accounting")
    else:
        told = compared(asked.judge)
        kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
        kept["accountant"] = told
        RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def answers(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what dp-accounting says; nothing of ours is imported."""
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    rows = []
    for case in cases:
        step = dp_event.PoissonSampledDpEvent(
            case["sampling_rate"], dp_event.GaussianDpEvent(case["noise_multiplier"])
        )
        whole = dp_event.SelfComposedDpEvent(step, case["steps"])
        rows.append(
            {
                "pld": PLDAccountant().compose(whole).get_epsilon(case["delta"]),
                "rdp": RdpAccountant().compose(whole).get_epsilon(case["delta"]),
            }
        )
    return {"version": importlib.metadata.version("dp-accounting"), "rows": rows}


def compared(judge: str) -> dict[str, Any]:
    """Return each case with the four numbers, and how far they are apart."""
    from purpleteam.core.machine import machine, versions
    from purpleteam.defences.training.dp_sgd import epsilon_of

    done = subprocess.run(
        [judge, __file__, "--answer"],
        input=json.dumps(CASES),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{judge} has no dp-accounting that answers: {done.stderr.strip()[-300:]}")
    theirs = json.loads(done.stdout)
    rows = []
    for case, row in zip(CASES, theirs["rows"], strict=True):
        ours = {kind: epsilon_of(**case, accountant=kind) for kind in ("prv", "rdp")}
        rows.append(case | {"opacus": ours, "dp_accounting": row})
    gaps = [row["opacus"]["prv"] - row["dp_accounting"]["pld"] for row in rows]
    return {
        "rows": rows,
        "prv_minus_pld": {"least": min(gaps), "most": max(gaps)},
        "opacus": importlib.metadata.version("opacus"),
        "dp_accounting": theirs["version"],
        "machine": machine(),
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
