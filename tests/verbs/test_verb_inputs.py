"""Images and models in every form that people have them in: one number whatever the form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import purpleteam as pt
from purpleteam.core.errors import PurpleError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.verbs.attack import Attacked


def as_bytes(images: ImageSet) -> Any:
    return images.images, images.labels


def as_grey(images: ImageSet) -> Any:
    return images.images[..., 0], images.labels


def as_tensors(images: ImageSet) -> Any:
    x = torch.from_numpy(images.images.copy()).permute(0, 3, 1, 2).float() / 255
    return x, torch.from_numpy(images.labels.copy())


def as_floats(images: ImageSet) -> Any:
    x, y = as_tensors(images)
    return x.numpy(), y.numpy()


def as_loader(images: ImageSet) -> Any:
    return DataLoader(TensorDataset(*as_tensors(images)), batch_size=7), None


def as_pairs(images: ImageSet) -> Any:
    x, y = as_tensors(images)
    return [(x[i], int(y[i])) for i in range(len(y))], None


FORMS = {
    "image set": lambda images: (images, None),
    "bytes": as_bytes,
    "grey": as_grey,
    "floats": as_floats,
    "tensors": as_tensors,
    "loader": as_loader,
    "pairs": as_pairs,
}


def attacked(model: Any, images: Any, labels: Any = None) -> Attacked:
    return pt.attack(model, images, labels, attack="fgsm", epsilon=0.05)


@pytest.fixture(scope="module")
def want(net: nn.Module, images: ImageSet) -> Attacked:
    return attacked(net, images)


@pytest.mark.parametrize("form", FORMS)
def test_images_in_every_form_give_the_same_number(
    net: nn.Module, images: ImageSet, want: Attacked, form: str
) -> None:
    result = attacked(net, *FORMS[form](images))
    assert result.robust_accuracy == want.robust_accuracy
    assert result.evaluation.broken_by.tolist() == want.evaluation.broken_by.tolist()


def test_a_module_and_a_function_are_attacked_alike(
    net: nn.Module, images: ImageSet, want: Attacked
) -> None:
    def scores(x: Tensor) -> Tensor:
        return net(x)  # type: ignore[no-any-return]

    result = attacked(scores, images)
    assert result.robust_accuracy == want.robust_accuracy
    assert result.clean_accuracy.value > 0.5


def test_refusals_are_told_of_all_calls_and_never_exceed_them(images: ImageSet) -> None:
    def mute(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.full((len(np.asarray(x)), 10), np.nan)

    told = " ".join(pt.attack(mute, images, attack="square", epsilon=0.1).notes)
    refused, calls = re.findall(r"refused ([\d,]+) of ([\d,]+) calls", told)[0]
    assert refused == calls


def test_an_attack_names_the_layer_of_a_file_that_has_no_gradient(
    net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    weight = numpy_helper.from_array(net[1].weight.detach().numpy().T, "w")  # type: ignore[index]
    takes, gives = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sides)
        for name, sides in (("x", ["n", 1, 28, 28]), ("y", ["n", 10]))
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Round", ["flat"], ["rounded"], name="/act/Round"),
        helper.make_node("MatMul", ["rounded", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "rounds", [takes], [gives], [weight])
    sets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), tmp_path / "rounds.onnx")
    for asked in ({"attack": "pgd"}, {"attack": "square:queries=2", "cross_check": True}):
        with pytest.raises(UsageError, match=r"layer /act/Round \(Round\)") as refused:
            pt.attack(tmp_path / "rounds.onnx", images, epsilon=0.1, **asked)
        assert "\n" not in str(refused.value)


def test_a_zoo_name_is_a_model() -> None:
    result = pt.attack("standard", "digits", attack="fgsm", epsilon=0.05, limit=20)
    assert (result.subject["model_name"], result.robust_accuracy.n) == ("standard", 20)


@pytest.mark.parametrize(
    ("model", "images", "labels", "said"),
    [
        ("net", "pictures", None, "unknown dataset 'pictures'"),
        ("net", np.zeros((3, 4)), [0, 1, 2], "images"),
        ("nosuch", "digits", None, "nosuch"),
        (3, "digits", None, "model"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    net: nn.Module, model: Any, images: Any, labels: Any, said: str
) -> None:
    with pytest.raises(PurpleError) as refused:
        attacked(net if model == "net" else model, images, labels)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("call", [pt.evaluate, pt.attack, pt.train, pt.scan, pt.export])
def test_a_mistyped_option_is_refused(call: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'limt'"):
        call("digits", limt=3)
