"""Galleries: images that a verb wants seen, as PNG files in the run folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.report.png import write_png

Picture = tuple[str, NDArray[np.uint8], str]
"""A file name without ending, uint8 pixels (H, W, C), and a caption."""


def gallery(
    run: RunFolder,
    kind: str,
    title: str,
    pictures: Sequence[Picture],
    *,
    none: str = "There is no such image.",
    made_by: str | None = None,
) -> list[Record]:
    """Write the pictures into a run; return their note and artefacts."""
    shown, files = [], []
    for name, pixels, caption in pictures:
        path = run.path / "images" / f"{name}.png"
        save_picture(path, pixels)
        shown.append({"path": f"images/{name}.png", "caption": caption})
        files.append(path)
    facts: dict[str, object] = {"title": title, "kind": kind, "images": shown}
    if made_by is not None:
        facts["of"] = made_by
    note = Note(name="gallery", facts=facts if shown else facts | {"note": none})
    return [note, *(run.artefact(path, note.id) for path in files)]


def save_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write pixels (H, W, C) as a PNG, grey or in colour."""
    write_png(path, pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :3])


def as_picture(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image in [0, 1] rounded to bytes, for looking at only."""
    return np.asarray(np.rint(image.clip(0, 1) * 255), np.uint8)


def signed_picture(perturbation: NDArray[np.float32], epsilon: float) -> NDArray[np.uint8]:
    """Return a perturbation as colours: grey is no change, blue darker, orange brighter."""
    amount = (perturbation.mean(2) / max(epsilon, 1e-9)).clip(-1, 1)[:, :, None]  # (H, W, 1)
    neutral = np.array([238, 236, 242])
    brighter, darker = np.array([217, 95, 14]), np.array([44, 91, 168])
    colours = neutral + amount.clip(0, 1) * (brighter - neutral)
    colours = colours + (-amount).clip(0, 1) * (darker - neutral)
    return np.asarray(np.rint(colours), np.uint8)
