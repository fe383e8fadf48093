"""The training loop: seeded, validated, resumable after any kill, and close to the bare loop.

An epoch's randomness comes from (seed, epoch) alone, and the state after it is one file: a training
that is stopped and resumed ends with the same bytes.
"""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from purpleteam.core.digest import canonical_json
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import channels_first, fast_autocast, lay_out, to_batch
from purpleteam.models.guard import guarded, switched
from purpleteam.models.inference import correct
from purpleteam.models.recipes import AUGMENTATIONS, Recipe, generator
from purpleteam.models.weights import digest_of, owned

Craft = Callable[[nn.Module, Tensor, Tensor, torch.Generator, float], Tensor]
"""Makes images to learn from: (model, x, y, rng, fraction of the training done) -> x."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images."""

    epoch: int
    loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Training:
    """A trained net: the weights of one of its epochs, and how it got there."""

    module: nn.Module
    epochs: tuple[Epoch, ...]
    seconds: float
    keep: str = "best"

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept: the best, the earliest of equals, or the last."""
        if self.keep == "last":
            return self.epochs[-1]
        return max(self.epochs, key=lambda epoch: epoch.validation_accuracy)


def train(
    module: nn.Module,
    images: ImageSet,
    validation: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    craft: Craft | None = None,
    validate: Callable[[nn.Module], float] | None = None,
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
        recipe: epochs, rates, augmentation.
        seed: order, augmentation, dropout and `craft` are pure functions of it.
        craft: changes each batch against the current net (adversarial training).
        validate: scores the net after each epoch; the default is accuracy on `validation`.
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
    pixels, labels = (
        torch.from_numpy(np.array(part)).to(device) for part in (images.images, images.labels)
    )
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    steps = -(-len(images) // recipe.batch_size)
    # All that the bytes hang on, less `craft` and `validate`, which are code: what those do is
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
    state = _State(module, optimizer, identity, checkpoint)
    with progress.task(description, recipe.epochs * steps) as task:
        task.advance(len(state.history) * steps)
        for epoch in range(len(state.history), recipe.epochs):
            before = time.perf_counter()
            switched(module, training=True)
            order = torch.randperm(len(images), generator=generator(seed, epoch, 0)).to(device)
            rng = generator(seed, epoch, 1)
            total = torch.zeros((), device=device)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
                for step in range(steps):
                    done = (epoch * steps + step) / (recipe.epochs * steps)
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.rate(done)
                    chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                    x = channels_first(pixels[chosen].float() / 255)  # (B, C, H, W)
                    x = AUGMENTATIONS[recipe.augmentation](x, rng)
                    y = labels[chosen]
                    if craft is not None:
                        x = craft(module, x, y, rng, done)
                    with fast_autocast(device) if recipe.precision == "fast" else nullcontext():
                        loss = F.cross_entropy(asked(x), y)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    total += loss.detach() * len(chosen)
                    task.advance(1)
            score = validate(module) if validate else float(correct(module, validation).mean())
            state.add(Epoch(epoch + 1, float(total) / len(images), score), recipe.keep)
            task.advance(0, validation=f"{score:.4f}")
            now = time.perf_counter()
            if budget_seconds is not None and now - started + (now - before) > budget_seconds:
                break
    module.load_state_dict(state.best)
    switched(module)
    return Training(module, tuple(state.history), time.perf_counter() - started, recipe.keep)


@dataclass
class _State:
    """What a training has come to; continued from a whole file of the same training."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    identity: str
    path: Path | None
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return
        told = (facts.get("identity"), facts.get("digest"))
        if told != (self.identity, digest_of(tensors, facts.get("history", ""))):
            return
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, key = name.partition("/")
            parts[part][key] = value
        self.module.load_state_dict(parts["module"])
        parameters = [part for group in self.optimizer.param_groups for part in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            number, _, key = name.partition("/")
            parameter, laid_out = parameters[int(number)], value
            if value.shape == parameter.shape and value.ndim:
                # The fused step goes through memory: averages must lie there as the weights do.
                laid_out = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(number), {})[key] = laid_out
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.history = [Epoch(**epoch) for epoch in json.loads(facts["history"])]
        self.best = parts["best"]

    def add(self, epoch: Epoch, keep: str) -> None:
        """Note an epoch; replace the file, in one step, by the state after it, with its digest."""
        earlier = [past.validation_accuracy for past in self.history]
        if keep == "last" or not self.best or epoch.validation_accuracy > max(earlier):
            self.best = {name: value.clone() for name, value in self.module.state_dict().items()}
        self.history.append(epoch)
        if self.path is None:
            return
        tensors = {f"module/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{key}": value for key, value in state.items()}
        history = json.dumps([asdict(past) for past in self.history])
        facts = {"identity": self.identity, "history": history}
        facts["digest"] = digest_of(tensors, history)
        fresh = self.path.with_suffix(".tmp")
        fresh.write_bytes(save(owned(tensors), facts))
        fresh.replace(self.path)
