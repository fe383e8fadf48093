"""Where a training stands after an epoch, in one file: enough to go on to the very same bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.data.images import ImageSet
from purpleteam.models.recipes import Recipe

__all__ = ["Checkpoint", "Epoch", "identity"]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images."""

    epoch: int
    loss: float
    validation_accuracy: float


def identity(
    module: nn.Module,
    images: ImageSet,
    validation: ImageSet,
    recipe: Recipe,
    seed: int,
    device: torch.device,
) -> str:
    """Return all that the bytes of a training hang on, less `craft` and `validate`, which are code.

    What those do is told by the fields of the recipe that makes them.
    """
    asked = {"recipe": asdict(recipe), "kind": type(recipe).__name__, "seed": seed}
    data = {"images": images.digest, "validation": validation.digest}
    where = {"threads": torch.get_num_threads(), "device": device.type, "torch": torch.__version__}
    return canonical_json({**asked, **data, **where, "start": _digest(module.state_dict())})


class Checkpoint:
    """The state after an epoch as one safetensors file with its digest, replaced in one step."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self.path = path
        self.identity = identity

    def load(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[list[Epoch], dict[str, Tensor]]:
        """Continue where a whole file of the same training exists; anything else starts anew."""
        if self.path is None or not self.path.exists():
            return [], {}
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata() or {}
                if facts.get("identity") != self.identity:
                    return [], {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return [], {}
        if facts.get("digest") != _digest(tensors, facts.get("history", "")):
            return [], {}
        module.load_state_dict(_part(tensors, "module"))
        _restore(optimizer, _part(tensors, "optimizer"))
        history = [Epoch(**one) for one in json.loads(facts["history"])]
        return history, _part(tensors, "best")

    def write(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: list[Epoch],
        best: dict[str, Tensor],
    ) -> None:
        """Replace the file by the state after the newest epoch."""
        if self.path is None:
            return
        tensors = {f"module/{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in best.items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{key}": value for key, value in state.items()}
        facts = {"identity": self.identity, "history": json.dumps([asdict(e) for e in history])}
        facts["digest"] = _digest(tensors, facts["history"])
        fresh = self.path.with_suffix(".tmp")
        fresh.write_bytes(save(_plain(tensors), facts))
        fresh.replace(self.path)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor by itself (tied weights share memory), as safetensors takes them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _digest(tensors: dict[str, Tensor], *texts: str) -> str:
    return sha256_bytes(save(_plain(tensors)), *(text.encode() for text in texts))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}/"): value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}/")
    }


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition("/")
        parameter, laid_out = parameters[int(number)], value
        if value.shape == parameter.shape and value.ndim:
            # The fused step goes through memory, so averages must lie there as the weights do.
            laid_out = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(number), {})[key] = laid_out
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
