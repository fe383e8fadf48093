"""STRIDE per element (Shostack 2014): six ways to go wrong, and which fit which kind of part.

A cell is a part and a letter, written `weights/T`. The kind of a part says which cells must be
answered, by a threat or by a reason why there is none; other cells may be answered as well.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["KINDS", "LETTERS", "STRIDE", "Cell", "Kind", "Letter", "required_letters"]

Letter = Literal["S", "T", "R", "I", "D", "E"]
Kind = Literal["external", "process", "store", "flow"]
Cell = tuple[str, Letter]
"""A part's id and a letter."""

STRIDE: dict[Letter, str] = {
    "S": "Spoofing",
    "T": "Tampering",
    "R": "Repudiation",
    "I": "Information disclosure",
    "D": "Denial of service",
    "E": "Elevation of privilege",
}

LETTERS: tuple[Letter, ...] = tuple(STRIDE)

KINDS: dict[Kind, tuple[Letter, ...]] = {
    "external": ("S", "R"),
    "process": LETTERS,
    "store": ("T", "R", "I", "D"),
    "flow": ("T", "I", "D"),
}


def required_letters(kind: Kind) -> tuple[Letter, ...]:
    """Return the letters that a part of this kind must answer."""
    return KINDS[kind]
