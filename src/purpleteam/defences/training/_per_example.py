"""The noised sum of the clipped gradients of single images: the steps of a private training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.core.errors import UsageError, reason_of
from purpleteam.data.images import ImageSet
from purpleteam.models.architectures import Fixed
from purpleteam.models.devices import to_batch
from purpleteam.models.guard import Guarded, switched
from purpleteam.models.training import Validation

AT_ONCE = 4 << 20  # bytes of gradients of a part of a batch: they stay in the cache
FEWEST = 8  # images of such a part: fewer cost more in calls than the cache saves
ASKED_AT_ONCE = 250  # images whose features are made
KEPT = 1 << 30  # most bytes of features that are kept from step to step

Shown = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Gives images (N, C, H, W) and labels of rows."""


class PrivateSteps:
    """Poisson samples, and the noised sums of their clipped gradients (arXiv:1607.00133).

    Each of `images` is in each step by a coin of its own, `batch_size` on average. Its gradient is
    cut to `max_grad_norm`, all weights together; the sum gets Gaussian noise of `noise_multiplier`
    times that length; what divides it is the expected size of a batch, not the one that was drawn.
    Opacus makes the gradients of each image, clips, sums and adds noise.
    """

    def __init__(
        self,
        net: Guarded,
        *,
        images: int,
        batch_size: int,
        noise_multiplier: float,
        max_grad_norm: float,
        augmented: bool,
    ) -> None:
        from opacus.optimizers import DPOptimizer

        self.count = -(-images // batch_size)  # steps of an epoch
        self.expected_batch = min(images, batch_size)
        self.sampling_rate = self.expected_batch / images
        inner, fixed = net.model, None
        self.learned: nn.Module = net
        if not augmented and isinstance(inner, nn.Sequential) and isinstance(inner[0], Fixed):
            fixed, self.learned = inner[0], inner[1:]
        self.seen, self.fixed = _Seen(fixed, images), fixed
        self.validation: _Seen | None = None
        self.weights = [one for one in net.parameters() if one.requires_grad]
        # It clips, sums and adds noise; the step itself is the training's own optimizer's.
        self.private: Any = DPOptimizer(
            torch.optim.SGD(self.weights, lr=0.0),
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        values = sum(one.numel() for one in self.weights)
        self.at_once = max(FEWEST, AT_ONCE // (4 * values))  # images

    def batches(self, order: Tensor, rng: torch.Generator) -> Sequence[Tensor]:
        """Return a Poisson sample for each step; some may be empty."""
        drawn = [torch.rand(len(order), generator=rng) for _ in range(self.count)]
        seed = int(torch.randint(2**62, (1,), generator=rng))
        self.private.generator = torch.Generator(order.device).manual_seed(seed)
        return [(one < self.sampling_rate).nonzero()[:, 0].to(order.device) for one in drawn]

    def gradients(self, rows: Tensor, shown: Shown) -> Tensor:
        """Put the noised gradient of a step into `.grad`; return its mean loss, a secret."""
        total = torch.zeros((), device=rows.device)
        for weight in self.weights:
            weight.summed_grad = torch.zeros_like(weight)  # type: ignore[attr-defined]
        for part in torch.split(rows, self.at_once) if len(rows) else ():
            for weight in self.weights:
                weight.grad_sample = None  # type: ignore[attr-defined]
            x, y = self.seen(part, shown)
            # In bfloat16 the length that is cut to would be rounded.
            with torch.autocast(x.device.type, enabled=False):
                loss = F.cross_entropy(self.learned(x), y, reduction="sum")
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            self.examples(part)
            self.clip()
        self.private.add_noise()
        self.released()
        for weight in self.weights:
            # The fused step goes through memory: gradients must lie there as the weights do.
            noised: Any = weight.grad
            weight.grad = torch.empty_like(weight).copy_(noised / self.expected_batch)
        return total / max(len(rows), 1)

    def clip(self) -> None:
        """Add the gradients in `grad_sample`, clipped one by one, to `summed_grad`."""
        self.private.clip_and_accumulate()

    def examples(self, rows: Tensor) -> None:
        """See `grad_sample` of each weight, of these rows, before it is clipped: an audit does."""

    def released(self) -> None:
        """See `grad` of each weight, the noised sum, before it is divided: an audit does."""

    def validate(self, net: nn.Module, images: ImageSet) -> Validation:
        """Return accuracy and loss of validation images; of the training images nothing is told."""
        switched(net)
        right, loss, n = 0, 0.0, len(images)
        device = self.weights[0].device
        labels = torch.from_numpy(np.array(images.labels)).to(device)

        def shown(rows: Tensor) -> tuple[Tensor, Tensor]:
            return to_batch(images.images[rows.numpy()], device), labels[rows]

        seen = self.validation = self.validation or _Seen(self.fixed, n)
        with torch.no_grad():
            for rows in torch.split(torch.arange(n), ASKED_AT_ONCE):
                x, y = seen(rows, shown)
                logits = self.learned(x)
                right += int((logits.argmax(1) == y).sum())
                loss += float(F.cross_entropy(logits, y, reduction="sum"))
        return Validation(validation_accuracy=right / n, loss=loss / n)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Have gradients made for each example, and leave the net as it was at the end."""
        from opacus.grad_sample import GradSampleHooks

        in_place = [one for one in self.learned.modules() if getattr(one, "inplace", False)]
        for layer in in_place:  # it would write over what the gradients are made of
            layer.inplace = False  # type: ignore[assignment]
        try:
            hooks = GradSampleHooks(self.learned, loss_reduction="sum")
        except NotImplementedError as error:
            reason = reason_of(error)
            raise UsageError(f"Opacus has no gradients of single images: {reason}") from None
        try:
            with warnings.catch_warnings():  # images have no gradient, as they need none
                warnings.filterwarnings("ignore", "Full backward hook is firing")
                yield
        finally:
            hooks.remove_hooks()
            for weight in self.weights:
                for name in ("grad_sample", "summed_grad", "_forward_counter"):
                    weight.__dict__.pop(name, None)
            for layer in in_place:
                layer.inplace = True  # type: ignore[assignment]


class _Seen:
    """What the learned layers see of images; where it is not too much, it is made only once."""

    def __init__(self, fixed: Fixed | None, images: int) -> None:
        self.fixed, self.images = fixed, images
        self.kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, rows: Tensor, shown: Shown) -> tuple[Tensor, Tensor]:
        if self.kept is not None:
            x, y = self.kept
            return x[rows], y[rows]
        x, y = shown(rows)
        if self.fixed is None:
            return x, y
        with torch.no_grad():
            seen: Tensor = self.fixed(x)
        if seen[0].nbytes * self.images > KEPT:
            return seen, y
        # All at once, in parts of one size: what a row gets must not hang on what is drawn with it.
        kept = seen.new_empty(self.images, *seen.shape[1:])
        labels = y.new_empty(self.images)
        every = torch.arange(self.images, device=rows.device)
        for part in torch.split(every, ASKED_AT_ONCE):
            x, labels[part] = shown(part)
            with torch.no_grad():
                kept[part] = self.fixed(x)
        self.kept = kept, labels
        return kept[rows], labels[rows]
