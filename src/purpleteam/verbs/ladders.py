"""Which attacks are meant: names and objects into ladders, one for each radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from purpleteam.core.errors import ConfigError, UsageError, unknown

if TYPE_CHECKING:
    from purpleteam.attacks.evasion import EvasionAttack
    from purpleteam.verbs._subject import Subject

COLOUR = {"linf": 8 / 255, "l2": 0.5}
"""The radius that is asked about where none is named, for images in colour: CIFAR-10's usual ones.
For grey ones it is the norm's own, MNIST's."""
ALLOWED = 600
"""Seconds that the ladder may take where no attack is named; else PGD is made, in a sixth of it."""
TIMED = 16  # images on which the model's calls are timed beforehand


def attack_from(
    text: str, *, epsilon: float | None = None, norm: str | None = None
) -> EvasionAttack:
    """Return the attack that `name:field=value,...` means; its own fields win."""
    from purpleteam.attacks.evasion import ATTACKS
    from purpleteam.attacks.peers import peer_attack
    from purpleteam.core.config import build, parse_part

    name, values = parse_part(text)
    given = {"epsilon": epsilon, "norm": norm}
    defaults = {key: value for key, value in given.items() if value is not None}
    kind = peer_attack(name) if ":" in name else ATTACKS[name]
    asked = (defaults | values).get("norm", kind.norm)
    if asked not in kind.norms:  # the type alone would offer those of other attacks
        raise ConfigError(f"attack {name}: {unknown('norm', asked, kind.norms)}")
    made: Any = build(kind, defaults | values, f"attack {name}")
    return made  # type: ignore[no-any-return]


def ladders_of(
    asked: Sequence[Any], radii: list[float], norm: str | None, channels: int = 1
) -> dict[float, list[EvasionAttack]]:
    """Return the ladder of attacks for each radius: one norm and one epsilon, or no number."""
    from purpleteam.attacks.evaluate import check_attacks
    from purpleteam.core.config import parse_part

    check_attacks([attack for attack in asked if not isinstance(attack, str)])

    def made(attack: Any, radius: float | None, norm: str | None) -> EvasionAttack:
        if isinstance(attack, str):
            return attack_from(attack, epsilon=radius, norm=norm)
        chosen: EvasionAttack = attack if radius is None else replace(attack, epsilon=radius)
        return chosen

    first = made(asked[0], None, norm)
    named = [t for t in asked if not isinstance(t, str) or "epsilon" in parse_part(t)[1]]
    own = [made(attack, None, norm).epsilon for attack in named]
    usual = usual_epsilon(first.norm, channels) or first.epsilon
    ladders: dict[float, list[EvasionAttack]] = {}
    for radius in sorted(set(radii or own or [usual])):
        ladders[radius] = ladder = [made(attack, radius, norm or first.norm) for attack in asked]
        for attack, text in zip(ladder, asked, strict=True):
            if (attack.norm, attack.epsilon) != (ladder[0].norm, radius):
                raise UsageError(
                    f"--attack {text!r} is in {attack.norm} at {attack.epsilon:g}, "
                    f"others in {ladder[0].norm} at {radius:g}: measure each norm and epsilon by "
                    "itself"
                )
    return ladders


def usual_epsilon(norm: str, channels: int) -> float | None:
    """Return the radius that is asked about where none is named; None of a norm without one."""
    from purpleteam.attacks.norms import NORMS

    usual = NORMS[norm].usual_epsilon
    return COLOUR.get(norm, usual) if channels > 1 else usual


def usual_attack(subject: Subject, radii: int) -> tuple[str, list[str]]:
    """Return the attack to make where none is named, and why it is this one.

    It is the strongest that the model tells enough for and that the time allows.
    """
    from purpleteam.attacks.evasion.ladder import Ladder
    from purpleteam.models.devices import device_of, frozen, to_batch
    from purpleteam.models.inference import Nets

    model, images = subject.loaded.module, subject.images
    some = to_batch(images.images[:TIMED], device_of(model))
    with frozen(model) as net:
        nets = Nets.of(net, some)
    if not nets.differentiable:
        name = "square" if nets.model.gives == "scores" else "hop_skip_jump"
        return name, [f"attack {name}: the model gives no gradients"]
    box = nets.sloped is not None
    seconds = radii * Ladder().longest(nets.fast, some, len(images), box=box)
    length = f"at most {math.ceil(seconds):,} s by a measurement on {len(some)} images"
    if seconds <= ALLOWED:
        return "ladder", [f"attack ladder: {length}, {ALLOWED} s are allowed where none is named"]
    remedy = "--attack ladder makes it all the same"
    short = "box:steps=20,targets=1,queries=50" if box else "pgd"
    return short, [f"attack {short}: the ladder takes {length}, more than {ALLOWED} s; {remedy}"]
