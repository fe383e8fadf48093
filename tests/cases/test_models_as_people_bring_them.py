"""Nets that change their input, answer at random, give no gradient or answer in another form.

Rebuilt from public reports: pytorch#727, vision#807, auto-attack PR#104 and PR#105, auto-attack#83,
foolbox#736, torchattacks#201, foolbox#360 and #664, foolbox#74, torchattacks#150.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.attacks import APGDCE, FGSM, PGD, HopSkipJump, Square, evaluate
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models import evaluate as evaluate_clean
from purpleteam.models import logits
from purpleteam.models.adapters import scored
from purpleteam.models.fit import examine

CLASSES, SIDE = 3, 8


class CNN(nn.Module):
    """Says which of three bands of an image is brightest; honest, and easy to fool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * SIDE * SIDE, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).flatten(1)

    def scores(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))

    def forward(self, x: Tensor) -> object:
        return self.scores(x)


def brought(kind: type[CNN]) -> CNN:
    """Return a net of that kind with the weights that every one of them has."""
    rng = torch.Generator().manual_seed(0)
    net = kind()
    with torch.no_grad():
        for one in net.parameters():
            one.copy_(0.3 * torch.randn(one.shape, generator=rng))
    return net.eval()


def images(n: int = 60) -> ImageSet:
    """Return dark images with black and white pixels, labelled by the net, one in ten wrongly."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, SIDE, SIDE, 1)) * rng.integers(0, 2, (n, SIDE, SIDE, 1))
    x = torch.from_numpy(pixels / 255).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        labels = brought(CNN).scores(x).argmax(1).numpy()
    labels[::10] = (labels[::10] + 1) % CLASSES
    return ImageSet(pixels.astype(np.uint8), labels)


class InPlace(CNN):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.3).div_(0.5)
        return self.scores(x * 0.5 + 0.3)


class InPlaceWithoutGradient(CNN):
    def forward(self, x: Tensor) -> Tensor:
        x.data.sub_(0.3).div_(0.5)
        return self.scores(x * 0.5 + 0.3)


class InPlaceReLU(CNN):
    def forward(self, x: Tensor) -> Tensor:
        return self.scores(F.relu_(x))


class Keeping(CNN):
    """Keeps its last input, and spoils it at the next call."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.last is not None:
            self.last.detach().fill_(7.0)
        self.last = x
        return self.scores(x)


class Reusing(CNN):
    """Writes every answer into the same memory."""

    place: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        if scores.requires_grad:
            return scores
        if self.place is None or len(self.place) < len(x):
            self.place = torch.empty(len(x), CLASSES)
        self.place[: len(x)] = scores
        return self.place[: len(x)]


@pytest.mark.parametrize("kind", [InPlace, InPlaceWithoutGradient, InPlaceReLU, Keeping, Reusing])
@pytest.mark.parametrize("attack", [FGSM(epsilon=0.05), PGD(epsilon=0.05, steps=10)])
def test_a_net_that_works_in_place_gets_the_numbers_of_one_that_does_not(
    kind: type[CNN], attack: EvasionAttack
) -> None:
    net, shown = brought(kind), images()
    expected = evaluate(brought(CNN), shown, attack)
    found = evaluate(net, shown, attack)
    assert expected.robust.any() and not expected.robust.all()
    assert np.array_equal(found.clean_correct, expected.clean_correct)
    assert np.array_equal(found.robust, expected.robust)
    assert (
        evaluate_clean(net, shown, classes=CLASSES).correct.tolist() == found.clean_correct.tolist()
    )


@pytest.mark.parametrize("kind", [InPlace, InPlaceWithoutGradient, Keeping])
def test_the_callers_tensors_stay_as_they_were(kind: type[CNN]) -> None:
    x, y = torch.rand(5, 1, SIDE, SIDE), torch.zeros(5, dtype=torch.int64)
    before = x.clone()
    PGD(epsilon=0.1, steps=3)(brought(kind), x, y)
    assert torch.equal(x, before) and not y.any()


def test_an_answer_that_is_written_over_later_was_read_before() -> None:
    shown = images(130)  # more than one call
    assert np.array_equal(
        logits(brought(Reusing), shown.images), logits(brought(CNN), shown.images)
    )


class Noisy(CNN):
    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x + 0.3 * torch.randn_like(x))


class Coin(CNN):
    """Errs in one call of ten, whatever the image; no other weakness."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        return torch.where(torch.rand(len(x), 1) < 0.1, scores.roll(1, 1), scores)


class OwnCoin(Coin):
    """The same, by a generator that no seed of ours reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        scores, chance = self.scores(x), torch.from_numpy(self.rng.random((len(x), 1)))
        return torch.where(chance < 0.1, scores.roll(1, 1), scores)


