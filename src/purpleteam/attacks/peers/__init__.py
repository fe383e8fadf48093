"""Other libraries' attacks inside our evaluation: `foolbox:NAME`, `art:NAME`, `torchattacks:NAME`.

- `_base`      what a borrowed attack is: its options, its random numbers, what it is charged
- `libraries`  Foolbox, ART and torchattacks: what they have, and how it is run

A borrowed attack gets the model and the batch. What it returns is projected into our ball and asked
again in float32, so its robust accuracy means what ours means; the model calls that it made are
counted. Its options keep the library's names and defaults, but for the radius and the norm.

Unlike our own attacks these draw from the process-wide generators: the same seed and the same batch
give the same images, another batch size may give others.
"""

from __future__ import annotations

from functools import cache

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.peers._base import Library, borrowed
from purpleteam.attacks.peers.libraries import Art, Foolbox, Torchattacks
from purpleteam.core.errors import UsageError, unknown

__all__ = ["LIBRARIES", "peer_attack"]

LIBRARIES: dict[str, Library] = {
    library.name: library for library in (Art(), Foolbox(), Torchattacks())
}
"""The libraries whose attacks can be borrowed, by the name that stands before the colon."""


@cache
def peer_attack(name: str) -> type[EvasionAttack]:
    """Return the attack that `library:NAME` means, as a class like our own.

    Raises:
        UsageError: there is no such library or attack, or it is not installed.
    """
    library, _, attack = name.partition(":")
    if library not in LIBRARIES:
        raise UsageError(unknown("library of attacks", library, LIBRARIES))
    return borrowed(LIBRARIES[library], attack)
