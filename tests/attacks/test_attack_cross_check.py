"""The same attack by us and by others: agreement is shown, disagreement is a finding."""

from __future__ import annotations

import json
import sys

import pytest
from torch import nn

from purpleteam.attacks.cross_check import Comparison, cross_check
from purpleteam.attacks.peers import peer_attack
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Rate, paired_difference
from purpleteam.data.images import ImageSet


def compared(ours: list[bool], theirs: list[bool]) -> Comparison:
    return Comparison(
        attack="pgd",
        peer="foolbox:LinfPGD",
        ours=Rate.of(sum(ours), len(ours)),
        theirs=Rate.of(sum(theirs), len(theirs)),
        difference=paired_difference(ours, theirs),
    )


def test_equal_verdicts_agree() -> None:
    assert compared([True, False] * 50, [True, False] * 50).agrees


def test_a_difference_within_what_sampling_explains_agrees() -> None:
    theirs = [True] * 50 + [False] * 50
    assert compared([*theirs[1:], True], theirs).agrees


@pytest.mark.parametrize(
    ("more", "severity", "said"),
    [(True, "medium", "they break more"), (False, "note", "we break more")],
)
def test_a_difference_beyond_it_is_a_finding_that_says_who_is_weaker(
    more: bool, severity: str, said: str
) -> None:
    high, low = [True] * 80 + [False] * 20, [True] * 40 + [False] * 60
    found = compared(high, low) if more else compared(low, high)
    assert not found.agrees
    record = found.finding({"path": "standard"})
    assert (record.severity, record.rule, record.place) == (
        severity,
        "cross-check",
        {"path": "standard"},
    )
    assert said in record.message and "of the same 100 images" in record.message
    assert "80.00%" in record.message and "40.00%" in record.message


def test_a_difference_under_the_tolerance_is_none_however_many_images() -> None:
    n = 100_000
    assert compared([True] * n, [True] * (n - 200) + [False] * 200).agrees
    assert not compared([True] * n, [True] * (n - 500) + [False] * 500).agrees


def test_pgd_of_four_libraries_gives_one_number(standard: nn.Module, images: ImageSet) -> None:
    for name in ("art", "foolbox", "torchattacks"):
        pytest.importorskip(name, reason="the library is not installed: make peers")
    found = cross_check(standard, images, norm="linf", epsilon=0.05, steps=10, only=("pgd",))
    assert {one.peer.partition(":")[0] for one in found.rows} == {"art", "foolbox", "torchattacks"}
    assert all(one.agrees and abs(one.difference.value) <= 1 / 60 for one in found.rows)
    assert 0 < found.rows[0].ours.value < 1
    assert found.findings == () and found.absent == {}
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["attack"] == "pgd"


def test_what_is_not_installed_is_named_and_the_rest_is_compared(
    standard: nn.Module, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("art", reason="the library is not installed: make peers")
    peer_attack.cache_clear()
    monkeypatch.setitem(sys.modules, "foolbox", None)
    found = cross_check(standard, images.first(10), norm="l2", epsilon=0.5, steps=3, only=("fgsm",))
    assert [one.peer for one in found.rows] == ["art:FastGradientMethod"]
    assert "needs foolbox" in found.absent["foolbox:FGM"]


def test_a_norm_without_equals_is_refused(standard: nn.Module, images: ImageSet) -> None:
    with pytest.raises(UsageError, match="unknown norm to cross-check 'l0'; known: l2, linf"):
        cross_check(standard, images, norm="l0", epsilon=3.0)


def test_an_attack_without_equals_is_refused(standard: nn.Module, images: ImageSet) -> None:
    with pytest.raises(UsageError, match=r"'mifgsm' \(did you mean 'fgsm'\?\); known: apgd_ce"):
        cross_check(standard, images, epsilon=0.1, only=("mifgsm",))