class AlwaysDropout(CNN):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.features(x), 0.3, training=True))


RANDOM = [Noisy, Coin, OwnCoin, AlwaysDropout]


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("epsilon", [0.0, 1e-5])
def test_a_lucky_draw_is_no_adversarial_example(kind: type[CNN], epsilon: float) -> None:
    for attack in (PGD(epsilon=epsilon, steps=5, restarts=2), Square(epsilon=epsilon, queries=20)):
        found = evaluate(brought(kind), images(30), attack)
        assert found.clean_accuracy.value > 0.5
        assert np.array_equal(found.robust, found.clean_correct)


@pytest.mark.parametrize("kind", [Coin, OwnCoin])
def test_a_coin_has_the_weaknesses_of_the_net_behind_it(kind: type[CNN]) -> None:
    attack, shown = PGD(epsilon=0.05, steps=10, samples=4), images()
    expected, found = evaluate(brought(CNN), shown, attack), evaluate(brought(kind), shown, attack)
    assert (found.clean_correct != expected.clean_correct).sum() <= 3
    assert abs(int(found.robust.sum()) - int(expected.robust.sum())) <= 6


def test_the_same_seed_gives_the_same_verdicts_on_a_random_net() -> None:
    net, shown, attack = brought(Noisy), images(20), PGD(epsilon=0.05, steps=5)
    state = torch.get_rng_state()
    first, second = (evaluate(net, shown, attack, seed=1) for _ in range(2))
    assert np.array_equal(first.x_adv, second.x_adv)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_remedy_for_a_random_net_is_named_and_there() -> None:
    (note,) = [one for one in examine(brought(AlwaysDropout), images()) if "call to call" in one]
    assert "in eval mode too" in note and "apgd_ce:samples=20" in note
    found = evaluate(brought(AlwaysDropout), images(10), APGDCE(epsilon=0.05, steps=3, samples=20))
    assert found.cost["backward"] >= 20
    for name, attack in ATTACKS.items():
        if attack.knowledge == "white-box" and "auto" not in name:
            assert getattr(attack, "samples", None) == 1, name


