"""How figures are written: percent only here, an interval and n beside each rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from purpleteam.core.metrics import METRICS, Metric, Unit
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Counts, Estimate, Rate, Value
from purpleteam.report.view import DASH, Number

SPACE = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
FRACTIONS = ("accuracy", "rate", "f1", "precision", "recall", "calibration_error")
"""A name that is no metric, such as a field of a record, is a fraction if it holds one of these."""
BETTER = {"higher": " Higher is better.", "lower": " Lower is better.", "neither": ""}
ARROWS = {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}", "neither": ""}


def metric_of(name: str) -> Metric:
    """Return a metric; of a name that is none here, what its words tell of its unit."""
    fraction = any(word in name for word in FRACTIONS)
    unit: Unit = "points" if "difference" in name else "fraction" if fraction else "score"
    return METRICS.get(name) or Metric(name, "", unit, "neither")


def meaning(name: str) -> str:
    """Return what a metric means and which way is better."""
    return metric_of(name).meaning + BETTER[metric_of(name).better]


def heading(name: str, text: str = "") -> str:
    """Return a column's heading for a metric, with an arrow to where better values are."""
    return (text or name.replace("_", " ").capitalize()) + ARROWS[metric_of(name).better]


def soundness_of(measurement: Measurement) -> str:
    """Return the verdict on the evaluation itself: sound where it has none."""
    verdict = measurement.detail.get("soundness")
    return str(verdict.get("verdict", "sound")) if isinstance(verdict, Mapping) else "sound"


def number_of(measurement: Measurement) -> Number:
    """Return a measurement as it is shown, its warnings beside it."""
    selection = str(measurement.subject.get("selection", "all"))
    verdict = soundness_of(measurement)
    flags = [f"{selection}: no random sample"] if selection.startswith("first") else []
    flags += ["weak evaluation"] if verdict == "weak" else []
    number = of_value(measurement.value, measurement.name, measurement.id)
    return replace(number, flag="; ".join(flags), established=verdict != "not_established")


def number_or_dash(measurement: Measurement | None) -> Number | str:
    """Return a measurement as it is shown, or a dash where there is none."""
    return DASH if measurement is None else number_of(measurement)


def of_value(value: Value, name: str, record: str) -> Number:
    """Return a value of the record as it is shown; `name` is its metric."""
    about: dict[str, Any] = {"records": (record,), "meaning": meaning(name)}
    if isinstance(value, Counts):
        return Number(text=grouped(value.n), value=value.n, **about)
    low, high, decimals, unit = 100 * value.low, 100 * value.high, 2, metric_of(name).unit
    if isinstance(value, Rate):
        decimals = 2 if value.n >= 5000 else 1
        text = percent(value.value, decimals)
    elif unit == "points":
        text = f"{100 * value.value:+.2f}{SPACE}points".replace("-", MINUS)
    elif unit == "fraction":
        text = percent(value.value, 2)
        low, high = max(0.0, low), min(100.0, high)  # a t interval knows no bounds
    else:
        text, low, high = plain(value.value), value.low, value.high
        decimals = 4 if abs(value.value) < 1 else 3
    span = f"{low:.{decimals}f} to {high:.{decimals}f}"
    span = span.replace("-", MINUS).replace("inf", "\N{INFINITY}")
    of = f"{SPACE}trainings" if isinstance(value, Estimate) and value.values else ""
    interval = f"{span}, n{SPACE}={SPACE}{grouped(value.n)}{of}"
    ends = (value.low, value.high)
    return Number(text=text, value=value.value, interval=interval, ends=ends, **about)


LISTED = 30
"""Most classes that a page lists one by one."""


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
    """Return a radius as papers write it: 0.3, and 8/255 where it is whole steps of a byte."""
    if not isinstance(epsilon, float) or epsilon == round(epsilon, 3):
        return str(epsilon or 0)
    steps = round(255 * epsilon)
    return f"{steps}/255" if abs(255 * epsilon - steps) < 1e-6 else f"{epsilon:.4g}"


def count(records: Sequence[str], among: Sequence[str] = ()) -> Number:
    """Return how many records there are of a kind, tied to them; none, to those looked at."""
    tied, n = tuple(records) or tuple(among), len(records)
    return Number(text=grouped(n), value=n, records=tied, tally=True)


def of_fraction(value: float, name: str, record: str) -> Number:
    """Return a bare value of the record, in percent where its name says that it is a fraction."""
    fraction = metric_of(name).unit == "fraction" and 0 <= value <= 1
    text = percent(value, 2) if fraction else plain(value)
    return Number(text=text, value=value, records=(record,))
