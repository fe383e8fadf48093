"""What a verb returns: text for a shell, HTML for a notebook, JSON for a program."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import nn

import purpleteam as pt
from purpleteam.core.records import Measurement
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.verbs import Result
from purpleteam.verbs.attack import Attacked


def measured(result: Result) -> list[Measurement]:
    return [record for record in result.records if isinstance(record, Measurement)]


ATTACK = {"attack": "fgsm", "epsilon": 8 / 255}
Purple = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def attacked(net: nn.Module, few: Dataset) -> Attacked:
    return pt.attack(net, few, **ATTACK)


def test_its_repr_is_what_a_shell_shows(attacked: Attacked) -> None:
    text = repr(attacked)
    assert text.startswith("clean accuracy   ") and "robust accuracy  " in text
    assert f"soundness        {attacked.verdict}" in text and "n=30" in text
    assert "note: few: " in text and "report:" not in text


def test_its_html_is_escaped(attacked: Attacked) -> None:
    page = replace(attacked, notes=("<script>alert(1)</script> & more",))._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert page.startswith("<pre>clean accuracy") and "<a href" not in page


def test_its_html_links_to_the_report_of_its_run(attacked: Attacked, tmp_path_factory) -> None:
    run = tmp_path_factory.mktemp("a & b")
    page = replace(attacked, run=run)._repr_html_()
    assert f'<a href="{str(run).replace("&", "&amp;")}/report.html">' in page


def test_its_json_holds_what_it_offers_as_attributes(attacked: Attacked) -> None:
    values = json.loads(json.dumps(attacked.to_json()))
    assert values["robust_accuracy"] == attacked.robust_accuracy.to_json()
    assert values["clean_accuracy"] == attacked.clean_accuracy.to_json()
    assert values["soundness"]["verdict"] == attacked.verdict
    assert [record.name for record in measured(attacked)] == ["robust_accuracy"]


def test_its_values_are_attributes_too() -> None:
    trained = replace(Result(), values={"digest": "sha256:0"})
    assert trained.digest == "sha256:0" and copy.deepcopy(trained) == trained
    with pytest.raises(AttributeError, match="Result has no 'digset'"):
        trained.digset  # noqa: B018


def test_a_curve_has_a_record_for_each_radius(net: nn.Module, few: Dataset) -> None:
    result = pt.attack(net, few, attack="fgsm", epsilon=[0.02, 0.1])
    assert [record.how["epsilon"] for record in measured(result)] == [0.02, 0.1]
    assert list(result.points) == [0.02, 0.1]
    assert result.robust_accuracy == result.points[0.1].robust_accuracy


def test_the_command_line_prints_the_same_number(purple: Purple, images: ImageSet) -> None:
    from purpleteam.data.sources.digits import load_digits

    code, out, _ = purple(
        *("attack", "--model", "net.py:build", "--dataset", "digits", "--limit", 30),
        *("--attack", "fgsm", "--epsilon", "8/255", "--json"),
    )
    result = pt.attack("net.py:build", load_digits(), limit=30, **ATTACK)
    assert code == 0
    values = json.loads(out)
    for name in ("robust_accuracy", "clean_accuracy", "soundness", "attacks"):
        want = json.loads(json.dumps(result.to_json()[name]))
        if isinstance(want, dict):
            want.pop("cost", None), values[name].pop("cost", None)
        assert values[name] == want, name


def test_every_other_verb_returns_one_too(net: nn.Module, few: Dataset) -> None:
    result = pt.evaluate(net, few)
    assert "clean_accuracy" in {record.name for record in result.records}
    assert json.dumps(result.to_json()) and repr(result) and result._repr_html_()
