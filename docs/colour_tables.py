"""The tables of docs/colour.md: every stage on drawn shapes in colour, beside grey digits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from purpleteam.core.statistics import mean_over_seeds
from purpleteam.report.numbers import of_epsilon, percent
from purpleteam.report.view import DASH

Run = Mapping[str, Any]
Runs = Mapping[str, Mapping[str, Run]]  # by case, then by seed
HALF = 0.5
BASELINE, HARDENED = "baseline", "hardened-fast"


def _runs(path: Path) -> Runs:
    runs: Runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return {name: by for name, by in runs.items() if by}


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _rate(rate: Run | None) -> str:
    if rate is None:
        return DASH
    ends = f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f}"
    return f"{percent(rate['value'], 1)} ({ends}, n = {rate['n']})"


def _over(by: Mapping[str, Run], of: Callable[[Run], Run | None]) -> str:
    """Return a rate of one training, or the mean over several with the interval of the mean."""
    rates = [rate for run in by.values() if (rate := of(run)) is not None]
    if len(rates) < 2:
        return _rate(next(iter(rates), None))
    found = mean_over_seeds([rate["value"] for rate in rates], bounds=(0.0, 1.0))
    ends = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
    return f"{percent(found.value, 1)} ({ends}, {found.n} trainings, n = {rates[0]['n']} each)"


def _attack(run: Run, model: str, attack: str) -> Run | None:
    keys = (model, attack)
    found = (one for one in run["attacks"] if (one["model"], one["attack"]) == keys)
    return next(found, None)


def _ordered(runs: Runs) -> list[str]:
    """Return the cases: the digits, then shapes by classes, easy before hard."""
    return sorted(runs, key=lambda name: (name != "digits", _classes(runs[name]), name))


def _classes(by: Mapping[str, Run]) -> int:
    return int(_first(by)["data"]["classes"])


def _first(by: Mapping[str, Run]) -> Run:
    return by[min(by)]


def sets(path: Path) -> str:
    """Return the data sets, and how well a model trained on each does unattacked and attacked."""
    runs, rows = _runs(path), []
    for name in _ordered(runs):
        by = runs[name]
        data, asked = _first(by)["data"], _first(by)["asked"]
        verdicts = {
            one["soundness"] for run in by.values() if (one := _attack(run, BASELINE, "pgd"))
        }
        rows.append(
            (
                name,
                f"`{asked['dataset']}`",
                f"{data['images']['train']} / {data['images']['test']}",
                _over(by, lambda run: run["clean"].get(BASELINE)),
                of_epsilon(asked["evasion"]["epsilon"]),
                _over(by, lambda run: _attack(run, BASELINE, "fgsm")),
                _over(by, lambda run: _attack(run, BASELINE, "pgd")),
                ", ".join(sorted(verdicts)),
            )
        )
    columns: tuple[str, ...] = (
        "Set",
        "Reference",
        "Train / test images",
        "Clean accuracy",
        "ε in linf",
    )
    columns += ("Robust accuracy, FGSM", "Robust accuracy, PGD", "Verdict on PGD")
    asked = _first(runs[_ordered(runs)[0]])["asked"]["evasion"]
    said = f"Attacked are the first {asked['limit']} test images; the check of each evaluation, "
    said += f"which looks at {asked['checked']}, counts what it breaks. Intervals are 95 %, over "
    return f"{_table(columns, rows)}\n\n{said}trainings where there are several, else over images."


def hardened(path: Path) -> str:
    """Return what one-step adversarial training keeps, by set."""
    runs, rows = _runs(path), []
    for name in _ordered(runs):
        run = _first(runs[name])
        if (after := _attack(run, HARDENED, "pgd")) is not None:
            epsilon = of_epsilon(run["asked"]["evasion"]["epsilon"])
            clean = _rate(run["clean"].get(HARDENED))
            before = _rate(_attack(run, BASELINE, "pgd"))
            rows.append((name, epsilon, clean, before, _rate(after), str(after["soundness"])))
    columns: tuple[str, ...] = (
        "Set",
        "ε in linf",
        "Clean accuracy, hardened",
        "Robust accuracy before",
    )
    return _table((*columns, "Robust accuracy after", "Verdict"), rows) + "\n\nOne training each."


def certificates(path: Path) -> str:
    """Return what is proved of the models, within a ball and against poison."""
    runs, rows = _runs(path), []
    for name in _ordered(runs):
        for one in _first(runs[name])["certified"]:
            images = isinstance(one["epsilon"], int)
            plural = "s" * (one["epsilon"] != 1)
            bound = f"{one['epsilon']} changed training image{plural}" if images else ""
            bound = bound or f"ε = {of_epsilon(one['epsilon'])}"
            counts = [str(one["counts"].get(k, DASH)) for k in ("verified", "falsified", "unknown")]
            rows.append((name, one["model"], bound, _rate(one), *counts))
    columns: tuple[str, ...] = (
        "Set",
        "Model",
        "Bound",
        "Certified accuracy",
        "Verified",
        "Falsified",
        "Unknown",
    )
    asked = _first(runs[_ordered(runs)[0]])["asked"]["certify"]
    said = f"Bounds in a ball may take {asked['seconds']} s an image, on the first {asked['limit']}"
    return f"{_table(columns, rows)}\n\n{said}. Partitions are of all test images."


def backdoors(path: Path) -> str:
    """Return what a planted backdoor does, who finds it and what takes it out."""
    runs, rows = _runs(path), []
    for name in _ordered(runs):
        run = _first(runs[name])
        if (planted := _rates(run, "attack_success_rate").get(None)) is None:
            continue
        after = _rates(run, "attack_success_rate")
        cells = [_rate(planted), _rate(_rates(run, "base_rate").get(None))]
        cells += [_answer(run, "model-scan", True), _answer(run, "model-scan", False)]
        cells += [_answer(run, "training-set-scan", True)]
        cells += [_rate(after.get(repair)) for repair in ("retrain", "unlearn", "fine_tune")]
        rows.append((f"{name}, {planted['poisoned']} poisoned", *cells))
    columns: tuple[str, ...] = (
        "Set",
        "Attack success rate",
        "Base rate",
        "Scan of the model",
        "Of a clean model",
    )
    columns += ("Search of the training set", "After `retrain`", "After `unlearn`")
    return _table((*columns, "After `fine_tune`"), rows) + f"\n\n{DASH}: not done; reasons below."


def _rates(run: Run, name: str) -> dict[str | None, Run]:
    rates: dict[str | None, Run] = {}
    for one in run["backdoors"]:
        if one.get("name") == name:
            rates.setdefault(one["repair"], one)
    return rates


def _scan(run: Run, of: str, planted: bool) -> Run | None:
    scans = (one for one in run["scans"] if one["of"] == of)
    found = (one for one in scans if (one["planted"]["poison"] != "none") == planted)
    return next(found, None)


def _answer(run: Run, of: str, planted: bool) -> str:
    scan = _scan(run, of, planted)
    if scan is None:
        return DASH
    if scan["backdoored"] is None:
        return "not established"
    if not scan["backdoored"]:
        return "missed" if planted else "no alarm"
    aim = scan["planted"].get("target_label")
    told = scan["target_label"]
    return "false alarm" if not planted else "found" if told in (None, aim) else "wrong label"


def failing(path: Path) -> str:
    """Return in sentences where a method that works on the digits does not, as the runs say."""
    runs = _runs(path)
    return "\n".join(f"- {said}" for said in _failures(runs)) or "- None of the methods above."


def _failures(runs: Runs) -> Iterator[str]:
    for name in _ordered(runs):
        run = _first(runs[name])
        yield from _of_scan(name, run, "training-set-scan", "search of the training set")
        yield from _of_scan(name, run, "model-scan", "scan of the model")
        for one in run["backdoors"]:
            if "not_done" in one:
                yield f"{name}: {one['model'].rpartition('/')[2]} was not done: {one['not_done']}."
        before, after = (_attack(run, model, "pgd") for model in (BASELINE, HARDENED))
        if before and after and after["low"] <= before["high"]:
            yield f"{name}: one-step adversarial training gains nothing that the images show."
        balls = [one for one in run["certified"] if isinstance(one["epsilon"], float)]
        if balls and not any(one["counts"].get("verified") for one in balls):
            radii = ", ".join(dict.fromkeys(of_epsilon(one["epsilon"]) for one in balls))
            yield f"{name}: bounds verify no image of any of these nets at {radii}."
        for one in run["certified"]:
            if one["model"] == "partitions" and one["epsilon"] == 1 and one["high"] < HALF:
                held = percent(one["value"], 1)
                yield f"{name}: against one changed training image only {held} of images hold."
        for repair, left in _rates(run, "attack_success_rate").items():
            if repair and left["low"] > HALF:
                yield f"{name}: {repair} leaves an attack success rate of {_rate(left)}."
        if run["exit_code"]:
            yield f"{name}: some of the run failed (exit code {run['exit_code']})."


def _of_scan(name: str, run: Run, of: str, called: str) -> Iterator[str]:
    planted, clean = (_answer(run, of, kind) for kind in (True, False))
    if planted in ("missed", "wrong label", "not established"):
        reasons = "; ".join((_scan(run, of, True) or {}).get("reasons", ()))
        yield f"{name}: {called}: {planted}{f': {reasons}' if reasons else ''}."
    if clean == "false alarm":
        scan = _scan(run, of, False) or {}
        kind = f", a {scan['kind']} trigger to label {scan['target_label']}"
        yield f"{name}: {called}: false alarm on what is clean{kind if scan.get('kind') else ''}."


BLOCKS = {
    "colour": sets,
    "colour_backdoors": backdoors,
    "colour_certificates": certificates,
    "colour_failing": failing,
    "colour_hardened": hardened,
}
