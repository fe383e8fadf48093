"""What the scan and the gate find, refuse and let pass, beside other scanners: results/scan.json.

    python benchmarks/scan.py corpora --tools FOLDER    ten minutes, most of them of other tools
    python benchmarks/scan.py corpora                   one: what the others said is kept
    python benchmarks/scan.py source --tools FOLDER     one: sinks and secrets
    python benchmarks/scan.py unseen                    half a minute
    python benchmarks/scan.py cost                      two minutes
    python benchmarks/scan.py fuzz --count N --seed S --work FOLDER

Each part writes its own part of the file. The corpora are made anew each time (scan_malicious,
scan_benign; sinks and secrets are those of the tests); what is said to run is seen to run. Fuzzing
resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import scan_benign
import scan_cost
import scan_firing
import scan_fuzzing
import scan_malicious
import scan_tools
import scan_unseen

from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import Rate
from purpleteam.scan import scan, severity_at_least
from purpleteam.scan.formats.problem import PROBLEMS
from purpleteam.scan.gate import read_state_dict
from purpleteam.scan.settle import UNREAD

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "scan.json"
EXAMPLES = ROOT / "tests" / "scan" / "examples"
GREEN = ("note", "unsupported")
NOT_READ = (PROBLEMS["unread"].id, UNREAD.id)


def ours(folder: Path) -> scan_tools.Said:
    """Return what `purple scan` says of the files under a folder."""
    result = scan([folder])
    places = {folder.name: folder.parent}

    def path(name: object) -> Path:
        return places[str(name).partition("/")[0]] / str(name)

    red = [one for one in result.findings if severity_at_least(one.severity, "medium")]
    unread = {path(one.place["path"]) for one in red if one.rule in NOT_READ}
    found = {path(one.place["path"]) for one in red if one.rule not in NOT_READ}
    lines, mild = (
        frozenset(
            (path(one.place["path"]), int(one.place.get("line", 0)))
            for one in rows
            if one.rule not in NOT_READ
        )
        for rows in (red, result.findings)
    )
    return scan_tools.Said(frozenset(found), frozenset(unread), lines, mild)


def corpora(tools: Path | None, before: dict[str, Any] | None) -> dict[str, Any]:
    """Make the corpora and let each scanner look at them; without tools, keep what others said."""
    with tempfile.TemporaryDirectory(prefix="purple-corpora-") as work:
        here = Path(work).resolve()
        (here / "malicious").mkdir()
        samples = scan_malicious.samples(here / "lies")
        written = {here / "malicious" / one.name: one for one in samples}
        for path, one in written.items():
            path.write_bytes(one.data)
        loaded = {path: one.loader for path, one in written.items() if one.loader}
        ran = scan_firing.fires(loaded)
        firing = {path for path, fired in ran.items() if fired}
        benign = {path: kind for kind, path in scan_benign.write(here / "benign")}
        said = {"purple scan": _both(ours, here)}
        absent = {}
        for name, look in scan_tools.TOOLS.items() if tools else ():
            place = tools / name.split()[0]
            try:
                said[name] = _both(lambda folder, at=place, run=look: run(at, folder), here)
            except Exception as error:
                absent[name] = f"{type(error).__name__}: {error}"[:300]
            print(name, "done" if name in said else absent[name], flush=True)
        gate = {path: read_state_dict(path) for path in [*written, *benign]}
        found = {
            "malicious": {
                "n": len(written),
                "kinds": _kinds({path: one.kind for path, one in written.items()}, firing),
                "fire": len(firing),
                "made_to_fire": len(loaded),
                "do_not_fire": sorted(path.name for path in loaded if path not in firing),
                "refused": _rate(gate[path].verdict == "refused" for path in firing),
                "refused_of_all": _rate(gate[path].verdict == "refused" for path in written),
                "green": sorted(
                    path.name for path in written
                    if not {path} & (said["purple scan"].found | said["purple scan"].unread)
                ),
            },
            "benign": {
                "n": len(benign),
                "kinds": dict(Counter(benign.values())),
                "gate": dict(Counter(
                    "accepted" if gate[path].verdict == "accepted" else
                    "unsupported, harmless" if gate[path].grade in GREEN else gate[path].grade
                    for path in benign
                )),
                "taken": _rate(gate[path].grade in GREEN for path in benign),
                "red": sorted(
                    path.relative_to(here / "benign").as_posix() for path in benign
                    if path in said["purple scan"].found | said["purple scan"].unread
                ),
            },
            "scanners": {
                name: {
                    "found": _rate(path in told.found for path in firing),
                    "green": _rate(path not in told.found | told.unread for path in firing),
                    "found_of_lies": _rate(path in told.found for path in set(written) - firing),
                    "false_alarms": _rate(path in told.found for path in benign),
                    "unread": _rate(path in told.unread - told.found for path in benign),
                }
                for name, told in said.items()
            },
            "absent": absent,
            "tools": {
                name: scan_tools.known(tools / name)
                for name in sorted(scan_tools.TOOLS)
                if (tools / name / "bin").is_dir()
            } if tools else {},
        }  # fmt: skip
    if tools is None and before is not None:
        if any(before[one]["kinds"] != found[one]["kinds"] for one in ("malicious", "benign")):
            sys.exit("the corpora have other files than before: name --tools, that all see them")
        for part in ("scanners", "tools", "absent"):
            found[part] = {**before[part], **found[part]}
    return found


def _both(look: Any, here: Path) -> scan_tools.Said:
    one, two = look(here / "malicious"), look(here / "benign")
    return scan_tools.Said(one.found | two.found, one.unread | two.unread)


def _kinds(kinds: dict[Path, str], firing: Iterable[Path]) -> dict[str, dict[str, int]]:
    every, fire = Counter(kinds.values()), Counter(kinds[path] for path in firing)
    return {kind: {"files": every[kind], "fire": fire[kind]} for kind in every}


def _rate(cases: Iterable[bool]) -> dict[str, Any]:
    told = list(cases)
    return Rate.of(sum(told), len(told)).to_json()


def source(tools: Path, here: Path) -> dict[str, Any]:
    """Return which sinks and secrets of the tests each scanner finds, and its false alarms."""
    (here / "sinks").mkdir()
    sinks, harmless = set(), set()
    for example in sorted(EXAMPLES.glob("*.py.example")):
        path = here / "sinks" / example.name.removesuffix(".example")
        path.write_text(text := example.read_text(encoding="utf-8"), encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"must trigger PT\d", line):
                sinks.add((path, number))
            elif "(" in line.partition("#")[0]:
                harmless.add((path, number))
    secrets, fine = _secrets(here / "secrets")
    found: dict[str, dict[str, Any]] = {}
    for name, look in {"purple scan": ours, **scan_tools.SOURCE_TOOLS}.items():
        place = tools / name
        code, planted, clean = (
            look(folder) if name == "purple scan" else look(place, folder)
            for folder in (here / "sinks", here / "secrets" / "planted", here / "secrets" / "fine")
        )
        for word, field in {"medium or worse": "lines", "of any severity": "mild"}.items():
            in_code, in_text = getattr(code, field), {path for path, _ in getattr(planted, field)}
            found[f"{name}, {word}"] = {
                "sinks": _rate(one in in_code for one in sinks),
                "false_sinks": _rate(one in in_code for one in harmless),
                "secrets": _rate(path in in_text for path in secrets),
                "false_secrets": _rate((path, 1) in getattr(clean, field) for path in fine),
            }
    tools_known = {name: scan_tools.known(tools / name) for name in scan_tools.SOURCE_TOOLS}
    return {"scanners": found, "tools": tools_known}


def _secrets(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the tests' secrets, and the lines that only look like one, each as a file."""
    import ast

    rows = [one.split("\t") for one in (EXAMPLES / "secrets.txt").read_text().splitlines()]
    planted, fine = [], []
    for number, (name, text) in enumerate(rows):
        planted.append(folder / "planted" / str(number) / name)
        planted[-1].parent.mkdir(parents=True)
        planted[-1].write_text(ast.literal_eval(text).replace("~", "") + "\n")
    for number, line in enumerate((EXAMPLES / "no_secrets.txt").read_text().splitlines()):
        for suffix in ("env", "py", "yaml"):
            fine.append(folder / "fine" / f"{number}.{suffix}")
            fine[-1].parent.mkdir(parents=True, exist_ok=True)
            fine[-1].write_text(line + "\n")
    return planted, fine


