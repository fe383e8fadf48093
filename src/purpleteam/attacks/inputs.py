"""What an attack is given: images in [0, 1], labels and indices; or one line."""

from typing import Any

import torch
from torch import Tensor

from purpleteam.core.errors import UsageError

IMAGES = "wanted: float32 images (N, C, H, W) in [0, 1]"
LABELS = "wanted: int64 labels (N,)"
ROUNDING = 1e-6  # how far outside [0, 1] a value may be and still be meant as its end
OVER = 2  # values up to here are none from 0 to 255: such images would be black
ODD = {  # what a tensor is that is not stored as one value after the other, and a remedy
    "is_nested": ("nested", "torch.stack({}.unbind()), where all are of one size"),
    "is_meta": ("on the meta device, where there are no values", "make {} on the CPU"),
    "is_quantized": ("quantised", "{}.dequantize()"),
}


def checked(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return copies of images and labels, or say what came, what is wanted and how to get there."""
    for name, given, wanted in (("x", x, IMAGES), ("y", y, LABELS)):
        if not isinstance(given, Tensor):
            kind, hint = type(given).__name__, _to_tensor(name, given)
            raise UsageError(f"{name} is a {kind}, not a torch tensor; {wanted}{hint}")
        for flag, (odd, remedy) in ODD.items():
            if getattr(given, flag):
                raise UsageError(f"{name} is {odd}; {wanted}: {remedy.format(name)}")
        if given.layout != torch.strided:
            kind = "sparse" if "sparse" in str(given.layout) else str(given.layout)
            raise UsageError(f"{name} is {kind}; {wanted}: {name}.to_dense()")
    x, y = x.detach().as_subclass(Tensor), y.detach().as_subclass(Tensor)
    if hint := _wrong_form(x):
        raise UsageError(f"x is {_form(x)}; {IMAGES}: {hint}")
    if hint := _wrong_values(x):
        raise UsageError(f"x {hint}; {IMAGES}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.ndim != 1:
        one_hot = y.ndim == 2 and len(y) == len(x) and y.shape[1] > 1
        hint = "one-hot? y.argmax(1)" if one_hot else "y.flatten().long()"
        raise UsageError(f"y is {_form(y)}; {LABELS}: {hint}")
    if len(y) != len(x):
        raise UsageError(f"y holds {len(y)} labels for {len(x)} images; {LABELS}, one an image")
    return x.clamp(0, 1), y.to(torch.int64, copy=True)


def checked_index(index: Tensor | None, n: int) -> Tensor:
    """Return the place of each of `n` images in its dataset; the default counts from 0."""
    if index is None:
        return torch.arange(n)
    form = _form(index) if isinstance(index, Tensor) else f"a {type(index).__name__}"
    if form not in (f"int64 ({n},)", f"int32 ({n},)"):
        raise UsageError(f"index is {form}; wanted: an int64 tensor ({n},), one place an image")
    return index


def check_labels(y: Tensor, classes: int) -> None:
    """Refuse labels that no score of the model stands for; 0 classes: their number is unknown."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes > 0:
        hint = ": y - 1, if they count from 1" if (low, high) == (1, classes) else ""
        raise UsageError(
            f"labels reach from {low} to {high}; wanted: 0 to {classes - 1}, one for each of the "
            f"{classes} scores of the model{hint}"
        )


def _to_tensor(name: str, given: Any) -> str:
    if type(given).__name__ == "ndarray":
        array = f"{name}.astype('float32')" if name == "x" else name
        if given.dtype.kind == "O":
            array = f"np.stack(list({name}))"
        return f": torch.from_numpy({array})"
    if isinstance(given, list | tuple) and given:
        inner = isinstance(given[0], Tensor)
        return f": torch.stack(list({name}))" if inner else f": torch.tensor({name})"
    return ""


def _wrong_form(x: Tensor) -> str:
    """Return what to do about a wrong type or shape; "" where nothing is wrong."""
    last = x.ndim == 4 and x.shape[3] in (1, 3, 4) and min(x.shape[1:3]) > 4
    grey = "x.unsqueeze(1), if these are grey images; x.unsqueeze(0), if it is one image"
    remedies = (
        (x.is_complex(), "images are real: x.real"),
        (x.dtype != torch.bool and not x.is_floating_point(), "x.float() / 255"),
        (x.dtype != torch.float32, "x.float()"),
        (x.ndim == 3, grey),
        (last, "x.permute(0, 3, 1, 2), if the channels come last"),
        (x.ndim != 4, f"it has {x.ndim} axes"),
        (x.numel() == 0, "it holds no image"),
    )
    return next((remedy for wrong, remedy in remedies if wrong), "")


def _wrong_values(x: Tensor) -> str:
    """Return what is wrong with the values; "" where nothing is."""
    finite = torch.isfinite(x).flatten(1).all(1)
    if not finite.all():
        return f"holds NaN or infinity in {int((~finite).sum())} of {len(x)} images"
    low, high = float(x.amin()), float(x.amax())
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return ""
    remedy = "undo its normalisation, which belongs in the model"
    if low >= 0 and high <= 255:
        remedy = "x.clamp(0, 1), if it only overshoots" if high < OVER else "x / 255"
    return f"reaches from {low:.4g} to {high:.4g}: {remedy}"


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
