import io
from pathlib import Path

import pytest
import torch
from tiny_nets import SHAPE, every_layer
from torch import nn

from purpleteam.certify.network import Unsupported, network_of
from purpleteam.core.errors import ModelError
from purpleteam.models.adapters import Normalisation
from purpleteam.models.black_box import OnnxFile
from purpleteam.models.guard import Guarded, Order


def exported(net: nn.Module, path: Path) -> OnnxFile:
    file = io.BytesIO()
    torch.onnx.export(net, (torch.zeros(1, *SHAPE),), file, dynamo=False, opset_version=17)
    path.write_bytes(file.getvalue())
    return OnnxFile(path)


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_the_graph_of_a_module_answers_as_the_module() -> None:
    net = every_layer()
    torch.testing.assert_close(network_of(net, SHAPE)(images()), net(images()))


@pytest.mark.filterwarnings("ignore")
def test_the_graph_of_an_onnx_file_answers_as_the_module(tmp_path: Path) -> None:
    net = every_layer()
    file = exported(net, tmp_path / "net.onnx")
    torch.testing.assert_close(network_of(file, SHAPE)(images()), net(images()))


def test_a_graph_shares_the_parameters_and_leaves_the_mode_of_the_module() -> None:
    net = every_layer().train()
    network = network_of(net, SHAPE)
    assert all(part.training for part in net.modules())
    with torch.no_grad():
        net.last.bias += 1
    torch.testing.assert_close(network(images()), net.eval()(images()))


def test_the_users_order_of_classes_and_normalisation_are_layers_too() -> None:
    net = Normalisation.parse("mean=0.5/0.4,std=0.2/0.3").before(every_layer())
    asked = Guarded(net, 4)
    asked.order = Order(("a", "b", "c", "d"), (2, 0, 3, 1))
    torch.testing.assert_close(network_of(asked, SHAPE)(images()), asked(images()))


def test_a_layer_without_bound_is_named_with_its_place() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(128, 5), nn.GELU(), nn.Linear(5, 3)))
    with pytest.raises(Unsupported, match=r"layer 1\.1 \(gelu\)"):
        network_of(net, SHAPE)


def test_a_norm_by_the_batch_is_refused() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten())
    with pytest.raises(Unsupported, match="by the batch"):
        network_of(net, SHAPE)


def test_a_function_that_only_answers_is_refused() -> None:
    with pytest.raises(ModelError, match="only answers"):
        network_of(lambda x: x, SHAPE)


def test_the_box_of_pixels_is_exact_up_to_the_first_sum() -> None:
    network = network_of(every_layer(), SHAPE)
    assert network[network.root].place.endswith("(clamp)")
