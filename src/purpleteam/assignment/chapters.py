"""The two course reports: what they claimed beside what is measured here.

A figure of the note `published-figures` is `{report, what, value, where}`. It stands beside the
measurement named `what`, on MNIST, that agrees in `model_name`, `split` and every parameter that
the figure gives (`attack`, `epsilon`, ...).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from purpleteam.core.records import Measurement
from purpleteam.core.schema import SYSTEM_MODEL
from purpleteam.report import view
from purpleteam.report.blocks import bars_figure
from purpleteam.report.chapter import CHAPTERS, Chapter
from purpleteam.report.chapters.threats import listed
from purpleteam.report.collect import Evidence, epsilon_of, items, model_name, value_of
from purpleteam.report.numbers import number_of, number_or_dash, of_fraction, radius

FIGURES = ("published-figures", "seeds-figures")
"""Names of the note: today's, and that of runs of schema 1."""
THREATS = "published-threats"
DATASET = "mnist"
"""What both reports are about: their figures stand beside no other images."""
OWN = ("report", "seed", "what", "value", "where", "model_name", "note", "meaning", "how")
"""Keys of a figure that are no parameter of a measurement."""
WORDS = {"attack": "", "epsilon": "ε = "}
"""Parameters of a measurement that tell it from the others, and what stands before each."""


def claims(evidence: Evidence) -> list[tuple[Measurement, Measurement]]:
    """Return, a model at a time, what transferred images claim and what an attack on it shows.

    Both at one radius: the headline's where there is such a pair, else the model's largest.
    Images that left their radius (cast to bytes unclipped) are no fair claim about a model, but
    for the one whose report tested it so.
    """
    best: dict[str, tuple[Measurement, Measurement]] = {}

    def telling(pair: tuple[Measurement, Measurement]) -> tuple[bool, float, float]:
        epsilon = epsilon_of(pair[0])
        return epsilon == evidence.headline_epsilon, epsilon, value_of(pair[0])

    for claimed in evidence.find("transfer_accuracy"):
        name, epsilon = model_name(claimed), epsilon_of(claimed)
        true = evidence.weakest(name, epsilon)
        maker = str(claimed.how.get("made_as", "")).replace("_", "-")
        own = bool(maker) and name.startswith(maker)
        within = float(claimed.detail.get("largest_linf", 0.0)) <= epsilon + 1 / 255  # rounding
        if true is not None and (within or own):
            pairs = [pair for pair in (best.get(name), (claimed, true)) if pair]
            best[name] = max(pairs, key=telling)
    pairs = [best[name] for name in evidence.models if name in best]
    return sorted(pairs, key=lambda pair: value_of(pair[1]) - value_of(pair[0]))


def _headline(evidence: Evidence) -> Iterator[view.Block]:
    """Yield the widest gap in a sentence, then every claim beside the truth as a figure."""
    pairs = claims(evidence)
    for claimed, true in pairs[:1]:
        said = (number_of(claimed), " claimed. At most ", number_of(true), " true.")
        yield view.Prose(said, "headline")
        whose = (
            f"Of images that were made against another model, {model_name(claimed)} classifies "
            "the first fraction correctly, and that was called robust. Attacked itself, within the "
            "same "
        )
        kept = (
            ", it keeps no more than the second. Both are measured; only the second is about an "
            "adversary who has the model."
        )
        yield view.Prose((whose, view.Given(radius(claimed.how.get("epsilon")), claimed.id), kept))
    groups = [
        (
            f"{model_name(claimed)}, {radius(claimed.how.get('epsilon'))}",
            [
                (number_of(claimed), "claimed", "transferred"),
                (number_of(true), "true", "attacked itself"),
            ],
        )
        for claimed, true in pairs
    ]
    title = "Accuracy under attack: claimed and true"
    about = "For each model, accuracy on transferred images and under attack on itself."
    caption = (
        "Pale: images made against another model, as both reports tested their defences. Solid: "
        "the strongest attack here on the model itself, same radius. Whiskers are intervals of "
        "sampling.",
    )
    if groups:
        yield bars_figure(title, about, groups, caption)


