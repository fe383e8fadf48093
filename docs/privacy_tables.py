"""The tables of docs/privacy.md, from results/privacy.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from purpleteam.core.statistics import mean_over_seeds
from purpleteam.report.numbers import percent
from purpleteam.report.view import DASH

Row = Mapping[str, Any]
NOT_YET = "*Not yet measured.*"
RATES = ("0.001", "0.01")
ROWS = {
    "usual": "usual training",
    "memorised": "trained to memorise, a fifth of the labels random",
    "regularised": "usual training with weight decay and shifted images",
}


def _part(path: Path, name: str) -> Row:
    found: Row = json.loads(path.read_text(encoding="utf-8")).get(name, {})
    return found


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _over(rates: Sequence[Row | None]) -> str:
    """Return one rate with its interval, or the mean over seeds with the interval of the mean."""
    known = [rate for rate in rates if rate is not None]
    if not known:
        return DASH
    if len(known) == 1:
        (only,) = known
        low, high, n = 100 * only["low"], 100 * only["high"], f"n = {only['n']:,}"
        return f"{percent(only['value'], 2)} ({low:.2f} to {high:.2f}, {n})"
    found = mean_over_seeds([rate["value"] for rate in known], bounds=(0, 1))
    ends = f"{100 * found.low:.2f} to {100 * found.high:.2f}"
    return f"{percent(found.value, 2)} ({ends}, {found.n} seeds)"


def _ends(rates: Sequence[Row | None]) -> str:
    """Return the mean of rates near an end, and how far the intervals of all of them reach."""
    known = [rate for rate in rates if rate is not None]
    if len(known) < 2:
        return _over(rates)
    mean = sum(rate["value"] for rate in known) / len(known)
    low, high = min(rate["low"] for rate in known), max(rate["high"] for rate in known)
    return f"{percent(mean, 2)} ({100 * low:.2f} to {100 * high:.2f}, {len(known)} seeds)"


def _where(part: Row) -> str:
    machine = part["machine"]
    return f"{machine['processor']}, one core; intervals are 95 %."


def membership(path: Path) -> str:
    """Return what each attack finds of each training, by what the model answers."""
    part = _part(path, "membership")
    by_row: dict[str, list[Row]] = {}
    for row in part["rows"].values():
        by_row.setdefault(row["row"], []).append(row)
    lines: list[str] = []
    for name, rows in sorted(by_row.items(), key=lambda pair: [*ROWS].index(pair[0])):
        first = rows[0]
        told = f"**{ROWS[name].capitalize()}**: {first['pool'] // 2:,} images learned by "
        told += f"`{first['net']}` and as many not; test accuracy "
        told += f"{_over([row['clean_accuracy'] for row in rows])}, shadow models "
        took = max(row["shadow_cpu_seconds"] for row in rows)
        lines += ["", f"{told}{took:.0f} processor seconds at most.", ""]
        cells: list[list[str]] = []
        for answers, attacks in first["answers"].items():
            for place, attack in enumerate(attacks):
                same = [row["answers"][answers][place] for row in rows]
                found = [_ends([one["tpr_at"][rate] for one in same]) for rate in RATES]
                area = sum(one["auroc"]["value"] for one in same) / len(same)
                cells.append([f"`{attack['attack']}`", answers, *found, f"{area:.3f}"])
        for peer, attack in first.get("peers", {}).items():
            found = [_over([attack["tpr_at"][rate]]) for rate in RATES]
            cells.append([peer, "scores", *found, f"{attack['auroc']['value']:.3f}"])
        cells.sort(key=lambda row: (row[1] != "scores", row[1], row[0].startswith("art")))
        lines.append(
            _table(("Attack", "Answers", "At 0.1 % false", "At 1 % false", "AUROC"), cells)
        )
    art = "`art:` rows are ART's attacks on the same scores, told the truth of one half"
    several = "Of several seeds the mean, and how far their intervals reach."
    lines += ["", f"{art} and judged on the other, seed 0. {several} {_where(part)}"]
    return "\n".join(lines).strip()


def copies(path: Path) -> str:
    """Return the agreement of copies over the questions asked."""
    part = _part(path, "extraction")
    if not part:
        return NOT_YET
    by_way: dict[tuple[str, str], list[Row]] = {}
    for row in part["rows"].values():
        by_way.setdefault((row["strategy"], row["answers"]), []).append(row)
    asked = [point["queries"] for point in next(iter(part["rows"].values()))["points"]]
    rows = [
        [
            f"`{strategy}`",
            answers,
            *(
                _over([row["points"][place]["agreement"] for row in same])
                for place in range(len(asked))
            ),
        ]
        for (strategy, answers), same in sorted(by_way.items())
    ]
    return _table(("Questions", "Answers", *(f"{n:,}" for n in asked)), rows)


def rebuilt(path: Path) -> str:
    """Return what each inversion rebuilds, and what it is."""
    part = _part(path, "inversion")
    if not part:
        return NOT_YET
    rows = [
        [
            "a control" if name.startswith("control/") else row["model_name"],
            row["attack"] if name.startswith("control/") else f"`{row['attack']}`",
            row.get("prior", DASH),
            f"{row['queries']:,}" if row["queries"] else DASH,
            _over([row["recognised"]]),
            f"{row['pixels']['beside_mean']:.2f}",
            row["verdict"],
        ]
        for name, row in part.get("rows", {}).items()
    ]
    columns = ("Model", "Attack", "Prior", "Questions", "Recognised by another net")
    return _table((*columns, "Distance to learned images, over the class mean's", "Verdict"), rows)


def private(path: Path) -> str:
    """Return test accuracy over the privacy budget."""
    part, by_budget = _part(path, "dp"), dict[tuple[str, float], list[Row]]()
    for row in part.get("rows", {}).values():
        by_budget.setdefault((row["arch"], row["epsilon"]), []).append(row)
    rows = [
        [
            f"{budget:g}",
            f"{max(row['privacy']['epsilon'] for row in same):.3f}",
            f"`{arch}`",
            _over([row["clean_accuracy"] for row in same]),
            f"{same[0]['privacy']['noise_multiplier']:.2f}",
            f"{max(row['cpu_seconds'] for row in same):.0f}",
        ]
        for (arch, budget), same in sorted(by_budget.items(), key=lambda pair: pair[0][::-1])
    ]
    columns = ("Budget ε", "Spent", "Net", "Test accuracy", "Noise multiplier", "Processor seconds")
    return _table(columns, rows)


def accountant(path: Path) -> str:
    """Return how far Opacus' accountants are from those of dp-accounting."""
    part = _part(path, "accountant")
    least, most = (part["prv_minus_pld"][end] for end in ("least", "most"))
    return (
        f"On {len(part['rows'])} settings Opacus {part['opacus']}'s `prv` claims between "
        f"{least:.3f} and {most:.3f} more epsilon than dp-accounting {part['dp_accounting']}'s "
        "privacy loss distributions: never less."
    )


