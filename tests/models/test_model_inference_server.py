"""A model of an inference server: what it may say of itself and answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from black_box_tiny import OK, Script, scripted

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models import load
from purpleteam.models.adapters import NORMALISATIONS
from purpleteam.models.inference_server import InferenceServer

SHAPE = (3, 2, 2)
IMAGE = {"name": "x", "datatype": "FP32", "shape": [-1, 3, 2, 2]}
SCORES = {"name": "y", "datatype": "FP32", "shape": [-1, 2]}


class Served(Script):
    """Says `says` of itself and answers what a test wants; `sent` are the bodies."""

    def __init__(self, answer: Any, says: Any = None) -> None:
        super().__init__(lambda _: None)
        self.answer, self.says, self.sent = answer, says, list[Any]()

    def reply(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = self.says
        if body:
            self.sent.append(json.loads(body))
            found = self.answer(self.sent[-1]) if callable(self.answer) else self.answer
        return (400, {}, b"{}") if found is None else (OK, {}, json.dumps(found).encode())


def output(data: Any) -> Any:
    return {"outputs": [{**SCORES, "data": data}]}


V2 = {"inputs": [IMAGE], "outputs": [SCORES]}


def test_it_is_sent_what_it_says_it_takes_and_may_be_named_with_its_verb() -> None:
    script = Served(output([0.25, 0.75]), V2)
    with scripted(script) as url:
        model = InferenceServer(f"{url}/v2/models/net/infer")
        x = torch.linspace(0, 1, 12).reshape(1, *SHAPE)
        scores = model(x)
    (sent,) = script.sent[-1]["inputs"]
    assert (sent["name"], sent["shape"]) == ("x", [1, 3, 2, 2])
    assert torch.equal(torch.tensor(sent["data"]).reshape(x.shape), x)  # no step of 1/255 is lost
    assert (model.shape, model.classes, model.quantised) == (SHAPE, 2, False)
    torch.testing.assert_close(scores.exp(), torch.tensor([[0.25, 0.75]]))
    assert script.seen[-1][1] == "/v2/models/net/infer"


def test_scores_beside_a_label_are_taken() -> None:
    says = {"inputs": [IMAGE], "outputs": [{**SCORES, "name": "l", "datatype": "INT64"}, SCORES]}
    with scripted(Served(output([[1.5, -2.0]]), says)) as url:
        assert InferenceServer(f"{url}/v2/models/net")(torch.zeros(1, *SHAPE)).tolist() == [
            [1.5, -2]
        ]


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"inputs": []}, "known: one input of FP32"),
        ({"inputs": [IMAGE, IMAGE], "outputs": [SCORES]}, "known: one input of FP32"),
        ({"inputs": [{**IMAGE, "datatype": "BYTES"}], "outputs": [SCORES]}, "takes BYTES [-1, 3"),
        ({"inputs": [{**IMAGE, "shape": [-1, 9]}], "outputs": [SCORES]}, "takes FP32 [-1, 9]"),
        ({"inputs": [IMAGE]}, "known: one input of FP32"),
        ({}, "answered without 'inputs'"),
    ],
)
def test_what_takes_no_images_is_a_clear_error(says: Any, message: str) -> None:
    with scripted(Served(None, says)) as url, pytest.raises(ModelError) as error:
        InferenceServer(f"{url}/v2/models/net")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"predictions": []}, "answered with None, not with scores or a label"),
        ({"predictions": [[1, 2], [3, 4]]}, "gave 2 predictions for one image"),
        ({"predictions": [[1, "a"]]}, "answered with [1, 'a'], not with scores or a label"),
        ({"predictions": [[1, float("nan")]]}, "answered with [1, nan], not with scores"),
        ({"predictions": [0.7]}, "answered with 0.7 alone: two scores"),
        ({"predictions": ["cat"]}, "answered with 'cat', not with scores or a label"),
        ({"predictions": [11]}, "answered with label 11, not one of 0 to 9"),
        ({"predictions": 3}, "answered with predictions 3, not a list"),
        ({"result": 1}, "answered without 'predictions'"),
        (None, "with status 400"),
    ],
)
def test_what_is_no_answer_is_a_clear_error(answer: Any, message: str) -> None:
    with scripted(Served(answer)) as url, pytest.raises(ModelError) as error:
        InferenceServer(f"{url}/v1/models/net:predict", images=SHAPE)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("said", [[1, 2, 3], {"scores": [1, 2, 3]}, {"0": 1, "1": 2, "2": 3}])
def test_scores_are_found_in_each_form(said: Any) -> None:
    with scripted(Served({"predictions": [said]})) as url:
        model = InferenceServer(f"{url}/invocations", images=SHAPE)
        assert model(torch.zeros(2, *SHAPE)).tolist() == [[1, 2, 3]] * 2


def test_an_answer_of_another_form_than_the_first_is_an_error() -> None:
    answers = iter([[1, 2, 3], [1, 2], 1])
    with scripted(Served(lambda _: {"predictions": [next(answers)]})) as url:
        model = InferenceServer(f"{url}/invocations", images=SHAPE, connections=1)
        for message in ("answered with 2 scores, and 3 before", "with 1, and with scores before"):
            with pytest.raises(ModelError, match=message):
                model(torch.zeros(1, *SHAPE))


def test_load_puts_a_normalisation_before_floats_and_none_before_bytes() -> None:
    layer = NORMALISATIONS["signed"]
    script = Served({"predictions": [1]})
    with scripted(script) as url:
        address = f"{url}/invocations"
        loaded = load(address, shape=SHAPE, classes=4, normalisation=layer)
        assert loaded.module(torch.zeros(1, *SHAPE)).tolist() == [[0, 1, 0, 0]]
        assert loaded.normalisation == layer and script.sent[-1]["instances"][0][0][0] == [-1] * 3
        with pytest.raises(UsageError, match="does not say which images it takes"):
            load(address)
    takes = {"inputs": [{**IMAGE, "datatype": "UINT8"}], "outputs": [SCORES]}
    with scripted(Served(output([1, 2]), takes)) as url, pytest.raises(UsageError, match="bytes"):
        load(f"{url}/v2/models/net", normalisation=layer)
