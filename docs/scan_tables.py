"""What was measured of the scan: what it finds and refuses beside others, what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def _read(path: Path, part: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dict(content[part])


def _rate(one: dict[str, Any]) -> str:
    low, high = (f"{100 * one[end]:.1f}" for end in ("low", "high"))
    return f"{100 * one['value']:.1f} % ({low} to {high})"


def files(path: Path) -> str:
    """Return what each scanner says of files that fire, of lies, and of harmless files."""
    found = _read(path, "corpora")
    bad, good = found["malicious"], found["benign"]
    lines = ["| Scanner | Payloads that fire, called green | named as bad | Lies named as bad |"
             " Harmless called bad | not read |", "| --- " * 6 + "|"]  # fmt: skip
    order = sorted(found["scanners"].items(), key=lambda row: (row[1]["green"]["value"], row[0]))
    for name, one in order:
        keys = ("green", "found", "found_of_lies", "false_alarms", "unread")
        lines.append(
            f"| {_tool(name, found)} | " + " | ".join(_rate(one[key]) for key in keys) + " |"
        )
    gate = ", ".join(f"{count} {word}" for word, count in good["gate"].items())
    lies = bad["n"] - bad["fire"]
    listed = [f"{kind} {row['files']}" for kind, row in bad["kinds"].items()]
    absent = "".join(f" {name} did not run: {why}." for name, why in found["absent"].items())
    return "\n".join(lines) + (
        f"\n\n{bad['n']} hostile files, of which {bad['fire']} were seen to run their payload when "
        f"their loader read them, and {lies} lie about sizes, names or places; {good['n']} "
        f"harmless ones. 95 % intervals. The gate refuses {_rate(bad['refused'])} of what fires "
        f"and "
        f"{_rate(bad['refused_of_all'])} of all hostile files, and calls "
        f"{_rate(good['taken'])} of the harmless ones accepted or unsupported and harmless "
        f"({gate}). Hostile kinds: "
        f"{', '.join(listed)}. Harmless kinds: "
        f"{', '.join(f'{kind} {count}' for kind, count in good['kinds'].items())}.{absent}\n\n"
        f"Not green is what a scanner finds or says it did not read. Our scan is green on "
        f"{_named(bad['green'])}, and red on {_named(good['red'])} of the harmless."
    )


def _tool(name: str, found: dict[str, Any]) -> str:
    """Return a scanner's name, with version and licence where it is not ours."""
    tool = found["tools"].get(name.replace(",", " ").split()[0])
    if tool is None:
        return name
    licence = tool["licence"].removesuffix(" License")
    licence = "LGPL-3.0" if licence.startswith("GNU LESSER") else licence
    return f"{name} ({tool['version']}, {licence})"


def _named(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def source(path: Path) -> str:
    """Return which sinks and secrets of the tests are found."""
    whole = _read(path, "source")
    found = whole["scanners"]
    first = next(iter(found.values()))
    lines = ["| Scanner | Sinks found | Harmless calls called one | Secrets found | Harmless lines "
             "called one |", "| --- " * 5 + "|"]  # fmt: skip
    keys = ("sinks", "false_sinks", "secrets", "false_secrets")
    lines += [
        f"| {_tool(name, whole)} | " + " | ".join(_rate(one[key]) for key in keys) + " |"
        for name, one in sorted(found.items())
    ]
    counts = [first[key]["n"] for key in keys]
    return "\n".join(lines) + (
        f"\n\n{counts[0]} sinks, {counts[1]} other lines with a call, {counts[2]} secrets and "
        f"{counts[3]} harmless lines of `tests/scan/examples`. Our rules were written with them: "
        "that all are found says that nothing was lost, and nothing about code that nobody has "
        "seen. The default `--fail-on` is medium; the low ones are Bandit's. Semgrep "
        "runs over our rules."
    )


def unseen(path: Path) -> str:
    """Return what is found of lines that were written before the rules were read."""
    lines = ["| Set | Sinks | Found when first measured | Harmless lines called one | Found now |"
             " Harmless lines called one |", "| --- " * 6 + "|"]  # fmt: skip
    for name, row in _read(path, "unseen")["sets"].items():
        first, now = (row[when]["medium or worse"] for when in ("first", "now"))
        rates = (first["found"], first["false_alarms"], now["found"], now["false_alarms"])
        lines.append(f"| {name} | {first['found']['n']} | {' | '.join(map(_rate, rates))} |")
    return "\n".join(lines) + (
        "\n\nOf medium severity or worse, by `python benchmarks/scan.py unseen` over "
        "`tests/scan/unseen`. The first set was written by somebody who had not read the rules; "
        "the second, in the shape of other people's programs, after the rules were mended for the "
        "first, and by the same hand; the third, with 74 secrets in files of other kinds, before "
        "its author read any rule, and after both were mended for. All were then mended for: only "
        "a first figure says something of code "
        "that nobody has seen."
    )


def cost(path: Path) -> str:
    """Return what scanning takes in time and memory."""
    found = _read(path, "cost")
    names = {"tree": "this repository", "source": "its `src`", "thousand": "a thousand modules"}
    lines = ["| `purple scan` of | Files | Clock | Processor time |", "| --- " * 4 + "|"]
    lines += [
        f"| {text} | {found[name]['files']:,} | {found[name]['seconds']:.1f} s | "
        f"{found[name]['cpu_seconds']:.1f} s |"
        for name, text in names.items()
    ]
    model, memory = found["model"], max(found["memory_megabytes"].values())
    ratios = ", ".join(f"{one['ratio']:.2f} of {one['tensors']:,}" for one in found["beside_torch"])
    return "\n".join(lines) + (
        f"\n\nOf processor time, a model of {model['megabytes']:.0f} MB takes "
        f"{model['scan_ms']:.0f} ms to scan and {model['gate_ms']:.0f} ms through the gate, which "
        f"takes these shares of torch's own time, by the number of tensors: {ratios}. A file of "
        "four tensors of "
        f"{found['largest_megabytes']} MB takes at most {memory:.0f} MB of memory. "
        f"{found['machine']['cores']} cores, load {found['load']:.0f}."
    )


def fuzz(path: Path) -> str:
    """Return how mutated files were judged, and read here and elsewhere."""
    found = _read(path, "fuzz")
    lines = ["| Format | Mutated files | Malicious | Ambiguous | Unread | Compared with others |",
             "| --- " * 6 + "|"]  # fmt: skip
    for kind, row in sorted(found["formats"].items()):
        words = ("files", "malicious", "ambiguous", "unread", "compared")
        lines.append(f"| {kind} | " + " | ".join(f"{row.get(word, 0):,}" for word in words) + " |")
    counts = ", ".join(
        f"{len(found[key])} {word}"
        for key, word in (
            ("crashes", "crashes"),
            ("hangs", "hangs"),
            ("growth", "of growing memory"),
            ("differences", "read with other names, shapes or values"),
        )
    )
    codes = ", then ".join(f"{files:,} by code {code}" for code, files in found.get("code", ()))
    return "\n".join(lines) + (
        f"\n\n{found['files']:,} files, seed {found['seed']}: {counts}; the slowest took "
        f"{found['slowest_seconds']:.2f} s. The gate is told by the digest of its source: {codes}. "
        f"Others are torch with `weights_only`, safetensors, NumPy, zipfile and onnx, which read "
        f"all that is accepted, or that is an archive we can lay out."
    )