def beside(evidence: Evidence, measurement: Measurement) -> list[tuple[str, view.Number | str]]:
    """Return what the reports published for the same thing: which report, and its figure."""
    known: dict[str, Any] = {**measurement.subject, **measurement.how}
    same = []
    for record, figure in _figures(evidence):
        how = figure.get("how")
        asked = {"dataset_name": DATASET, **_parameters(figure)}
        asked |= dict(how) if isinstance(how, Mapping) else {}
        about = (figure.get("what"), figure.get("model_name"))
        if about == (measurement.name, model_name(measurement)) and all(
            known.get(key) == value for key, value in asked.items()
        ):
            same.append((_report(figure), _value(figure, record)))
    return same


def _beside(evidence: Evidence) -> view.Table:
    """Return every measurement of which a report published the same."""
    rows = []
    for record in evidence.measurements:
        published = beside(evidence, record)
        if not published:
            continue
        cells = [(f"{report}:\N{NO-BREAK SPACE}", value, "\n") for report, value in published]
        words = [record.name.replace("_", " ")]
        words += [f"{word}{record.how[key]}" for key, word in WORDS.items() if key in record.how]
        seed = "" if record.seed is None else f", seed {record.seed}"
        itself = None
        if record.name == "transfer_accuracy":
            itself = evidence.weakest(model_name(record), epsilon_of(record))
        row = view.row(
            (", ".join(words), view.RecordLink(record.id)),
            (model_name(record), view.Given(seed, record.id)),
            tuple(part for cell in cells for part in cell)[:-1],
            number_of(record),
            number_or_dash(itself),
            record=record.id,
        )
        rows.append(row)
    columns = ("What", "Model", "Published", "Measured here", "Attacked itself, same ε")
    caption = "What the two course reports published, and the same thing measured here"
    return view.Table(caption, columns, rows)


def _published(evidence: Evidence) -> Iterator[view.Block]:
    """Yield every figure that the reports published, then their threats beside the system's."""
    rows = []
    for record, figure in _figures(evidence):
        name, model = str(figure.get("what", "")).replace("_", " "), figure.get("model_name")
        words = [f"{name} of {model}" if model else name]
        words += [f"{key} {value}" for key, value in _parameters(figure).items()]
        report, value = f"Report {_report(figure)}", _value(figure, record)
        meaning = str(figure.get("meaning", figure.get("note", ""))) or view.DASH
        place = str(figure.get("where", ""))
        rows.append(view.row(report, ", ".join(words), value, place, meaning, record=record))
    columns = ("Report", "What it calls it", "Published", "Where", "What it was")
    caption = "All figures of the two course reports, on MNIST"
    yield view.Table(caption, columns, rows, folded=True)
    tables = []
    for note in evidence.notes(THREATS, SYSTEM_MODEL):
        lists = note.facts.get("tables", note.facts.get("seed_tables"))
        tables += listed("Report", lists, note.facts.get("columns"), note.id)
    title = "The threats of the two course reports, each beside the one of this system"
    if tables:
        yield view.Prose((title,), "heading")
    yield from tables


def _figures(evidence: Evidence) -> list[tuple[str, Mapping[str, Any]]]:
    return [(note.id, figure) for note in evidence.notes(*FIGURES) for figure in items(note.facts)]


def _report(figure: Mapping[str, Any]) -> str:
    return str(figure.get("report", figure.get("seed", "?")))


def _parameters(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figure.items() if key not in OWN}


def _value(figure: Mapping[str, Any], record: str) -> view.Number | str:
    value = figure.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return of_fraction(value, str(figure.get("what", "")), record)


CHAPTER = Chapter(
    title="The course reports",
    lead="What two course reports claimed, beside the same thing measured here.",
    parts=(_headline, _beside, _published),
    notes=(*FIGURES, THREATS),
    after="serve",
)
CHAPTERS.register("assignment")(CHAPTER)
