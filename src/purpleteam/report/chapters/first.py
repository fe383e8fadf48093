"""The first screen: the verdict on the model at hand, at most five numbers, what to fix first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from purpleteam.core.records import CheckResult, Measurement, Note
from purpleteam.core.schema import DATASET, MODEL_SCAN
from purpleteam.report.chapters.closing import Gap
from purpleteam.report.chapters.evasion import soundness
from purpleteam.report.collect import Evidence, model_name, value_of
from purpleteam.report.numbers import count, number_of, of_fraction, radius
from purpleteam.report.view import (
    Card,
    Cards,
    Cell,
    Command,
    Given,
    Inline,
    Jump,
    Missing,
    Number,
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
            _backdoor_card(evidence, scan),
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
    name, models = evidence.at_hand, evidence.asked.get("models")
    use = models.get("use") if isinstance(models, Mapping) else None
    use = use or evidence.asked.get("model")
    if evidence.role(name) == "brought" and use:
        return str(use).replace("\\", "/").rsplit("/", 1)[-1]
    return name


def _robust(evidence: Evidence) -> Measurement | None:
    """Return the robust accuracy that counts: in linf at the headline's radius, else the lowest."""
    name = evidence.at_hand
    found = evidence.weakest(name, evidence.headline_epsilon) or evidence.weakest(name)
    others = evidence.find("robust_accuracy", name)
    return found or min(others, key=value_of, default=None)


def _scan(evidence: Evidence) -> Note | None:
    """Return the scan for a backdoor of the model at hand, or of another that is not the lab's."""
    own = [note for note in evidence.notes(MODEL_SCAN) if note.facts.get("own", True)]
    own = [note for note in own if not evidence.in_lab(str(note.facts.get("model_name")))]
    return next((note for note in own if note.facts.get("model_name") == evidence.at_hand), None)


def _sentence(evidence: Evidence, robust: Measurement | None, scan: Note | None) -> Prose:
    """Return one sentence: what the model does unchanged, and under the attack that counts."""
    name = called(evidence)
    clean = evidence.one("clean_accuracy", evidence.at_hand)
    parts: list[Inline] = []
    if scan is not None and scan.facts.get("backdoored"):
        parts.append("A backdoor was found. ")
    if robust is None and clean is None:
        counted = evidence.measurements
        said = f"Nothing was measured of {name}." if name else "Nothing was measured of a model."
        if counted and not name:
            said = "This run measured no single model."
        return Prose((*parts, said), style="verdict")
    if robust is not None:
        number = number_of(robust)
        below = _failed_floor(evidence, robust) or number.value < HALF
        word = "breaks" if below else "withstands the attacks tried"
        parts.append(
            f"{name} {word}: "
            if number.established
            else f"How robust {name} is was not established: "
        )
        if clean is not None:
            parts += [number_of(clean), " of test images are classified correctly unchanged, "]
        parts += ["at most ", number, "" if clean is not None else " of test images", " under "]
        parts += [_attack(robust), "."]
    elif clean is not None:
        parts += [f"{name} classifies ", number_of(clean), " of unchanged images correctly; "]
        parts += ["it was not attacked."]
    return Prose(tuple(parts), style="verdict")


def _attack(one: Measurement) -> Given:
    how = one.how
    return Given(
        f"{how.get('attack')}, {how.get('norm', 'linf')} {radius(how.get('epsilon'))}", one.id
    )


def _failed_floor(evidence: Evidence, one: Measurement) -> CheckResult | None:
    """Return a check that counted this very number and did not pass."""
    return next(
        (
            check
            for check in evidence.of(CheckResult)
            if one.id in check.inputs and check.verdict != "pass"
        ),
        None,
    )


def _clean_card(evidence: Evidence) -> Card | None:
    measured = evidence.one("clean_accuracy", evidence.at_hand)
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
    number, floor = number_of(measured), _failed_floor(evidence, measured)
    if not number.established:
        tone, verdict = "warn", "not established"
    elif floor is not None:
        tone, verdict = "bad", f"below the floor of {floor.check}"
    else:
        tone, verdict = ("bad", "breaks") if number.value < HALF else ("good", "not broken yet")
    return Card(
        title="Robust accuracy",
        tone=tone,
        verdict=verdict,
        number=number,
        sentence=(
            "of test images stay right under ",
            _attack(measured),
            ". Evaluation: ",
            *soundness(measured)[:1],
            ".",
        ),
        target="evasion",
    )


