"""How figures are written: percent only here, an interval and n beside each rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.metrics import METRICS, Metric
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Counts, Estimate, Rate, Value
from purpleteam.report.view import DASH, Number

SPACE = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
FRACTIONS = ("accuracy", "rate", "f1", "precision", "recall", "calibration_error")
"""A name that is no metric, such as a field of a record, is a fraction if it holds one of these."""
BETTER = {"higher": " Higher is better.", "lower": " Lower is better.", "neither": ""}
ARROWS = {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}", "neither": ""}


def metric_of(name: str) -> Metric | None:
    """Return what is known of a metric; nothing of a plug-in's that is not loaded here."""
    found: Metric | None = METRICS.get(name)
    return found


def heading(name: str, text: str = "") -> str:
    """Return a column's heading for a metric, with an arrow to where better values are."""
    metric = metric_of(name)
    return (text or name.replace("_", " ").capitalize()) + ARROWS[
        metric.better if metric else "neither"
    ]


def number_of(measurement: Measurement) -> Number:
    """Return a measurement as it is shown, its warnings beside it."""
    flags = []
    selection = str(measurement.subject.get("selection", "all"))
    if selection.startswith("first"):
        flags.append(f"{selection}: no random sample")
    verdict = soundness_of(measurement)
    if verdict == "weak":
        flags.append("weak evaluation")
    return of_value(
        measurement.value,
        measurement.name,
        measurement.id,
        flag="; ".join(flags),
        established=verdict != "not_established",
    )


def soundness_of(measurement: Measurement) -> str:
    """Return the verdict on the evaluation itself: sound where it has none."""
    found = measurement.detail.get("soundness")
    return str(found.get("verdict", "sound")) if isinstance(found, Mapping) else "sound"


def number_or_dash(measurement: Measurement | None) -> Number | str:
    """Return a measurement as it is shown, or a dash where there is none."""
    return DASH if measurement is None else number_of(measurement)


def of_value(
    value: Value, name: str, record: str, *, flag: str = "", established: bool = True
) -> Number:
    """Return a value of the record as it is shown; `name` is its metric."""
    metric = metric_of(name)
    meaning = metric.meaning + BETTER[metric.better] if metric else ""
    if isinstance(value, Counts):
        return Number(
            text=grouped(value.n), value=value.n, records=(record,), flag=flag, meaning=meaning
        )
    if isinstance(value, Rate):
        decimals = 2 if value.n >= 5000 else 1
        text = percent(value.value, decimals)
        span = _span(100 * value.low, 100 * value.high, decimals)
    else:
        text, span = _estimate(value, _unit(name))
    of = f"{SPACE}trainings" if isinstance(value, Estimate) and value.values else ""
    return Number(
        text=text,
        value=value.value,
        records=(record,),
        interval=f"{span}, n{SPACE}={SPACE}{grouped(value.n)}{of}",
        meaning=meaning,
        flag=flag,
        established=established,
    )


def _unit(name: str) -> str:
    if metric := metric_of(name):
        return metric.unit
    if "difference" in name:
        return "points"
    return "fraction" if any(word in name for word in FRACTIONS) else "score"


def _estimate(value: Estimate, unit: str) -> tuple[str, str]:
    if unit == "points":
        text = f"{100 * value.value:+.2f}{SPACE}points".replace("-", MINUS)
        return text, _span(100 * value.low, 100 * value.high, 2)
    if unit == "fraction":
        low, high = max(0.0, value.low), min(1.0, value.high)  # a t interval knows no bounds
        return percent(value.value, 2), _span(100 * low, 100 * high, 2)
    return plain(value.value), _span(value.low, value.high, 4 if abs(value.value) < 1 else 3)


def _span(low: float, high: float, decimals: int) -> str:
    text = f"{low:.{decimals}f} to {high:.{decimals}f}"
    return text.replace("-", MINUS).replace("inf", "\N{INFINITY}")


def percent(fraction: float, decimals: int) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:.{decimals}f}{SPACE}%".replace("-", MINUS)


def plain(value: float) -> str:
    """Return a number that is no fraction of anything, in four significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (math.isfinite(value) and value == int(value)):
        return grouped(int(value))
    return f"{value:.4g}".replace("-", MINUS)


def grouped(value: int) -> str:
    """Return a whole number, its digits in groups of three from ten thousand on."""
    text = f"{value:,}".replace(",", SPACE) if abs(value) >= 10_000 else str(value)
    return text.replace("-", MINUS)


def radius(epsilon: Any) -> str:
    """Return a radius with its letter, never broken over two lines."""
    return f"ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{of_epsilon(epsilon)}"


def of_epsilon(epsilon: Any) -> str:
    """Return a radius as papers write it: 0.3, and 8/255 where it is so many steps of a byte."""
    if not isinstance(epsilon, float) or epsilon == round(epsilon, 3):
        return str(epsilon)
    steps = round(255 * epsilon)
    return f"{steps}/255" if abs(255 * epsilon - steps) < 1e-6 else f"{epsilon:.4g}"


def seconds(value: float, record: str) -> Number:
    """Return a time of the record in a unit that fits it."""
    if value < 1e-3:
        text = f"{1e6 * value:.0f}{SPACE}µs"
    elif value < 1:
        text = f"{1e3 * value:.2f}{SPACE}ms"
    else:
        text = f"{value:.1f}{SPACE}s"
    return Number(text=text, value=value, records=(record,))


def count(records: Sequence[str], among: Sequence[str] = ()) -> Number:
    """Return how many records there are of a kind, tied to them; none, to those looked at."""
    return Number(
        text=grouped(len(records)),
        value=len(records),
        records=tuple(records) or tuple(among),
        tally=True,
    )


def of_fraction(value: float, name: str, record: str) -> Number:
    """Return a bare value of the record, in percent where its name says that it is a fraction."""
    fraction = _unit(name) == "fraction" and 0 <= value <= 1
    return Number(
        text=percent(value, 2) if fraction else plain(value), value=value, records=(record,)
    )
