"""The training loop: seeded, validated, resumable after any kill, and close to the bare loop.

An epoch's randomness comes from (seed, epoch) alone, and the state after it is one file: a training
that is stopped and resumed ends with the same bytes.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from purpleteam.core.digest import canonical_json
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import Streamed
from purpleteam.models.devices import channels_first, fast_autocast, lay_out, to_batch
from purpleteam.models.guard import Guarded, guarded, switched
from purpleteam.models.inference import correct
from purpleteam.models.recipes import AUGMENTATIONS, Recipe, generator
from purpleteam.models.weights import digest_of, owned

STATISTICS_BATCH = 1000  # images a batch, about: enough for a mean and a variance each

Objective = Callable[[Guarded, Tensor, Tensor, torch.Generator, float], Tensor]
"""The loss of a batch, a scalar with its graph: (net, x, y, rng, fraction of the training done).

`net` is asked for logits (N, classes) and is in train mode; `net.model` is the module itself.
"""


def cross_entropy(net: Guarded, x: Tensor, y: Tensor, rng: torch.Generator, done: float) -> Tensor:
    """Return the mean cross-entropy of a batch: what is minimised where nothing else is asked."""
    return F.cross_entropy(net(x), y)


class Steps(Protocol):
    """The batches of an epoch and their gradients, where they are not made in the usual way."""

    def batches(self, order: Tensor, rng: torch.Generator) -> Sequence[Tensor]:
        """Return the rows of each step of an epoch, as many as usual.

        `order` has all rows, shuffled; what else the epoch draws comes from `rng`, on the CPU.
        """

    def gradients(self, rows: Tensor, shown: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Put the gradient of a step into `.grad` of the weights, and return its mean loss.

        `shown` gives images (N, C, H, W), augmented, and labels of rows.
        """


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Fractions of validation images that are right: clean, and attacked or certified as well.

    None where it was not measured. The strictest that was, `score`, chooses between epochs.
    """

    validation_accuracy: float
    attacked: float | None = None
    certified: float | None = None
    loss: float | None = None
    """Mean loss of these images, where that of the training images must not be told."""

    @property
    def score(self) -> float:
        """What the best epoch is best by: certified, else attacked, else clean accuracy."""
        known = (self.certified, self.attacked, self.validation_accuracy)
        return next(value for value in known if value is not None)


@dataclass(frozen=True, kw_only=True)
class Epoch(Validation):
    """One pass over the training images."""

    epoch: int
    loss: float
    """Mean of the objective over the training images, without the penalty `l1` on the weights;
    that of the validation images where the validation gives one."""


@dataclass(frozen=True)
class Training:
    """A trained net: the weights of one of its epochs, and how it got there."""

    module: nn.Module
    epochs: tuple[Epoch, ...]
    seconds: float
    keep: str = "best"
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What card and records say of it beside its recipe."""

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept: the best, the earliest of equals, or the last."""
        if self.keep == "last":
            return self.epochs[-1]
        return max(self.epochs, key=lambda epoch: epoch.score)


def train(
    module: nn.Module,
    images: ImageSet,
    validation: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    objective: Objective = cross_entropy,
    validate: Callable[[nn.Module], Validation] | None = None,
    steps: Steps | None = None,
    checkpoint: Path | None = None,
    device: torch.device | None = None,
    description: str = "train",
    progress: Progress = SILENT,
    budget_seconds: float | None = None,
) -> Training:
    """Train `module` in place and return it with the weights of its best epoch.

    Args:
        module: a net with its starting weights.
        images: what it learns from.
        validation: what the best epoch is chosen by, unless `validate` is given.
        recipe: epochs, rates, augmentation, averages of the weights.
        seed: order, augmentation, dropout and what `objective` draws are pure functions of it.
        objective: the loss of a batch; the default is its cross-entropy.
        validate: looks at the net, or at its averaged weights, after each epoch; the default is
            accuracy on `validation`.
        steps: what draws the batches and makes the gradients instead, of its own objective; its
            randomness, too, is a function of the seed.
        checkpoint: a file that is written after each epoch and continued from where it exists.
        device: where to train; the default is the CPU.
        description: shown beside the progress bar.
        progress: where to report.
        budget_seconds: stop before an epoch that would, as long as the last, go beyond it.
    """
    started = time.perf_counter()
    device = device or torch.device("cpu")
    asked = guarded(module.to(device))
    lay_out(module, to_batch(images.images[:2], device))
    pixels, labels = _rows_of(images, device), torch.from_numpy(np.array(images.labels)).to(device)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    count = -(-len(images) // recipe.batch_size)  # steps of an epoch
    # All that the bytes hang on, less `objective` and `validate`, which are code: what those do is
    # told by the fields of the recipe that makes them.
    identity = canonical_json(
        {
            "recipe": asdict(recipe),
            "kind": type(recipe).__name__,
            "seed": seed,
            "images": images.digest,
            "validation": validation.digest,
            "threads": torch.get_num_threads(),
            "device": device.type,
            "torch": torch.__version__,
            "start": digest_of(module),
        }
    )
    state = _State(module, optimizer, recipe, identity, checkpoint)
    weights = [one for one in module.parameters() if one.ndim > 1]  # less biases and scales
    with progress.task(description, recipe.epochs * count) as task:
        task.advance(len(state.history) * count)
        for epoch in range(len(state.history), recipe.epochs):
            before = time.perf_counter()
            switched(module, training=True)
            order = torch.randperm(len(images), generator=generator(seed, epoch, 0)).to(device)
            rng = generator(seed, epoch, 1)
            total, seen = torch.zeros((), device=device), 0
            batches: Sequence[Tensor] = torch.split(order, recipe.batch_size)
            if steps is not None:
                batches = steps.batches(order, generator(seed, epoch, 2))

            def shown(rows: Tensor, rng: torch.Generator = rng) -> tuple[Tensor, Tensor]:
                x = channels_first(pixels(rows).float() / 255)  # (B, C, H, W)
                return AUGMENTATIONS[recipe.augmentation](x, rng), labels[rows]

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
                for step, chosen in enumerate(batches):
                    done = (epoch * count + step) / (recipe.epochs * count)
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.rate(done)
                    if steps is not None:
                        loss = steps.gradients(chosen, shown)
                    else:
                        x, y = shown(chosen)
                        with fast_autocast(device) if recipe.precision == "fast" else nullcontext():
                            loss = cost = objective(asked, x, y, rng, done)
                        if recipe.l1:
                            norms = torch.stack([one.abs().sum() for one in weights])
                            cost = loss + recipe.l1 * norms.sum()
                        optimizer.zero_grad(set_to_none=True)
                        cost.backward()  # type: ignore[no-untyped-call]
                    if recipe.gradient_clip:
                        nn.utils.clip_grad_norm_(module.parameters(), recipe.gradient_clip)
                    optimizer.step()
                    if recipe.averaging == "ema" and done >= recipe.average_from:
                        state.average()
                    total += loss.detach() * len(chosen)
                    seen += len(chosen)
                    task.advance(1)
            if recipe.averaging == "swa" and epoch + 1 > recipe.average_from * recipe.epochs:
                state.average()
            # In the order of this epoch, as a sorted set would give batches of one class each.
            parts = order.tensor_split(-(-len(images) // STATISTICS_BATCH))
            plain = (channels_first(pixels(part).float() / 255) for part in parts)
            with state.as_kept(asked, plain):
                if validate is None:
                    found = Validation(
                        validation_accuracy=float(correct(module, validation).mean())
                    )
                else:
                    found = validate(module)
                loss_told = float(total) / max(seen, 1) if found.loss is None else found.loss
                past = Epoch(**asdict(found) | {"epoch": epoch + 1, "loss": loss_told})
                state.note(past)
            state.write()
            told = {"validation": found.validation_accuracy, **asdict(found)}
            del told["validation_accuracy"]
            known = {name: f"{value:.4f}" for name, value in told.items() if value is not None}
            task.advance(0, **known)
            now = time.perf_counter()
            if budget_seconds is not None and now - started + (now - before) > budget_seconds:
                break
    module.load_state_dict(state.best)
    switched(module)
    return Training(module, tuple(state.history), time.perf_counter() - started, recipe.keep)


def _rows_of(images: ImageSet, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what reads images (B, H, W, C) by their places: from the device, where they fit."""
    pixels = images.images
    if isinstance(pixels, Streamed):
        return lambda rows: torch.from_numpy(pixels[rows.cpu().numpy()]).to(device)
    whole = torch.from_numpy(np.array(pixels)).to(device)
    return whole.__getitem__


