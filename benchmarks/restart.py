"""How long the app is away when its workers are killed under load: results/restart.json.

    python benchmarks/restart.py            one minute; needs Linux

`purple serve --workers N` runs in a process of its own while clients ask it for the same image;
then one worker or all are killed (SIGKILL), or all are replaced as asked (SIGHUP). Seconds are
from the kill to the first answer to what was asked after it. The processor time of a start is told
beside: on a machine that is busy with other things the seconds are those of the queue.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from purpleteam.core.machine import machine, versions
from purpleteam.serve.checks._web import STROKE, Reply, ask
from purpleteam.serve.checks.restart import COMMAND, UNLIMITED, Load, children, program

ROOT = Path(__file__).resolve().parent.parent
CASES = {"the only one of 1": (1, 1), "one of 2": (2, 1), "all of 2": (2, 2)}
SETTLE, PATIENCE = 1.5, 20.0  # seconds


def wait(until: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    began = time.monotonic()
    while not until():
        if time.monotonic() > began + PATIENCE:
            raise TimeoutError
        time.sleep(0.01)


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pids: set[int]) -> float:
    """Return the memory of processes; what they share, also with others, counts once."""
    own, shared = 0, 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(size.split()[0]) for name, size in (row.split(":") for row in lines)}
        own += sizes["Private_Clean"] + sizes["Private_Dirty"]
        shared = max(shared, sizes["Shared_Clean"] + sizes["Shared_Dirty"])
    return round((own + shared) / 1024, 1)


def killed(workers: int, victims: int, turns: int) -> dict[str, object]:
    """Kill so many of the workers, turn after turn; return what became of the clients."""
    away, costs, command = [], [], (*COMMAND, *UNLIMITED, "--workers", str(workers))
    began = time.monotonic()
    with program(command) as (url, process):
        ready = time.monotonic() - began
        right, load = ask(url, "POST", "/predict", STROKE), Load(url)
        with load.running():
            for _ in range(turns):
                wait(lambda: len(children(process)) == workers)
                time.sleep(SETTLE)
                before, moment = children(process), time.monotonic()
                for pid in list(before)[:victims]:
                    os.kill(pid, signal.SIGKILL)
                wait(lambda: load.first_after(moment) is not None)  # noqa: B023 - called at once
                away.append(load.first_after(moment))
                wait(lambda: len(children(process)) == workers)
                time.sleep(SETTLE)
                costs += [processor_seconds(pid) for pid in children(process) - before]
            memory = megabytes({process.pid, *children(process)})
    return {
        "workers": workers,
        "killed": victims,
        "seconds_away": away,
        "cpu_seconds_of_a_start": round(statistics.median(costs), 2),
        "seconds_to_ready": round(ready, 2),
        "megabytes": memory,
        **counted(load, right),
    }


def counted(load: Load, right: Reply) -> dict[str, int]:
    """Return how many questions were answered rightly, wrongly and not at all."""
    answers = [reply for *_, reply in load.answers]
    return {
        "answered": sum(reply[::2] == right[::2] for reply in answers),
        "wrong": sum(reply.status != 0 and reply[::2] != right[::2] for reply in answers),
        "cut": sum(reply.status == 0 for reply in answers),
        "refused": load.refused,
    }


def replaced(turns: int) -> dict[str, object]:
    """Replace both workers as asked, turn after turn; nobody should notice."""
    with program((*COMMAND, *UNLIMITED, "--workers", "2")) as (url, process):
        right, load = ask(url, "POST", "/predict", STROKE), Load(url)
        with load.running():
            for _ in range(turns):
                wait(lambda: len(children(process)) == 2)
                time.sleep(SETTLE)
                before = children(process)
                process.send_signal(signal.SIGHUP)
                wait(lambda: len(children(process)) == 2 and not children(process) & before)  # noqa: B023
    return {"workers": 2, "replaced": 2 * turns, **counted(load, right)}


def main() -> None:
    """Measure each case, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "restart.json")
    asked = parser.parse_args()
    rows = {name: killed(*case, asked.turns) for name, case in CASES.items()}
    rows["both replaced as asked"] = replaced(asked.turns)
    for name, row in rows.items():
        print(f"{name}: {row}")
    content = {
        "rows": rows,
        "load": round(os.getloadavg()[0], 1),
        "niceness": os.nice(0),
        "cores": os.cpu_count(),
        "versions": versions(),
        "machine": machine(),
    }
    asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
