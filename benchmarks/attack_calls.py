"""What an attack spends beyond the model calls that it makes: record them, and make them again.

The record holds, call by call, which form of the net was asked, about how many images, and
whether for a gradient. The replay makes the same calls on the same nets and does nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.models.devices import frozen
from purpleteam.models.inference import Classifier
from purpleteam.models.twins import Twins

__all__ = ["Calls", "record"]

FORMS = ("model", "exact", "fast")
"""As the user has it; float32 in the processor's layout; bfloat16."""


@dataclass(eq=False)
class Calls:
    """The model calls of one attack, in their order."""

    nets: Twins
    made: list[tuple[str, int, bool]] = field(default_factory=list)
    """Form of the net, images, and whether a gradient was asked."""

    def replay(self, x: Tensor, y: Tensor) -> None:
        """Make the same calls on images like those that were attacked."""
        nets = {form: getattr(self.nets, form) for form in FORMS}
        with frozen(self.nets.model):
            for form, count, gradient in self.made:
                images, labels = x[:count], y[:count]
                if gradient:
                    _slope(nets[form], images, labels)
                else:
                    with torch.no_grad():
                        nets[form](images)

    def images(self) -> dict[str, int]:
        """Return how many images were asked about, by form of the net and kind of call."""
        total: Counter[str] = Counter()
        for form, count, gradient in self.made:
            total[f"{form} {'gradient' if gradient else 'forward'}"] += count
        return dict(total)


def record(attack: EvasionAttack, model: Classifier, x: Tensor, y: Tensor, seed: int) -> Calls:
    """Run the attack once and return the model calls that it made."""
    with frozen(model):
        nets = Twins.of(model, x)
    calls = Calls(nets)
    spies: dict[int, Classifier] = {}
    for form in FORMS:  # two forms may be one net, and must stay one
        net = getattr(nets, form)
        spies.setdefault(id(net), _spy(net, form, calls))
    watched = {form: spies[id(getattr(nets, form))] for form in FORMS}
    with frozen(model):
        attack.run(replace(nets, **watched), x, y, seed=seed)
    return calls


def _spy(net: Classifier, form: str, calls: Calls) -> Classifier:
    def answer(images: Tensor) -> Tensor:
        calls.made.append((form, len(images), images.requires_grad))
        return net(images)

    return answer


def _slope(net: Classifier, x: Tensor, y: Tensor) -> None:
    asked = x.detach().requires_grad_(True)
    with torch.enable_grad():
        torch.autograd.grad(F.cross_entropy(net(asked).float(), y, reduction="sum"), asked)
