"""What an attack spends beyond the model calls that it makes: record them, and make them again.

The record holds, call by call, which form of the net was asked, about how many images, whether for
a gradient, and how long it took until the next call. The replay makes the same calls on the same
nets and does nothing else. Both are the same calls in each repetition, so the least time counts
call by call, which a machine that is busy with other things disturbs little.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.models.devices import frozen
from purpleteam.models.guard import Classifier, Guarded, guarded
from purpleteam.models.inference import Nets

__all__ = ["Calls", "least", "record"]

FORMS = ("model", "fast")
"""As the user has it; in the processor's layout."""


@dataclass(eq=False)
class Calls:
    """The model calls of one attack, in their order."""

    nets: Nets
    made: list[tuple[str, int, bool]] = field(default_factory=list)
    """Form of the net, images, and whether a gradient was asked."""
    spent: list[float] = field(default_factory=list)
    """Processor seconds before the first call, then from each call to the next, or to the end."""

    def replay(self, x: Tensor, y: Tensor) -> list[float]:
        """Make the same calls on images like those that were attacked; return what each took."""
        nets = {form: getattr(self.nets, form) for form in FORMS}
        spent = []
        with frozen(self.nets.model):
            for form, count, gradient in self.made:
                before = time.process_time()
                images, labels = x[:count], y[:count]
                if gradient:
                    _slope(nets[form], images, labels)
                else:
                    with torch.no_grad():
                        nets[form](images)
                spent.append(time.process_time() - before)
        return spent

    def images(self) -> dict[str, int]:
        """Return how many images were asked about, by form of the net and kind of call."""
        total: Counter[str] = Counter()
        for form, count, gradient in self.made:
            total[f"{form} {'gradient' if gradient else 'forward'}"] += count
        return dict(total)


def record(attack: EvasionAttack, model: Classifier, x: Tensor, y: Tensor, seed: int) -> Calls:
    """Run the attack once and return the model calls that it made."""
    began = [time.process_time()]
    with frozen(model):
        nets = Nets.of(model, x)
    calls = Calls(nets)
    spies: dict[int, Guarded] = {}
    for form in FORMS:  # two forms may be one net, and must stay one
        net = getattr(nets, form)
        spies.setdefault(id(net), guarded(_spy(net, form, calls, began)))
    watched = {form: spies[id(getattr(nets, form))] for form in FORMS}
    with frozen(model):
        attack.run(replace(nets, **watched), x, y, seed=seed)
    began.append(time.process_time())
    calls.spent = [after - before for before, after in pairwise(began)]
    return calls


def least(runs: Sequence[Sequence[float]]) -> float:
    """Return the seconds of all calls, each as it was in its fastest repetition."""
    return sum(map(min, zip(*runs, strict=True)))


def _spy(net: Classifier, form: str, calls: Calls, began: list[float]) -> Classifier:
    def answer(images: Tensor) -> Tensor:
        began.append(time.process_time())
        calls.made.append((form, len(images), images.requires_grad))
        return net(images)

    return answer


def _slope(net: Classifier, x: Tensor, y: Tensor) -> None:
    asked = x.detach().requires_grad_(True)
    with torch.enable_grad():
        torch.autograd.grad(F.cross_entropy(net(asked).float(), y, reduction="sum"), asked)
