"""The first screen: the verdict on the model at hand, at most five numbers, what to fix first."""

from collections.abc import Iterator

from purpleteam.core.records import CheckResult, Measurement, Note
from purpleteam.core.schema import MODEL_SCAN
from purpleteam.report import numbers, view
from purpleteam.report.chapters.certify import bound_of
from purpleteam.report.chapters.closing import gaps
from purpleteam.report.chapters.evasion import soundness
from purpleteam.report.chapters.scan import gravest_first
from purpleteam.report.collect import Evidence, model_name, value_of
from purpleteam.report.numbers import count, number_of, of_epsilon, of_fraction, radius

Robust = Measurement | None
MOST_STEPS, MOST_GAPS = 4, 4
HALF = 0.5
"""A model that keeps less than this under attack is said to break."""
READING = view.Reading(
    "Each number opens its record: what was measured, on what, and the command that measures "
    "it again.",
    "An accuracy under attack is what the attacks tried here left: a stronger attack can only "
    "lower it. Intervals cover the choice of test images, not the strength of the attack.",
)


def first_section(evidence: Evidence, told: set[str]) -> view.Section:
    """Return the first screen; `told` are the ids of the sections that follow."""
    name = evidence.at_hand
    # the robust accuracy that counts: in linf at the headline's radius, else the lowest
    robust = evidence.weakest(name, evidence.headline_epsilon) or evidence.weakest(name)
    robust = robust or min(evidence.find("robust_accuracy", name), key=value_of, default=None)
    scans = (note for note in evidence.notes(MODEL_SCAN) if note.facts.get("own", True))
    scan = next((note for note in scans if note.facts.get("model_name") == name), None)
    cards = tuple(_cards(evidence, robust, scan, told))
    steps = tuple(_steps(evidence, robust, scan))[:MOST_STEPS]
    untested = [
        (gap, ".", *((" ", view.Command(command)) if command else ()))
        for gap, command in gaps(evidence)
    ]
    more: view.Cell = ("All of it: ", view.Jump("What was not tested", "not-tested"), ".")
    blocks = view.flat(
        view.Prose(tuple(_sentence(evidence, robust, scan)), style="verdict"),
        view.Cards(cards) if cards else view.Prose(("Nothing has been measured yet.",), "missing"),
        view.Steps("What to fix first", steps) if steps else None,
        view.Steps("What was not tested", (*untested[:MOST_GAPS], more)),
        READING if robust is not None else None,
    )
    return view.Section("verdict", "Verdict", "", tuple(blocks), folded=False)


def called(evidence: Evidence) -> str:
    """Return what the reader knows the model at hand by."""
    return evidence.brought.replace("\\", "/").rsplit("/", 1)[-1] or evidence.at_hand


def _sentence(evidence: Evidence, robust: Robust, scan: Note | None) -> Iterator[view.Inline]:
    """Yield one sentence: what the model does unchanged, and under the attack that counts."""
    name, clean = called(evidence), evidence.best("clean_accuracy", evidence.at_hand)
    if scan is not None and scan.facts.get("backdoored"):
        yield "A backdoor was found. "
    if robust is not None:
        number, said = number_of(robust), f"{name} {_word(evidence, robust)}: "
        yield said if number.established else f"Not established how robust {name} is: "
        if clean is not None:
            yield from (number_of(clean), " of test images are classified correctly unchanged, ")
        of = "" if clean is not None else " of test images"
        yield from ("at most ", number, of, " under ", _attack(robust), ".")
    elif clean is not None:
        yield from (f"{name} classifies ", number_of(clean), " of unchanged images correctly; ")
        yield "it was not attacked."
    else:
        yield f"Nothing was measured of {name or 'a model'}."


def _word(evidence: Evidence, robust: Measurement) -> str:
    """Return what the model at hand does under attack, in one verdict for the whole page."""
    if value_of(robust) < HALF:
        clean = evidence.best("clean_accuracy", evidence.at_hand)
        broken = clean is None or value_of(robust) < value_of(clean)
        return "breaks" if broken else "errs without an attack"
    for check in evidence.of(CheckResult):
        if robust.id in check.inputs and check.verdict != "pass":  # it counted this very number
            return f"is below the floor of {check.check}"
    return "withstands the attacks tried"


def _attack(record: Measurement) -> view.Span:
    how = record.how
    said = f"{how.get('attack')}, {how.get('norm', 'linf')} {radius(how.get('epsilon'))}"
    return view.Given(said, record.id)