class Deaf(CNN):
    """Dropout and batch norm that no eval() reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4 * SIDE * SIDE)

    def train(self, mode: bool = True) -> nn.Module:
        return super().train()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.features(x)))


class ByTheBatch(CNN):
    def forward(self, x: Tensor) -> Tensor:
        norm = nn.BatchNorm1d(4 * SIDE * SIDE, track_running_stats=False)
        self.norm = norm.eval()
        return self.fc(norm(self.features(x)))


@pytest.mark.parametrize("kind", [Deaf, ByTheBatch])
def test_that_eval_does_not_stop_it_is_said_and_its_statistics_are_left(kind: type[CNN]) -> None:
    net = brought(kind)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    (note,) = [one for one in examine(net, images()) if "beside it" in one]
    assert "eval() does not stop its BatchNorm1d" in note
    after = net.state_dict()
    assert all(torch.equal(one, after[name]) for name, one in before.items())


class InferenceMode(CNN):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.scores(x)


class NoGradient(CNN):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x)


class ThroughNumPy(CNN):
    def forward(self, x: Tensor) -> Tensor:
        return self.scores(torch.from_numpy(x.numpy().copy()))


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return brought(CNN)


def int8() -> nn.Module:
    with warnings.catch_warnings():  # torch says that torchao has it now
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(brought(CNN), {nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: brought(InferenceMode),
        lambda: brought(NoGradient),
        lambda: brought(ThroughNumPy),
        made_in_inference_mode,
        int8,
    ],
)
def test_a_net_without_gradients_is_attacked_by_what_it_allows(make: object) -> None:
    net, shown = make(), images(20)
    with pytest.raises(UsageError, match=r"'pgd' is white-box, no gradient .* hop_skip_jump"):
        evaluate(net, shown, PGD(epsilon=0.1))
    assert any("no gradient reaches the images" in one for one in examine(net, shown))
    found = evaluate(net, shown, Square(epsilon=0.1, queries=100))
    honest = evaluate(brought(CNN), shown, Square(epsilon=0.1, queries=100))
    assert abs(int(found.robust.sum()) - int(honest.robust.sum())) <= 2
    near = HopSkipJump(epsilon=2.0, queries=100)
    assert near.run(net, *tensors(shown)).broken.any()


def tensors(shown: ImageSet) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(shown.images / np.float32(255)).permute(0, 3, 1, 2)
    return x, torch.from_numpy(shown.labels.copy())


FORMS = {
    "a dict": lambda scores: {"logits": scores, "hidden": 1},
    "OrderedDict": lambda scores: OrderedDict(logits=scores),
    "a tuple": lambda scores: (scores, scores[:, :1]),
    "a list": lambda scores: [scores],
    "nested": lambda scores: {"out": {"logits": scores}, "features": scores @ torch.ones(3, 512)},
    "an object in a list": lambda scores: [scores.sum(), SimpleNamespace(logits=scores)],
    "a list in a tuple": lambda scores: (scores.sum(), [scores]),
    "a loss first": lambda scores: (scores.sum(), scores),
    "maps first": lambda scores: (scores[:, :, None, None], scores),
    "SimpleNamespace": lambda scores: SimpleNamespace(logits=scores, loss=None),
}


@pytest.mark.parametrize("name", FORMS)
def test_logits_inside_something_else_are_taken_and_said(name: str) -> None:
    class Returns(CNN):
        def forward(self, x: Tensor) -> object:
            return FORMS[name](self.scores(x))

    net, shown, attack = brought(Returns), images(30), PGD(epsilon=0.05, steps=5)
    assert any("taken" in one for one in examine(net, shown))
    assert np.array_equal(
        evaluate(net, shown, attack).robust, evaluate(brought(CNN), shown, attack).robust
    )


@pytest.mark.parametrize("place", [0, 1])
def test_features_beside_logits_are_told_by_the_number_of_classes_or_not_guessed(
    place: int,
) -> None:
    class Features(CNN):
        def forward(self, x: Tensor) -> object:
            scores = self.scores(x)
            both = scores @ torch.ones(CLASSES, 7), scores
            return both if place else both[::-1]

    net, shown = brought(Features), images(30)
    found, wanted = (evaluate_clean(one, shown, classes=CLASSES) for one in (net, brought(CNN)))
    assert np.array_equal(found.correct, wanted.correct)
    told, form = scored(net, shown.images, CLASSES)
    assert form == f"a tuple of 2; its [{place}] is taken for the logits"
    attack = PGD(epsilon=0.05, steps=5)
    robust = evaluate(told, shown, attack).robust
    assert np.array_equal(robust, evaluate(brought(CNN), shown, attack).robust)
    with pytest.raises(ModelError, match=r"alone; 2 may be that: net\(x\)\[0\] \(.*, .\), net"):
        evaluate(net, shown, attack)


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (lambda s: s[:, 0], r"\(-?.*not logits.*torch.stack\(\[-z, z\], 1\) with z = net\(x\)"),
        (lambda s: s[:, :1], r"torch.stack\(\[-z, z\], 1\) with z = net\(x\).flatten\(\)"),
        (lambda s: s[:, :1].sigmoid(), r"with z = torch.logit\(net\(x\).flatten\(\), 1e-6\)"),
        (lambda s: s.argmax(1), "int64 numbers look like labels"),
        (lambda s: s[:, :, None, None].expand(-1, -1, 2, 2), r"x.mean\(\(2, 3\)\)"),
        (lambda s: s[1:], r"returned \(15, 3\), not logits \(16, classes\)"),
        (lambda s: {"probabilities": s}, r"dict with 'probabilities'.*net\(x\)\['probabilities'\]"),
        (lambda s: SimpleNamespace(prediction=s), r"wrap it.* such as net\(x\).prediction"),
        (
            lambda s: {"out": {"scores": s}},
            r"dict with 'out'.*, such as net\(x\)\['out'\]\['scores'\]",
        ),
        (lambda s: (s, s.flip(1)), r"tuple.*alone; 2 may be that: net\(x\)\[0\] \(16, 3\), net"),
        (lambda s: {"a": {"logits": s}, "b": {"logits": s}}, r"2 may be that: net\(x\)\['a'\]\['l"),
        (lambda s: [*s], r"returned list.* such as torch.stack\(list\(net\(x\)\)\)"),
        (lambda s: s.detach().numpy(), r"returned ndarray.*torch.from_numpy\(net\(x\)\)"),
        (lambda s: s.to("meta"), "it holds no numbers, on the device 'meta'; load the weights"),
        (lambda s: torch.complex(s, s), "its numbers are complex; wrap it to return their .real"),
    ],
)
def test_one_score_an_image_and_other_forms_are_refused_with_the_remedy(
    answer: object, remedy: str
) -> None:
    class Other(CNN):
        def forward(self, x: Tensor) -> object:
            return answer(self.scores(x))

    for ask in (
        lambda: evaluate(brought(Other), images(20), PGD()),
        lambda: evaluate_clean(brought(Other), images(20), classes=CLASSES),
        lambda: examine(brought(Other), images(20)),
    ):
        with pytest.raises(ModelError, match=remedy) as error:
            ask()
        assert "\n" not in str(error.value)


class Lazy(CNN):
    """Its last layer is made when the first image comes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(CLASSES)


