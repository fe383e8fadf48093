"""Totals in the text format of Prometheus."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from purpleteam.core.cards import ModelCard
from purpleteam.serve.tally import Key

VERSION = metadata.version("purpleteam")
COUNTERS = {  # of each kind of total: its name, what it says, and its label
    "refusals": ("purple_refusals", "Requests refused, by the guard that did it", "guard"),
    "answers": ("purple_answers", "Images answered, with a label or the reason for none", "answer"),
    "wrong": ("purple_wrong", "Answers that visitors call wrong, by what was said", "said"),
    "labels": ("purple_labels", "Images answered with a label, where that is told", "label"),
}


def text(totals: Mapping[Key, float], card: ModelCard) -> tuple[bytes, str]:
    """Return the totals that are not 0, and what model they are of, with their media type."""
    registry = CollectorRegistry()
    registry.register(_Totals(totals, card))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Totals(Collector):
    def __init__(self, totals: Mapping[Key, float], card: ModelCard) -> None:
        self.totals, self.card = totals, card

    def collect(self) -> Iterator[Metric]:
        facts = {"name": self.card.name, "digest": self.card.digest}
        served = {"version": VERSION, **facts}
        yield InfoMetricFamily("purple_model", "What is served", value=served)
        requests = CounterMetricFamily(
            "purple_requests", "Requests, 0 where nobody waited", labels=("route", "status")
        )
        for key, total in self.totals.items():
            if key[0] == "requests" and total:
                requests.add_metric(key[1:], total)
        yield requests
        yield self._seconds()
        for kind, (name, said, label) in COUNTERS.items():
            counter = CounterMetricFamily(name, said, labels=(label,))
            for key, total in self.totals.items():
                if key[0] == kind and total:
                    counter.add_metric(key[1:], total)
            yield counter

    def _seconds(self) -> HistogramMetricFamily:
        family = HistogramMetricFamily(
            "purple_request_seconds",
            "From a whole head to the end of its answer",
            labels=("route",),
        )
        routes: dict[str, dict[str, float]] = {}
        for key, total in self.totals.items():
            if key[0] == "seconds":
                routes.setdefault(key[1], {})[key[2]] = total
        for route, counts in routes.items():
            in_all = counts.pop("sum")
            running = list(accumulate(counts.values()))
            if running[-1]:
                buckets = list(zip(counts, running, strict=True))
                family.add_metric((route,), buckets, in_all)
        return family
