"""The trigger that a model scan recovered: put it on, take its place out, look at it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from purpleteam.core.arrays import Pixels, Singles
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import DataError

Kind = Literal["patch", "additive", "warp"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# what a trigger of each kind is made of; the first is its strength
NEEDS = {"patch": ("mask", "pattern"), "additive": ("pattern",), "warp": ("flow",)}
FORMS = {"mask": "(H, W)", "pattern": "(C, H, W)", "flow": "(H, W, 2)"}
GREY = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class RecoveredTrigger:
    """What an inversion found; fields that the kind does not use are None.

    A patch replaces: `(1 - mask) * x + mask * pattern`. An additive trigger adds `pattern`, in
    [-1, 1]. A warp reads pixel (row, column) from where `flow` points, bilinearly.
    """

    kind: Kind
    target_label: int
    source_labels: tuple[int, ...] | None = None  # that the trigger works on; None is all
    mask: Singles | None = None  # (H, W) in [0, 1]
    pattern: Singles | None = None  # (C, H, W): of a patch in [0, 1], or what is added
    flow: Singles | None = None  # (H, W, 2): shifts of columns, then rows, in pixels

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        for name, form in FORMS.items():
            part = getattr(self, name)
            if part is None and name in NEEDS[self.kind]:
                raise ValueError(f"a trigger of kind {self.kind} needs a {name}")
            if part is not None and (
                part.ndim != form.count(",") + 1 or (name == "flow" and part.shape[2] != 2)
            ):
                raise ValueError(f"{name} must be {form}, not {part.shape}")

    def apply(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] with the trigger on them."""
        if self.kind == "warp":
            flow = _tensor(self.flow, x)
            height, width = flow.shape[:2]
            pixel = flow.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])  # grid units
            grid = (identity_grid(height, width, x) + flow * pixel).expand(len(x), -1, -1, -1)
            warped = F.grid_sample(x, grid, padding_mode="border", align_corners=True)
            return warped.clamp(0, 1)
        pattern = _tensor(self.pattern, x)
        if self.kind == "additive":
            return (x + pattern).clamp(0, 1)
        mask = _tensor(self.mask, x)
        return (x + mask * (pattern - x)).clamp(0, 1)

    def weakened(self, share: float) -> RecoveredTrigger:
        """Return the trigger at this share of its strength: of its mask, addition or shifts."""
        part = NEEDS[self.kind][0]
        return replace(self, **{part: getattr(self, part) * np.float32(share)})

    def without(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return images without the trigger: region filled (C, H, W), or undone to first order."""
        if self.kind == "patch":
            mask = _tensor(self.mask, x)
            return (x + mask * (fill.to(x) - x)).clamp(0, 1)
        if self.kind == "additive":
            return (x - _tensor(self.pattern, x)).clamp(0, 1)
        return self.weakened(-1).apply(x)

    def picture(self) -> Pixels:
        """Return the trigger as an image, uint8 (H, W, C): on grey, a warp on a checkerboard."""
        pattern = np.asarray(self.pattern)
        if self.kind == "patch":
            drawn = GREY + np.asarray(self.mask)[None] * (pattern - GREY)
        elif self.kind == "additive":
            drawn = GREY + GREY * (pattern / (float(np.abs(pattern).max()) or 1.0))
        else:
            rows, columns = np.indices(np.asarray(self.flow).shape[:2])
            board = ((rows // 4 + columns // 4) % 2).astype(np.float32)
            drawn = self.apply(torch.from_numpy(board)[None, None])[0].numpy()
        return np.asarray(np.rint(255 * drawn.clip(0, 1)).transpose(1, 2, 0), np.uint8)

    def save(self, path: Path) -> Path:
        """Write the trigger to a .safetensors file and return its path."""
        facts = dict(vars(self))
        parts = {name: facts.pop(name) for name in FORMS}
        arrays = {name: np.ascontiguousarray(a) for name, a in parts.items() if a is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        # one entry, as several are written in an order that changes from call to call
        save_file(arrays, path, metadata={"trigger": canonical_json(facts)})
        return path

    @classmethod
    def load(cls, path: Path) -> RecoveredTrigger:
        """Return the trigger in a file that `save` wrote; DataError where it holds none."""
        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {})["trigger"])
                arrays = {name: file.get_tensor(name) for name in {*FORMS} & {*file.keys()}}
            sources = facts["source_labels"]
            return cls(
                kind=facts["kind"],
                target_label=int(facts["target_label"]),
                source_labels=None if sources is None else tuple(map(int, sources)),
                **arrays,
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{str(path)!r} holds no recovered trigger: {error}") from None


def identity_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return the sampling grid (H, W, 2) in [-1, 1] that leaves an image as it is."""
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), 2)


def _tensor(array: Singles | None, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32)).to(like)