@dataclass
class _State:
    """What a training has come to; continued from a whole file of the same training."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    identity: str
    path: Path | None
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    averages: dict[str, Tensor] = field(default_factory=dict)
    averaged: int = 0  # how many weights are in the averages

    def __post_init__(self) -> None:
        state = self.module.state_dict()  # its tensors share their memory with the net
        self.live = {name: value for name, value in state.items() if value.is_floating_point()}
        decay = self.recipe.average_decay
        ema, swa = get_ema_multi_avg_fn(decay), get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        self.mean = ema if self.recipe.averaging == "ema" else swa
        if self.path is None or not self.path.exists():
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return
        told = (facts.get("identity"), facts.get("digest"))
        texts = (facts.get("history", ""), facts.get("averaged", ""))
        if told != (self.identity, digest_of(tensors, *texts)):
            return
        parts: dict[str, dict[str, Tensor]] = {
            part: {} for part in ("module", "best", "averages", "optimizer")
        }
        for name, value in tensors.items():
            part, _, key = name.partition("/")
            parts[part][key] = value
        self.module.load_state_dict(parts["module"])
        parameters = [part for group in self.optimizer.param_groups for part in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            number, _, key = name.partition("/")
            parameter, laid_out = parameters[int(number)], value
            if value.shape == parameter.shape and value.ndim:
                # The fused step goes through memory: averages must lie there as the weights do.
                laid_out = torch.empty_like(parameter).copy_(value)
            moments.setdefault(int(number), {})[key] = laid_out
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.history = [Epoch(**epoch) for epoch in json.loads(facts["history"])]
        self.best = parts["best"]
        if averages := parts["averages"]:  # in the order of the net, as the file has its own
            self.averages = {
                name: torch.empty_like(value).copy_(averages[name])
                for name, value in self.live.items()
            }
        self.averaged = int(facts["averaged"])

    def average(self) -> None:
        """Take the weights as they are, and what normalises by them, into their average."""
        if not self.averages:
            self.averages = {name: value.clone() for name, value in self.live.items()}
        else:
            self.mean([*self.averages.values()], [*self.live.values()], self.averaged)
        self.averaged += 1

    @contextmanager
    def as_kept(self, asked: Guarded, batches: Iterable[Tensor]) -> Iterator[None]:
        """Make the net what is validated and kept, and then again what is trained.

        It has the averaged weights, and statistics of the batches (N, C, H, W) for its batch
        normalisation where the recipe wants that ("Rethinking Batch in BatchNorm", Wu and Johnson
        2021, arXiv:2105.07576). Averages over epochs always have: those of the weights that went
        into the average are not those of the average (Izmailov et al. 2018, arXiv:1803.05407).
        """
        again = self.recipe.precise_batch_norm or (self.averages and self.recipe.averaging == "swa")
        if not (self.averages or again):
            yield
            return
        own = {name: value.clone() for name, value in self.module.state_dict().items()}
        try:
            self.module.load_state_dict(own | self.averages)
            if again:
                with torch.random.fork_rng(devices=[]):  # dropout is on
                    torch.manual_seed(0)
                    update_bn(batches, asked)
            yield
        finally:
            self.module.load_state_dict(own)

    def note(self, epoch: Epoch) -> None:
        """Note an epoch, and keep the net as it is if it is the best, or the last is wanted."""
        earlier = [past.score for past in self.history]
        if self.recipe.keep == "last" or not self.best or epoch.score > max(earlier):
            self.best = {name: value.clone() for name, value in self.module.state_dict().items()}
        self.history.append(epoch)

    def write(self) -> None:
        """Replace the file, in one step, by the state as it is, with its digest."""
        if self.path is None:
            return
        tensors = {f"module/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"averages/{name}": value for name, value in self.averages.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{key}": value for key, value in state.items()}
        history = json.dumps([asdict(past) for past in self.history])
        facts = {"identity": self.identity, "history": history, "averaged": str(self.averaged)}
        facts["digest"] = digest_of(tensors, history, facts["averaged"])
        fresh = self.path.with_suffix(".tmp")
        fresh.write_bytes(save(owned(tensors), facts))
        fresh.replace(self.path)