def main() -> None:
    """Measure one part and write it beside the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("corpora", "source", "unseen", "cost", "fuzz"))
    parser.add_argument("--tools", type=Path, help="virtual environments of other scanners")
    parser.add_argument("--count", type=int, default=10_000, help="mutated files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where fuzzing keeps how far it came")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    content = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    if asked.part == "fuzz":
        if asked.work is None:
            parser.error("fuzz needs --work FOLDER, where it keeps how far it came")
        found = scan_fuzzing.fuzz(asked.count, asked.seed, asked.work)
    elif asked.part == "source":
        if asked.tools is None:
            parser.error("source needs --tools FOLDER, where Bandit and Semgrep are")
        with tempfile.TemporaryDirectory() as work:
            found = source(asked.tools, Path(work).resolve())
    elif asked.part == "unseen":
        with tempfile.TemporaryDirectory() as work:
            rows = scan_unseen.unseen(
                content.get("unseen", {}).get("sets", {}), Path(work).resolve()
            )
        found = {"sets": rows}
    elif asked.part == "cost":
        found = scan_cost.measure(ROOT)
    else:
        found = corpora(asked.tools, content.get("corpora"))
    content[asked.part] = {
        **found, "machine": machine(), "versions": versions(), "load": round(os.getloadavg()[0], 1)
    }  # fmt: skip
    asked.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if asked.part == "fuzz" and any(found[name] for name in ("crashes", "hangs", "differences")):
        sys.exit(1)


if __name__ == "__main__":
    main()