def _cards(
    evidence: Evidence, robust: Robust, scan: Note | None, told: set[str]
) -> Iterator[view.Card]:
    if clean := evidence.best("clean_accuracy", evidence.at_hand):
        images = str(clean.subject.get("dataset_name", "")) or "the dataset"
        said = f"of unchanged test images of {images} are classified correctly."
        about = ("Clean accuracy", "models", "quiet", "nobody attacks")
        yield view.Card(*about, number_of(clean), (said,))
    if robust is not None:
        number, verdict = number_of(robust), _word(evidence, robust)
        tone = "good" if verdict.startswith("withstands") else "bad"
        if not number.established:
            tone, verdict = "warn", "not established"
        words = ("of test images stay right under ", _attack(robust), ". Evaluation: ")
        evaluation = (*words, soundness(robust)[0])
        yield view.Card("Robust accuracy", "evasion", tone, verdict, number, evaluation)
    if scan is not None:
        facts, score, limit = scan.facts, scan.facts.get("score"), scan.facts.get("threshold")
        number, scale = count([scan.id]), "scan"
        if isinstance(score, int | float):
            number, scale = of_fraction(float(score), "score", scan.id), "is the anomaly score"
        tone, verdict, said = "good", "none found", "weak and adaptive triggers pass"
        if facts.get("backdoored") is None:
            tone, verdict = "warn", "not established"
            said = "; ".join(map(str, facts.get("reasons", ())))
        elif facts["backdoored"]:
            said = f"it leads to {facts.get('target_label')}"
            tone, verdict = "bad", "backdoor found"
        flagged = f"; flagged from {limit:.3g}" if isinstance(limit, int | float) else ""
        answer = (view.Given(f"{scale}{flagged}: {said}.", scan.id),)
        yield view.Card("Backdoor scan", "backdoors", tone, verdict, number, answer)
    if proved := max(evidence.find("certified_accuracy"), key=value_of, default=None):
        other = model_name(proved) != evidence.at_hand
        whose = f"of another classifier, {model_name(proved)}, " if other else ""
        against = f"of test images {whose}hold against "
        bound = (against, view.Given(bound_of(proved), proved.id), ".")
        about = ("Certified accuracy", "certify", "quiet", "proved")
        yield view.Card(*about, number_of(proved), bound)
    ran = [record for record in evidence.of(CheckResult) if record.verdict != "skipped"]
    if ran:
        every = [record.id for record in ran]
        failed = [record.id for record in ran if record.verdict != "pass"]
        tone, verdict = ("bad", "not all pass") if failed else ("good", "all pass")
        target = "threats" if "threats" in told else "records"
        of = ("of ", count(every), " executed checks did not pass.")
        yield view.Card("Failed checks", target, tone, verdict, count(failed, among=every), of)


def _steps(evidence: Evidence, robust: Robust, scan: Note | None) -> Iterator[view.Cell]:
    """Yield what to do, the gravest first, each with the command to type."""
    model, dataset = evidence.typed
    if scan is not None and scan.facts.get("backdoored"):
        command = f"purple repair --model {model} --dataset {dataset} --method unlearn"
        yield "Take the backdoor out, or train anew. ", view.Command(command)
    grave = [find for find in gravest_first(evidence) if find.severity in ("critical", "high")]
    for finding in grave[:1]:
        fix = f"; {finding.fix}" if finding.fix else ""
        place = f"{finding.place.get('path')}:{finding.place.get('line', '')}".rstrip(":")
        yield f"{finding.message}{fix} ({place}) ", view.RecordLink(finding.id)
    if robust is not None and not number_of(robust).established:
        command = f"purple attack --model {model} --dataset {dataset} --attack autoattack"
        yield "Evaluate anew with a stronger ladder of attacks. ", view.Command(command)
    elif robust is not None and not _word(evidence, robust).startswith("withstands"):
        epsilon = robust.how.get("epsilon")
        hardened = [evidence.weakest(name, epsilon) for name in evidence.models_of("hardened")]
        better = [record for record in hardened if record and number_of(record).established]
        best = max(better, key=value_of, default=None)
        if best is not None and value_of(best) > max(HALF, value_of(robust)):
            name, file = model_name(best), evidence.file_of(model_name(best))
            kept = (number_of(best), " under ", _attack(best))
            if numbers.soundness_of(best) == "sound":
                yield f"Use {name} instead ({file}): it keeps ", *kept, "."
            else:
                command = f"purple attack --model {file} --dataset {dataset} --attack autoattack"
                doubt = "; that evaluation is not sound, so attack it harder before you use it. "
                yield f"{name} ({file}) keeps ", *kept, doubt, view.Command(command, best.id)
        else:
            command = f"purple harden --dataset {dataset} --recipe pgd"
            command += f" --epsilon {of_epsilon(epsilon)}"
            yield "Train against the attack. ", view.Command(command, robust.id)
    for check in evidence.of(CheckResult):
        if check.verdict in ("fail", "error", "broken"):
            why = f"{check.message}. " if check.message else ""
            said = f"Check {check.check}, {check.verdict}: {why}A pass would prove: {check.proves} "
            yield said, view.RecordLink(check.id)
    if evidence.failures():
        yield "Some of the work failed; try it again. ", view.Command("purple run --resume")