def _backdoor_card(evidence: Evidence, scan: Note | None) -> Card | None:
    if scan is None:
        return None
    facts, found = scan.facts, scan.facts.get("backdoored")
    score, limit = facts.get("score"), facts.get("threshold")
    number = (
        of_fraction(float(score), "score", scan.id)
        if isinstance(score, int | float)
        else count([scan.id])
    )
    if found is None:
        tone, verdict, said = (
            "warn",
            "not established",
            "; ".join(map(str, facts.get("reasons", ()))),
        )
    elif found:
        tone, verdict, said = "bad", "backdoor found", f"it leads to {facts.get('target_label')}"
    else:
        tone, verdict, said = "good", "none found", "weak and adaptive triggers pass"
    known = f"; flagged from {limit:.3g}" if isinstance(limit, int | float) else ""
    scale = "is the anomaly score" if isinstance(score, int | float) else "scan"
    return Card(
        title="Backdoor scan",
        tone=tone,
        verdict=verdict,
        number=number,
        sentence=(Given(f"{scale}{known}: {said}.", scan.id),),
        target="backdoors",
    )


def _certified_card(evidence: Evidence) -> Card | None:
    found = evidence.find("certified_accuracy")
    if not found:
        return None
    one = max(found, key=value_of)
    other = model_name(one) != evidence.at_hand
    whose = f"of another classifier, {model_name(one)}, " if other else ""
    bound = one.how.get("epsilon")
    within = f"{bound} changed training images" if "layout" in one.how else radius(bound)
    return Card(
        title="Certified accuracy",
        tone="quiet",
        verdict="proved",
        number=number_of(one),
        sentence=(f"of test images {whose}cannot be changed within ", Given(within, one.id), "."),
        target="certify",
    )


def _checks_card(evidence: Evidence, told: set[str]) -> Card | None:
    checks = [one for one in evidence.of(CheckResult) if one.verdict != "skipped"]
    if not checks:
        return None
    failed = [one.id for one in checks if one.verdict != "pass"]
    every = [one.id for one in checks]
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
    model = evidence.file_of(evidence.at_hand)
    names = [str(note.facts.get("name")) for note in evidence.notes(DATASET)]
    dataset = evidence.asked.get("dataset") or next(iter(names), "DATASET")
    steps: list[Cell] = []
    if scan is not None and scan.facts.get("backdoored"):
        command = f"purple repair --model {model} --dataset {dataset} --method unlearn"
        steps.append(("Take the backdoor out, or train anew. ", Command(command)))
    for finding in evidence.findings():
        if finding.severity in ("critical", "high"):
            fix = f"; {finding.fix}" if finding.fix else ""
            place = f"{finding.place.get('path')}:{finding.place.get('line', '')}".rstrip(":")
            steps.append((f"{finding.message}{fix} ({place}) ", RecordLink(finding.id)))
            break
    if robust is not None:
        steps += _robust_step(evidence, robust, model, str(dataset))
    for check in evidence.of(CheckResult):
        if check.verdict in ("fail", "error", "broken"):
            why = f"{check.message}. " if check.message else ""
            said = f"Check {check.check}, {check.verdict}: {why}A pass would prove: {check.proves} "
            steps.append((said, RecordLink(check.id)))
    if evidence.failures():
        steps.append(("Some of the work failed; try it again. ", Command("purple run --resume")))
    return steps


def _robust_step(evidence: Evidence, robust: Measurement, model: str, dataset: str) -> list[Cell]:
    number = number_of(robust)
    if not number.established:
        command = f"purple attack --model {model} --dataset {dataset} --attack autoattack"
        return [("Evaluate anew with a stronger ladder of attacks. ", Command(command))]
    if number.value >= HALF and _failed_floor(evidence, robust) is None:
        return []
    epsilon = robust.how.get("epsilon")
    better = [
        one
        for name in evidence.models_of("hardened")
        if (one := evidence.weakest(name, epsilon)) is not None
        and number_of(one).established
        and value_of(one) > max(HALF, value_of(robust))
    ]
    if better:
        best: Measurement = max(better, key=value_of)
        left: Number = number_of(best)
        path = evidence.file_of(model_name(best))
        words = f"Use {model_name(best)} instead ({path}): it keeps "
        return [(words, left, " under ", _attack(best), ".")]
    shown = f"{epsilon:.4g}" if isinstance(epsilon, float) else epsilon
    command = f"purple harden --dataset {dataset} --recipe pgd --epsilon {shown}"
    return [("Train against the attack. ", Command(command, robust.id))]