def audits(path: Path) -> str:
    """Return what canaries prove of private trainings, correct ones and with bugs."""
    part = _part(path, "audit")
    if not part:
        return NOT_YET
    groups: dict[tuple[str, float, str], list[Row]] = {}
    for row in [part.get("mnist"), *part.get("tiny", []), *part.get("bugs", [])]:
        if row:
            key = (row["arch"], row["epsilon"], row["bug"] or "none")
            groups.setdefault(key, []).append(row)
    rows = [
        [
            "MNIST" if arch != "linear" else "200 digits",
            f"`{arch}`",
            bug,
            str(len(same)),
            f"{max(row['epsilon_upper'] for row in same):.2f}",
            " to ".join(
                dict.fromkeys(
                    f"{end(row['epsilon_lower'] for row in same):.2f}" for end in (min, max)
                )
            ),
            f"{sum(not row['holds'] for row in same)} of {len(same)}",
        ]
        for (arch, _, bug), same in groups.items()
    ]
    columns = ("Images", "Net", "Bug", "Seeds", "At most, by the accountant")
    return _table((*columns, "At least, by canaries", "Called wrong"), rows)


BLOCKS = {
    "privacy_membership": membership,
    "privacy_copies": copies,
    "privacy_rebuilt": rebuilt,
    "privacy_dp": private,
    "privacy_accountant": accountant,
    "privacy_audit": audits,
}
