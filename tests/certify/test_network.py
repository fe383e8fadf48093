import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_nets import SHAPE, every_layer
from torch import Tensor, nn

from purpleteam.certify.bounds import ball, intervals, lower_bound
from purpleteam.certify.network import Unsupported, network_of
from purpleteam.certify.tighten import tighten
from purpleteam.core.errors import ModelError
from purpleteam.models.adapters import Normalisation
from purpleteam.models.black_box import OnnxFile
from purpleteam.models.guard import Guarded, Order


def exported(net: nn.Module, path: Path, opset: int = 17) -> OnnxFile:
    file, folds = io.BytesIO(), opset > 11
    torch.onnx.export(
        net,
        (torch.zeros(1, *SHAPE),),
        file,
        dynamo=False,
        opset_version=opset,
        do_constant_folding=folds,
    )
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


class Of(nn.Module):
    """A convolution, what a function makes of it, and 4 logits of that."""

    def __init__(self, change: Callable[[Tensor], Tensor], inputs: int = 72) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # some weights give nothing above 0
            self.change, self.first, self.last = change, nn.Conv2d(2, 2, 3), nn.Linear(inputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.change(torch.relu(self.first(x))).flatten(1))


K = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)


@pytest.mark.parametrize(
    "change",
    [lambda y: 1 - y, lambda y: (K - y) / K, lambda y: -(y * K) + K, lambda y: y.sub_(0.5).relu_()],
    ids=["one less", "of each channel", "minus", "in place"],
)
def test_constants_of_any_shape_that_fits_are_read_and_bounded(
    change: Callable[[Tensor], Tensor],
) -> None:
    net = Of(change)
    network = network_of(net, SHAPE).to(torch.float32)
    torch.testing.assert_close(network(images()), net(images()))
    boxes = tighten(network, intervals(network, ball(images(), 0.1)))
    assert (lower_bound(network, boxes, torch.eye(4).expand(5, 4, 4)) <= net(images())).all()


def changed_view(y: Tensor) -> Tensor:
    y.view(len(y), -1).clamp_(0, 0.1)
    return y


@pytest.mark.parametrize(
    ("change", "inputs"),
    [
        (changed_view, 72),
        (lambda y: nn.functional.dropout(y, 0.9, True), 72),
        (lambda y: torch.div(y, 0.1, rounding_mode="floor"), 72),
        (lambda y: (10 * y).to(torch.int32).float(), 72),
        (lambda y: y + torch.zeros(2, 2, 6, 6), 72),
        (lambda y: y.mean((2, 3), keepdim=True) * torch.ones(6, 6), 72),
        (lambda y: y.mean((2, 3), keepdim=True) + y, 72),
    ],
    ids=["a view changed in place", "random", "floor", "int", "two images", "wider", "a sum"],
)
def test_a_graph_that_would_answer_otherwise_is_refused(
    change: Callable[[Tensor], Tensor], inputs: int
) -> None:
    with pytest.raises(ModelError, match=r"otherwise|no bound goes|widens"):
        network_of(Of(change, inputs), SHAPE)


class Twofold(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.wide = Of(torch.relu), nn.Flatten(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), self.wide(torch.relu(1 - x))


@pytest.mark.filterwarnings("ignore")
def test_of_several_outputs_the_scores_are_bounded(tmp_path: Path) -> None:
    net = Twofold().eval()
    for read in (network_of(net, SHAPE), network_of(exported(net, tmp_path / "two.onnx"), SHAPE)):
        torch.testing.assert_close(read(images()), net(images())[0])


def both_signs(y: Tensor) -> Tensor:
    y = torch.cat([torch.relu(y), torch.relu(-y)], 1)
    return torch.maximum(torch.minimum(y, torch.tensor(0.7)), torch.tensor(0.1)).transpose(1, 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    ("change", "inputs"),
    [(both_signs, 144), (lambda y: y.view(y.size(0), -1), 72), (lambda y: y.flatten(-3), 72)],
    ids=["both signs, turned and cut", "a view by the size of a batch", "flat from behind"],
)
def test_module_and_file_are_read_alike(
    change: Callable[[Tensor], Tensor], inputs: int, opset: int, tmp_path: Path
) -> None:
    net = Of(change, inputs).eval()
    file = exported(net, tmp_path / "net.onnx", opset)
    for read in (network_of(net, SHAPE), network_of(file, SHAPE)):
        torch.testing.assert_close(read(images()), net(images()))


@pytest.mark.filterwarnings("ignore")
def test_of_a_net_that_ends_in_a_softmax_some_outputs_are_chosen(tmp_path: Path) -> None:
    net = nn.Sequential(every_layer(), nn.Softmax(1)).eval()
    file, asked = exported(net, tmp_path / "net.onnx"), Guarded(net, 4)
    asked.order = file.order = Order(("a", "b", "c", "d"), (2, 0))
    for model in (asked, file):
        logits = network_of(model, SHAPE)(images())
        torch.testing.assert_close(logits, every_layer()(images())[:, [2, 0]])
    assert file.order.places == (2, 0)


def test_numbers_that_torch_makes_double_by_default_change_nothing() -> None:
    net = Of(lambda y: nn.functional.avg_pool2d(2 * y, 2, 1, 1, count_include_pad=False), 98)
    try:
        torch.set_default_dtype(torch.float64)
        read = network_of(net, SHAPE)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(read(images()), net(images()))


def test_a_function_that_only_answers_is_refused() -> None:
    with pytest.raises(ModelError, match="only answers"):
        network_of(lambda x: x, SHAPE)


def test_the_box_of_pixels_is_exact_up_to_the_first_sum() -> None:
    network = network_of(every_layer(), SHAPE)
    assert network[network.root].place.endswith("(clamp)")
