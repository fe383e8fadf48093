"""The first two minutes with a model of one's own, as the README shows them.

    python benchmarks/own_model.py      writes results/own.json

A small net in a module of its own, its weights as a `.pt` state dict, and a folder of images:
what `purple attack` says of them is kept word for word. The images are the embedded digits' test
images, in folders of classes without splits: all of them are used.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from purpleteam.core.machine import machine, versions
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.devices import to_batch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "own.json"
SEED = 0
STEPS = 150


def main() -> None:
    """Make the three things, attack, and keep the answer."""
    torch.set_num_threads(1)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Is my model robust?\n")[1]
    (module,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    (command,) = re.findall(r"^purple attack .*$", section, re.MULTILINE)
    dataset = load_dataset("digits")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "my_module.py").write_text(module, encoding="utf-8")
        torch.save(trained(dataset).state_dict(), folder / "w.pt")
        write_images(folder / "my_images", dataset.test)
        start = [sys.executable, "-c", "from purpleteam.cli import main; main()"]
        done = subprocess.run(
            [*start, *command.split()[1:]], cwd=folder, capture_output=True, text=True, check=True
        )
    content = {
        "command": command,
        "answer": done.stdout.strip(),
        "seed": SEED,
        "versions": versions(),
        "machine": machine(),
    }
    RESULTS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(done.stdout)


def trained(dataset: Dataset) -> nn.Module:
    """Return the README's net, trained for a moment."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        net = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
    x = to_batch(dataset.train.images)
    y = torch.from_numpy(np.array(dataset.train.labels))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(STEPS):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net


def write_images(folder: Path, images: ImageSet) -> None:
    """Write one PNG for each image, in a folder for each class."""
    for number, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(image[..., 0])).save(place / f"{number:04d}.png")


if __name__ == "__main__":
    main()