class Halved(CNN):
    """Lets go of gradients that are too small, and looks at every answer by a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.register_forward_hook(self.look)

    def look(self, *_: object) -> None:
        self.seen += 1


def lazy() -> nn.Module:
    net = Lazy()
    net.load_state_dict(brought(CNN).state_dict())
    return net.eval()


def compiled(*, in_place: bool) -> object:
    with warnings.catch_warnings():  # torch's own import of its compiler warns
        warnings.simplefilter("ignore")
        net = brought(CNN)
        return net.compile() or net if in_place else torch.compile(net)


def traced() -> nn.Module:
    with warnings.catch_warnings():  # torch says that torch.export has it now
        warnings.simplefilter("ignore")
        return torch.jit.trace(brought(CNN), torch.zeros(2, 1, SIDE, SIDE))


WRAPPED = {
    "in float64": lambda: brought(CNN).double(),
    "on many devices": lambda: nn.DataParallel(brought(CNN)),
    "compiled": lambda: compiled(in_place=False),
    "compiled in place": lambda: compiled(in_place=True),
    "traced": traced,
    "lazy": lazy,
    "with a hook": lambda: brought(Halved),
    "a function": lambda: brought(CNN).scores,
    "behind copies": lambda: nn.Sequential(nn.Identity(), brought(CNN)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_net_in_a_wrapping_of_torch_gets_the_numbers_of_the_net(name: str) -> None:
    shown, attack = images(30), PGD(epsilon=0.05, steps=5)
    with torch.random.fork_rng():
        net = WRAPPED[name]()
        found = evaluate(net, shown, attack)
    expected = evaluate(brought(CNN), shown, attack)
    assert np.array_equal(found.clean_correct, expected.clean_correct)
    assert np.array_equal(found.robust, expected.robust)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_precision_of_the_weights_is_said(dtype: torch.dtype) -> None:
    notes = examine(brought(CNN).to(dtype), images(30))
    kind = str(dtype).removeprefix("torch.")
    assert any(f"its weights are in {kind}" in one for one in notes)


def test_an_error_in_the_users_code_says_whose_it_is_and_where() -> None:
    class Broken(CNN):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    message = (
        r"does not take images of shape \(1, 8, 8\): RuntimeError: .* in "
        r".*test_models_as_\w+.py, line \d+"
    )
    for ask in (
        lambda net: evaluate(net, images(20), PGD()),
        lambda net: PGD().run(net, *tensors(images(20))),
        lambda net: evaluate_clean(net, images(20), classes=CLASSES),
    ):
        with pytest.raises(ModelError, match=message) as error:
            ask(brought(Broken))
        assert "\n" not in str(error.value)


def test_a_net_that_takes_one_image_alone_is_told_how_to_be_wrapped() -> None:
    class OneByOne(CNN):
        def forward(self, x: Tensor) -> Tensor:
            return self.scores(x.view(1, 1, SIDE, SIDE))

    with pytest.raises(ModelError, match=r"takes one image, not 16: wrap it, torch.cat"):
        evaluate(brought(OneByOne), images(20), PGD())


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (lambda x: x.float() / 255, r"it takes bytes: wrap it, net\(\(255 \* x\).round\(\).byte"),
        (lambda x: x.permute(0, 3, 1, 2), r"it takes channels last: wrap it, net\(x.permute\(0, 2"),
        (lambda x: x.float().permute(0, 3, 1, 2) / 255, "it takes bytes, channels last: wrap it"),
    ],
)
def test_a_net_that_takes_images_in_another_form_is_told_how_to_be_wrapped(
    wanted: object, told: str
) -> None:
    class Other(CNN):
        def forward(self, x: Tensor) -> Tensor:
            assert ("bytes" in told) == (x.dtype == torch.uint8), f"given {x.dtype}"
            return self.scores(wanted(x))

    for ask in (lambda net: evaluate(net, images(20), PGD()), lambda net: examine(net, images(20))):
        with pytest.raises(ModelError, match=told) as error:
            ask(brought(Other))
        assert "\n" not in str(error.value)
