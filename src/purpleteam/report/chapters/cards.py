"""The verdict cards: the number first, then what it says, then where the whole of it is."""

from __future__ import annotations

from collections.abc import Sequence

from purpleteam.core.records import CheckResult, Finding, Measurement
from purpleteam.report.collect import Evidence, model_name, team
from purpleteam.report.numbers import count, number_of, radius
from purpleteam.report.view import Card, Cards, Given


def cards(evidence: Evidence) -> Cards | None:
    """Return a card for everything that was measured, or None where nothing was."""
    made = tuple(card for make in CARDS if (card := make(evidence)) is not None)
    return Cards(made) if made else None


def _clean(evidence: Evidence) -> Card | None:
    models = evidence.models_with("clean_accuracy")
    measured = evidence.one("clean_accuracy", models[0]) if models else None
    if measured is None:
        return None
    return Card(
        title="Clean images",
        tone="quiet",
        verdict="the easy part",
        number=number_of(measured),
        sentence=(f"of unchanged test images are read rightly by {models[0]}.",),
        target="models",
    )


def _attacked(evidence: Evidence) -> Card | None:
    found = _at_headline(evidence, [name for name in evidence.models if team(name) != "defence"])
    if not found:
        return None
    worst = min(found, key=lambda one: number_of(one).value)
    return _robust_card(worst, "Undefended, attacked", "evasion")


def _hardened(evidence: Evidence) -> Card | None:
    found = _at_headline(evidence, [name for name in evidence.models if team(name) == "defence"])
    if not found:
        return None
    best = max(found, key=lambda one: number_of(one).value)
    return _robust_card(best, "Best defence, attacked", "defences")


def _at_headline(evidence: Evidence, models: Sequence[str]) -> list[Measurement]:
    epsilon = evidence.headline_epsilon
    if epsilon is None:
        return []
    return [one for name in models if (one := evidence.weakest(name, epsilon)) is not None]


def _robust_card(measured: Measurement, title: str, target: str) -> Card:
    number = number_of(measured)
    tone = "warn" if not number.established else "bad" if number.value < 0.5 else "good"
    words = {"bad": "broken", "good": "holds so far", "warn": "not established"}
    how = measured.how
    return Card(
        title=title,
        tone=tone,
        verdict=words[tone],
        number=number,
        sentence=(
            f"of test images are still read rightly by {model_name(measured)} under ",
            Given(
                f"{how.get('attack')}, {how.get('norm', 'linf')} {radius(how.get('epsilon'))}",
                measured.id,
            ),
            ".",
        ),
        target=target,
    )


def _backdoor(evidence: Evidence) -> Card | None:
    every = evidence.find("attack_success_rate_mean") or evidence.find("attack_success_rate")
    found = [one for one in every if not one.how.get("lab")]
    if not found:
        return None
    worst = max(found, key=lambda one: number_of(one).value)
    number = number_of(worst)
    return Card(
        title="Backdoor",
        tone="bad" if number.value >= 0.5 else "quiet",
        verdict="opens" if number.value >= 0.5 else "does not work",
        number=number,
        sentence=(
            f"of triggered images of other classes get the label that the attacker wants from "
            f"{model_name(worst)}.",
        ),
        target="poison",
    )


def _kept(evidence: Evidence) -> Card | None:
    found = evidence.find("attack_success_rate", "poisoned-kept")
    if not found:
        return None
    return Card(
        title="The seeds' own poison",
        tone="quiet" if number_of(found[0]).value < 0.5 else "bad",
        verdict="no backdoor" if number_of(found[0]).value < 0.5 else "opens",
        number=number_of(found[0]),
        sentence=(
            "attack success rate when marked images keep their label, as both seeds left it.",
        ),
        target="poison",
    )


def _hunted(evidence: Evidence) -> Card | None:
    """Return how many of the lab's backdoors were found in the models or the training sets."""
    names = ("model_detection_rate", "training_set_detection_rate")
    found = [one for name in names for one in evidence.find(name)]
    if not found:
        return None
    worst = min(found, key=lambda one: number_of(one).value)
    whole = number_of(worst).value == 1
    what = "models" if worst.name.startswith("model") else "training sets"
    return Card(
        title="Backdoors looked for",
        tone="good" if whole else "warn",
        verdict="all found" if whole else "some lost",
        number=number_of(worst),
        sentence=(f"of backdoored {what} were found, with the right target, told nothing.",),
        target="backdoors",
    )


def _own_searches(evidence: Evidence) -> Card | None:
    """Return how many of the searches in what is trained and served found a backdoor."""
    notes = evidence.notes("model-scan") + evidence.notes("training-set-scan")
    own = [note for note in notes if note.facts.get("own")]
    if not own:
        return None
    found = [note.id for note in own if note.facts.get("backdoored")]
    unsure = any(note.facts.get("backdoored") is None for note in own)
    every = [note.id for note in own]
    return Card(
        title="Backdoors in what is ours",
        tone="bad" if found else "warn" if unsure else "good",
        verdict="found" if found else "not established" if unsure else "none found",
        number=count(found, among=every),
        sentence=("of ", count(every), " searches of what is trained and served found one."),
        target="backdoors",
    )


def _scan(evidence: Evidence) -> Card | None:
    findings = evidence.of(Finding)
    if not findings and not evidence.notes("scan"):
        return None
    grave = [one.id for one in findings if one.severity in ("high", "critical", "medium")]
    looked = [note.id for note in evidence.notes("scan")] or [one.id for one in findings]
    return Card(
        title="Code and files",
        tone="bad" if grave else "good",
        verdict="findings" if grave else "nothing grave",
        number=count(grave, among=looked),
        sentence=("findings of medium severity or above by the scanners that ran.",),
        target="scan",
    )


def _threats(evidence: Evidence) -> Card | None:
    threats = [one for one in evidence.threats() if one.status != "not_applicable"]
    mitigated = [one.id for one in threats if one.status == "mitigated"]
    if not threats:
        return None
    whole = len(mitigated) == len(threats)
    every = [one.id for one in threats]
    return Card(
        title="Threats",
        tone="good" if whole else "warn",
        verdict="all mitigated" if whole else "not all mitigated",
        number=count(mitigated, among=every),
        sentence=(
            "of ",
            count(every),
            " threats have every mitigation proved by a check that ran.",
        ),
        target="threats",
    )


def _checks(evidence: Evidence) -> Card | None:
    checks = evidence.of(CheckResult)
    if not checks:
        return None
    passed = [one.id for one in checks if one.verdict == "pass"]
    every = [one.id for one in checks]
    return Card(
        title="Executed checks",
        tone="good" if len(passed) == len(checks) else "warn",
        verdict="all pass" if len(passed) == len(checks) else "not all pass",
        number=count(passed, among=every),
        sentence=(
            "of ",
            count(every),
            " checks pass; a check counts only after it failed on an example made to fail.",
        ),
        target="threats",
    )


CARDS = (
    *(_clean, _attacked, _hardened, _backdoor, _kept, _hunted, _own_searches),
    *(_scan, _threats, _checks),
)
