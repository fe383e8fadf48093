"""What the audit log costs: records a second, CPU time of a record, and the time to verify.

    python benchmarks/audit.py               writes results/audit.json

Records are those of predictions, each digested, encoded, sent to the writer and awaited until it is
on the disk. So many tasks ask at a time: each waits for its record before it makes the next. CPU
time is of the whole process tree, and is what is judged: seconds depend on what else the machine
does, which `load` tells, and on the disk, of which `fsync_seconds` tells how fast it is at best.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from purpleteam.core.machine import machine, versions
from purpleteam.serve.audit.log import AuditLog, encoded
from purpleteam.serve.audit.verify import prove, proved, public_key, verify_log
from purpleteam.serve.audit.writer import AuditClient, Writer

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "audit.json"
ASKING = {1: 300, 16: 1000, 128: 400, 1000: 100}
"""Tasks at a time, and records of each."""
LEAST_RECORDS, MOST_VERIFY_SECONDS = 20_000, 20.0  # a second of CPU time
BODY = bytes(784)
RECORD = {"kind": "predict", "id": "0123456789abcdef", "key": "k-abcdef", "status": 200}
RECORD |= {"label": 7, "reason": None, "model": "0123456789ab"}
VERIFY = """
import resource, sys, time
from pathlib import Path
from purpleteam.serve.audit.verify import verify_log
found = verify_log(Path(sys.argv[1]))
used = resource.getrusage(resource.RUSAGE_SELF)
print(found.verdict, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)
"""


def main() -> None:
    """Measure, write what was found; too slow is a failure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the log to verify")
    parser.add_argument("--folder", type=Path, default=ROOT / "results", help="on which disk")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audit-", dir=asked.folder) as folder:
        writing = [
            write(Path(folder) / f"{tasks}-{process}.jsonl", tasks, each, process)
            for tasks, each in ASKING.items()
            for process in (False, True)
        ]
        verifying = verify(Path(folder) / "large.jsonl", asked.lines)
    content = {
        "command": "python benchmarks/audit.py",
        "machine": machine(),
        "versions": versions(),
        "load": os.getloadavg()[0],
        "writing": writing,
        "verifying": verifying,
    }
    asked.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for one in writing:
        print(*(f"{name} {value}" for name, value in one.items()))
    print(*(f"{name} {value}" for name, value in verifying.items()))
    fastest = max(one["records_per_cpu_second"] for one in writing)
    if fastest < LEAST_RECORDS or verifying["cpu_seconds"] > MOST_VERIFY_SECONDS:
        raise SystemExit(1)


def write(path: Path, tasks: int, each: int, process: bool) -> dict[str, Any]:
    """Append from one event loop; the writer is a thread or a process."""
    cpu = _cpu()
    writer = Writer(path, 1.0, process=process)
    client = AuditClient(writer.connect())

    async def ask() -> None:
        for _ in range(each):
            if not await client.append({**RECORD, "body": client.digest(BODY)}):
                raise SystemExit("a record was not written")

    async def all_ask() -> float:
        started = time.perf_counter()
        await asyncio.gather(*[ask() for _ in range(tasks)])
        return time.perf_counter() - started

    seconds = asyncio.run(all_ask())
    client.close()
    writer.close()
    used = (_cpu() - cpu) / (tasks * each)
    if verify_log(path).verdict != "pass":
        raise SystemExit("the log does not verify")
    return {
        "tasks": tasks,
        "writer": "process" if process else "thread",
        "records": tasks * each,
        "records_per_second": round(tasks * each / seconds),
        "records_per_cpu_second": round(1 / used),
        "cpu_microseconds": round(used * 1e6, 1),
        "fsync_seconds": sync(path),
    }


def verify(path: Path, lines: int) -> dict[str, Any]:
    """Write a log of so many lines, then verify it in a process of its own, and prove one line."""
    log, batch = AuditLog(path), 1000
    line = encoded({**RECORD, "body": "70e36b13bd637a62e83e48e400402149"})
    for _ in range(lines // batch):
        log.write(line * batch)
        if log.seconds_to_checkpoint() == 0.0:
            log.checkpoint()
    log.close()
    started = time.perf_counter()
    command = [sys.executable, "-c", VERIFY, str(path)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    seconds = time.perf_counter() - started
    cpu = time.process_time()
    checkpoint = verify_log(path).checkpoint
    proving = time.process_time()
    proof = prove(path, lines // 2, checkpoint)
    proving, cpu = time.process_time() - proving, proving - cpu
    if ended[0] != "pass" or not proved(line, proof, public_key(path.with_name("large.jsonl.pub"))):
        raise SystemExit("the log does not verify")
    started = time.perf_counter()
    AuditLog(path).leave()
    return {
        "lines": lines,
        "bytes": path.stat().st_size,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(float(ended[1]), 2),
        "peak_megabytes": int(ended[2]),
        "prove_cpu_seconds": round(proving, 2),
        "reopen_seconds": round(time.perf_counter() - started, 3),
    }


def sync(path: Path, times: int = 20) -> float:
    """Return how long the disk takes to hold one more line, at best."""
    with path.with_suffix(".sync").open("ab") as file:
        seconds = []
        for _ in range(times):
            started = time.perf_counter()
            file.write(b"a" * 200)
            file.flush()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return round(min(seconds), 5)


def _cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
