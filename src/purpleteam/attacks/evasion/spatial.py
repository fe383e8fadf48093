"""Rotation and translation (Engstrom et al. 2019, arXiv:1712.02779): a search over a whole grid."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, EvasionAttack, Noise, part_of

Move = tuple[float, float, float]  # degrees anticlockwise, pixels to the right, pixels down


@part_of(ATTACKS, "spatial")
class Spatial(EvasionAttack):
    """Turns and shifts the image in every way of a grid; its gradient misleads, the grid does not.

    Epsilon is a share of the largest turn and shift. `pixels=0` turns only, `degrees=0` shifts.
    """

    knowledge = "decision-based"
    norms = ("spatial",)
    ranges = (
        "degrees at least 0 and finite; pixels at least 0 and finite; "
        "turns at least 1; shifts at least 1"
    )

    norm: str = "spatial"
    """The set that is searched: no ball."""
    epsilon: float = 1.0
    """Share of `degrees` and `pixels` up to which the image moves."""
    degrees: float = 30.0
    """Largest turn either way."""
    pixels: float = 3.0
    """Largest shift either way, along each axis."""
    turns: int = 31
    """Turns in the grid."""
    shifts: int = 5
    """Shifts in the grid, along each axis."""

    @property
    def planned_steps(self) -> int:
        return len(self.grid())

    def grid(self) -> list[Move]:
        """Return every move, the largest first, since those break most images."""
        turns = _spread(self.epsilon * self.degrees, self.turns)
        shifts = _spread(self.epsilon * self.pixels, self.shifts)
        moves = [(turn, right, down) for turn in turns for right in shifts for down in shifts]
        return sorted(moves, key=lambda move: (-sum(map(abs, move)), move))

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        for move in self.grid():
            standing = driver.standing.nonzero().flatten()
            driver.errs(moved(x[standing], *move), standing)
        return x


def moved(x: Tensor, degrees: float, right: float, down: float) -> Tensor:
    """Return the images turned anticlockwise about their centre, then shifted, on black."""
    if len(x) == 0 or degrees == right == down == 0:
        return x
    height, width = x.shape[2:]
    angle = math.radians(degrees)
    # grid_sample asks where each place of the output comes from; both axes run from -1 to 1
    cosine, sine, ratio = math.cos(angle), math.sin(angle), height / width
    back_x, back_y = -2 * right / width, -2 * down / height
    rows = [[cosine, -sine * ratio, 0.0], [sine / ratio, cosine, 0.0]]
    for row in rows:
        row[2] = row[0] * back_x + row[1] * back_y
    source = x.new_tensor(rows).expand(len(x), 2, 3)
    grid = F.affine_grid(source, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _spread(most: float, count: int) -> list[float]:
    """Return `count` values from -most to most at even distances; just 0 where there is one."""
    if count == 1 or most == 0:
        return [0.0]
    return torch.linspace(-most, most, count, dtype=torch.float64).tolist()
