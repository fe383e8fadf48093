"""The first screen: the verdict on the model at hand, at most five numbers, what to fix first."""

from __future__ import annotations

from collections.abc import Sequence

from purpleteam.core.records import CheckResult, Measurement, Note
from purpleteam.core.schema import MODEL_SCAN
from purpleteam.report.chapters.certify import bound_of
from purpleteam.report.chapters.closing import Gap
from purpleteam.report.chapters.evasion import soundness
from purpleteam.report.collect import Evidence, model_name, value_of
from purpleteam.report.numbers import count, number_of, of_epsilon, of_fraction, radius
from purpleteam.report.view import (
    Card,
    Cards,
    Cell,
    Command,
    Given,
    Inline,
    Jump,
    Missing,
    Prose,
    Reading,
    RecordLink,
    Section,
    Steps,
)

MOST_STEPS, MOST_GAPS = 4, 4
HALF = 0.5
"""A model that keeps less than this under attack is said to break."""


def first_section(evidence: Evidence, gaps: Sequence[Gap], told: set[str]) -> Section:
    """Return the first screen.

    Args:
        evidence: the run.
        gaps: what was not tested.
        told: ids of the sections that follow.
    """
    robust, scan = _robust(evidence), _scan(evidence)
    cards = tuple(
        card
        for card in (
            _clean_card(evidence),
            _robust_card(evidence, robust),
            _backdoor_card(scan),
            _certified_card(evidence),
            _checks_card(evidence, told),
        )
        if card is not None
    )
    steps = _steps(evidence, robust, scan)[:MOST_STEPS]
    untested = [
        (what, ".", *((" ", Command(command)) if command else ())) for what, command in gaps
    ]
    more: tuple[Cell, ...] = (("All of it: ", Jump("What was not tested", "not-tested"), "."),)
    return Section(
        id="verdict",
        title="Verdict",
        lead="",
        folded=False,
        blocks=(
            _sentence(evidence, robust, scan),
            Cards(cards) if cards else Missing("Nothing has been measured yet."),
            *([Steps("What to fix first", tuple(steps))] if steps else []),
            Steps("What was not tested", (*untested[:MOST_GAPS], *more)),
            *(_READING if robust is not None else ()),
        ),
    )


_READING = (
    Reading(
        "Each number opens its record: what was measured, on what, and the command that measures "
        "it again.",
        "An accuracy under attack is what the attacks tried here left: a stronger attack can only "
        "lower it. Intervals cover the choice of test images, not the strength of the attack.",
    ),
)


def called(evidence: Evidence) -> str:
    """Return what the reader knows the model at hand by."""
    return evidence.brought.replace("\\", "/").rsplit("/", 1)[-1] or evidence.at_hand


def _robust(evidence: Evidence) -> Measurement | None:
    """Return the robust accuracy that counts: in linf at the headline's radius, else the lowest."""
    name = evidence.at_hand
    strongest = evidence.weakest(name, evidence.headline_epsilon) or evidence.weakest(name)
    return strongest or min(evidence.find("robust_accuracy", name), key=value_of, default=None)


def _scan(evidence: Evidence) -> Note | None:
    """Return the scan of the model at hand for a backdoor; not one of the lab's."""
    return next(
        (
            note
            for note in evidence.notes(MODEL_SCAN)
            if note.facts.get("model_name") == evidence.at_hand and note.facts.get("own", True)
        ),
        None,
    )


def _sentence(evidence: Evidence, robust: Measurement | None, scan: Note | None) -> Prose:
    """Return one sentence: what the model does unchanged, and under the attack that counts."""
    name = called(evidence)
    clean = evidence.best("clean_accuracy", evidence.at_hand)
    parts: list[Inline] = []
    if scan is not None and scan.facts.get("backdoored"):
        parts.append("A backdoor was found. ")
    if robust is None and clean is None:
        parts.append(f"Nothing was measured of {name or 'a model'}.")
    elif robust is None and clean is not None:
        parts += [f"{name} classifies ", number_of(clean), " of unchanged images correctly; "]
        parts.append("it was not attacked.")
    elif robust is not None:
        number = number_of(robust)
        word = f"{name} {_word(evidence, robust)}"
        parts.append(
            f"{word}: " if number.established else f"Not established how robust {name} is: "
        )
        if clean is not None:
            parts += [number_of(clean), " of test images are classified correctly unchanged, "]
        parts += ["at most ", number, "" if clean is not None else " of test images", " under "]
        parts += [_attack(robust), "."]
    return Prose(tuple(parts), style="verdict")


def _word(evidence: Evidence, robust: Measurement) -> str:
    """Return what the model at hand does under attack, in one verdict for the whole page."""
    if value_of(robust) < HALF:
        return "breaks"
    floor = _failed_floor(evidence, robust)
    return f"is below the floor of {floor.check}" if floor else "withstands the attacks tried"


def _attack(record: Measurement) -> Given:
    how = record.how
    said = f"{how.get('attack')}, {how.get('norm', 'linf')} {radius(how.get('epsilon'))}"
    return Given(said, record.id)


def _failed_floor(evidence: Evidence, record: Measurement) -> CheckResult | None:
    """Return a check that counted this very number and did not pass."""
    counted = (check for check in evidence.of(CheckResult) if record.id in check.inputs)
    return next((check for check in counted if check.verdict != "pass"), None)


