"""The chapter on the course reports: what they claimed beside what is measured."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import purpleteam.assignment.chapters  # noqa: F401 - registers the chapter
from purpleteam.assignment.chapters import claims
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.report import render
from purpleteam.report.collect import Evidence
from report_records import measured, write_full_run


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = write_full_run(tmp_path_factory.mktemp("report") / "full")
    return render(run).html.read_text("utf-8")


def robust(survived: int, attack: str, epsilon: float = 0.3, model: str = "m") -> Measurement:
    facts = {"attack": attack, "epsilon": epsilon, "norm": "linf"}
    made: Measurement = measured("robust_accuracy", Rate.of(survived, 100), model, facts)
    return made


def evidence(*found: Measurement) -> Evidence:
    return Evidence(Path(), {}, found)


def test_the_headline_sets_the_claim_beside_the_truth(html: str) -> None:
    headline = html.split('<p class="headline">')[1].split("</p>")[0]
    assert 'value="0.9971"' in headline
    assert 'value="0.0"' in headline


def test_published_figures_stand_beside_ours(html: str) -> None:
    table = html.split("published, and the same thing measured here</caption>")[1]
    beside = re.findall(r'(\w):\xa0<data value="([\d.]+)"', table.split("</table>")[0])
    assert ("A", "0.9889") in beside
    assert ("B", "0.5117") in beside


def test_a_claim_is_compared_at_its_own_radius() -> None:
    claim = measured("transfer_accuracy", Rate.of(99, 100), "m", {"attack": "fgsm", "epsilon": 0.1})
    pairs = claims(evidence(claim, robust(3, "pgd", 0.3), robust(60, "pgd", 0.1)))
    assert [(a.value.value, b.value.value) for a, b in pairs] == [(0.99, 0.6)]


def test_images_beyond_their_radius_are_no_claim_but_for_the_seed_that_made_them() -> None:
    how = {"attack": "fgsm", "epsilon": 0.1, "made_as": "seed_b"}
    for model, pairs in (("hardened", 0), ("seed-b-defence", 1)):
        claim = replace(
            measured("transfer_accuracy", Rate.of(99, 100), model, how),
            detail={"largest_linf": 0.9},
        )
        assert len(claims(evidence(claim, robust(60, "pgd", 0.1, model)))) == pairs
