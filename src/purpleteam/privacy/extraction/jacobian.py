"""Questions made from questions: Jacobian augmentation (Papernot et al. 2017, arXiv:1602.02697)."""

import numpy as np
import torch

from purpleteam.core.arrays import Pixels
from purpleteam.models.devices import device_of, to_batch
from purpleteam.privacy.extraction import EXTRACTIONS, Course, Strategy, part_of
from purpleteam.privacy.extraction.natural import Natural


@part_of(EXTRACTIONS, "extraction_jacobian")
class Jacobian(Strategy):
    """Moves what was asked along the sign of the gradient of the answer's score in the copy.

    Each round moves each image that was asked about before once, to one side, so that there are
    twice as many; then the copy learns again.
    """

    ranges = "start at least 1; step above 0 and at most 1"

    start: int = 100
    """Images of the pool that the rest is made from."""
    step: float = 0.1
    """By how much each pixel changes."""

    def questions(self, course: Course, count: int) -> Pixels:
        if course.copy is None:
            return Natural().questions(course, min(count, self.start))
        net, labels = course.copy, course.answers.argmax(1)
        rows = course.rng.permutation(len(course.asked))[:count]
        made = []
        for part in np.array_split(rows, -(-len(rows) // 500)):
            x = to_batch(course.asked[part], device_of(net)).requires_grad_()
            scores = net(x).gather(1, torch.from_numpy(labels[part])[:, None].to(x.device)).sum()
            (slope,) = torch.autograd.grad(scores, x)
            sign = course.rng.choice([-1.0, 1.0], (len(part), 1, 1, 1))  # periodical: both ways
            moved = x.detach().cpu().numpy() + self.step * sign * slope.sign().cpu().numpy()
            made.append((255 * moved.clip(0, 1)).round().astype(np.uint8).transpose(0, 2, 3, 1))
        return np.concatenate(made)