def _clean_card(evidence: Evidence) -> Card | None:
    measured = evidence.best("clean_accuracy", evidence.at_hand)
    if measured is None:
        return None
    images = str(measured.subject.get("dataset_name", "")) or "the dataset"
    return Card(
        title="Clean accuracy",
        tone="quiet",
        verdict="nobody attacks",
        number=number_of(measured),
        sentence=(f"of unchanged test images of {images} are classified correctly.",),
        target="models",
    )


def _robust_card(evidence: Evidence, measured: Measurement | None) -> Card | None:
    if measured is None:
        return None
    number, verdict = number_of(measured), _word(evidence, measured)
    tone = "good" if verdict.startswith("withstands") else "bad"
    if not number.established:
        tone, verdict = "warn", "not established"
    return Card(
        title="Robust accuracy",
        tone=tone,
        verdict=verdict,
        number=number,
        sentence=(
            "of test images stay right under ",
            _attack(measured),
            ". Evaluation: ",
            soundness(measured)[0],
        ),
        target="evasion",
    )


def _backdoor_card(scan: Note | None) -> Card | None:
    if scan is None:
        return None
    facts, score, limit = scan.facts, scan.facts.get("score"), scan.facts.get("threshold")
    number, scale = count([scan.id]), "scan"
    if isinstance(score, int | float):
        number, scale = of_fraction(float(score), "score", scan.id), "is the anomaly score"
    tone, verdict, said = "good", "none found", "weak and adaptive triggers pass"
    if facts.get("backdoored") is None:
        tone, verdict = "warn", "not established"
        said = "; ".join(map(str, facts.get("reasons", ())))
    elif facts["backdoored"]:
        tone, verdict, said = "bad", "backdoor found", f"it leads to {facts.get('target_label')}"
    flagged = f"; flagged from {limit:.3g}" if isinstance(limit, int | float) else ""
    return Card(
        title="Backdoor scan",
        tone=tone,
        verdict=verdict,
        number=number,
        sentence=(Given(f"{scale}{flagged}: {said}.", scan.id),),
        target="backdoors",
    )


def _certified_card(evidence: Evidence) -> Card | None:
    record = max(evidence.find("certified_accuracy"), key=value_of, default=None)
    if record is None:
        return None
    other = model_name(record) != evidence.at_hand
    whose = f"of another classifier, {model_name(record)}, " if other else ""
    return Card(
        title="Certified accuracy",
        tone="quiet",
        verdict="proved",
        number=number_of(record),
        sentence=(f"of test images {whose}hold against ", Given(bound_of(record), record.id), "."),
        target="certify",
    )


def _checks_card(evidence: Evidence, told: set[str]) -> Card | None:
    ran = [record for record in evidence.of(CheckResult) if record.verdict != "skipped"]
    if not ran:
        return None
    failed, every = (
        [record.id for record in ran if record.verdict != "pass"],
        [record.id for record in ran],
    )
    return Card(
        title="Failed checks",
        tone="bad" if failed else "good",
        verdict="not all pass" if failed else "all pass",
        number=count(failed, among=every),
        sentence=("of ", count(every), " executed checks did not pass."),
        target="threats" if "threats" in told else "records",
    )


def _steps(evidence: Evidence, robust: Measurement | None, scan: Note | None) -> list[Cell]:
    """Return what to do, the gravest first, each with the command to type."""
    model, dataset = evidence.typed
    steps: list[Cell] = []
    if scan is not None and scan.facts.get("backdoored"):
        command = f"purple repair --model {model} --dataset {dataset} --method unlearn"
        steps.append(("Take the backdoor out, or train anew. ", Command(command)))
    grave = [record for record in evidence.findings() if record.severity in ("critical", "high")]
    for finding in grave[:1]:
        fix = f"; {finding.fix}" if finding.fix else ""
        place = f"{finding.place.get('path')}:{finding.place.get('line', '')}".rstrip(":")
        steps.append((f"{finding.message}{fix} ({place}) ", RecordLink(finding.id)))
    steps += [] if robust is None else _robust_steps(evidence, robust)
    for check in evidence.of(CheckResult):
        if check.verdict in ("fail", "error", "broken"):
            why = f"{check.message}. " if check.message else ""
            said = f"Check {check.check}, {check.verdict}: {why}A pass would prove: {check.proves} "
            steps.append((said, RecordLink(check.id)))
    if evidence.failures():
        steps.append(("Some of the work failed; try it again. ", Command("purple run --resume")))
    return steps


def _robust_steps(evidence: Evidence, robust: Measurement) -> list[Cell]:
    """Return what to do about a model that breaks: ship the hardened one, or harden."""
    model, dataset = evidence.typed
    if not number_of(robust).established:
        command = f"purple attack --model {model} --dataset {dataset} --attack autoattack"
        return [("Evaluate anew with a stronger ladder of attacks. ", Command(command))]
    if _word(evidence, robust).startswith("withstands"):
        return []
    epsilon = robust.how.get("epsilon")
    hardened = [evidence.weakest(name, epsilon) for name in evidence.models_of("hardened")]
    better = [record for record in hardened if record is not None and number_of(record).established]
    best = max(better, key=value_of, default=None)
    if best is not None and value_of(best) > max(HALF, value_of(robust)):
        words = f"Use {model_name(best)} instead ({evidence.file_of(model_name(best))}): it keeps "
        return [(words, number_of(best), " under ", _attack(best), ".")]
    command = f"purple harden --dataset {dataset} --recipe pgd --epsilon {of_epsilon(epsilon)}"
    return [("Train against the attack. ", Command(command, robust.id))]
