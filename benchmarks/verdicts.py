"""Verdicts that must not depend on luck: what results/verdicts.json is made of.

    python benchmarks/verdicts.py --work FOLDER --only backdoors     writes its section alone

A section is made by one function of the folder for what was begun, and is written by itself: the
others stay as they are in the file. `backdoors` scans each model at five seeds, cell by cell, the
most telling ones first; what is there is never done again, `--cells N` stops after so many, and
the section says how many of all cells it holds. Models of the lab are trained by the recipe of
benchmarks/backdoors.py, and no calibration has seen them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from backdoors import FAMILIES, PATCH
from torch import nn
from verdicts_attacks import ladder, loops

from purpleteam.attacks.poison.asked import poison_from
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import Rate
from purpleteam.data.folders import load_dataset
from purpleteam.defences.detection.model import scan_model
from purpleteam.models import build, load, train
from purpleteam.models.store import Provenance, store
from purpleteam.pipeline.stages.models import recipe_of

RESULTS = Path(__file__).resolve().parent.parent / "results" / "verdicts.json"
SEEDS = 5
TRUSTED = 1000
TARGET = 7
ZOO = tuple((name, data) for data in ("digits", "mnist") for name in ("standard", "robust-0.3"))

Cell = tuple[str, str, int]
"""A model (of the zoo, or `POISON/SEED` of the lab), the data that is trusted, a scan's seed."""


def lab() -> list[str]:
    """Return the lab's models: the 26 backdoored and the 20 clean ones of backdoors.json."""
    planted = [f"{attack}/{seed}" for attack in FAMILIES for seed in range(3)]
    planted += [f"{PATCH}/{seed}" for seed in range(5)]
    clean = [f"clean/{seed}" for seed in range(20)]
    return [one for pair in zip(planted, clean, strict=False) for one in pair] + planted[20:]


def cells() -> list[Cell]:
    """Return every cell, the shipped models first, and each model once before any again."""
    shipped = [(name, data, seed) for seed in range(SEEDS) for name, data in ZOO]
    return shipped + [(name, "mnist", seed) for seed in range(SEEDS) for name in lab()]


def model_of(name: str, work: Path) -> nn.Module:
    """Return a shipped model, or one of the lab, trained where it is not there yet."""
    if "/" not in name:
        return load(name).module
    attack, _, number = name.rpartition("/")
    seed, dataset, images = int(number), load_dataset("mnist"), load_dataset("mnist").train
    if attack != "clean":
        poison = poison_from(attack, {"target_label": TARGET}, dataset=dataset)
        images = poison.apply(images, seed=seed).images
    path = work / "models" / "".join(c if c.isalnum() else "-" for c in name)
    if not path.with_suffix(".safetensors").exists():
        net = build("classic_cnn", (1, 28, 28), 10, seed=seed)
        recipe = recipe_of("plain", 3)
        made = train(net, images, dataset.validation, recipe, seed=seed).module
        about = {"architecture": "classic_cnn", "shape": (1, 28, 28), "classes": dataset.classes}
        path.parent.mkdir(parents=True, exist_ok=True)
        store(made, path, Provenance(recipe={"name": "plain"}, **about))
    return load(str(path)).module


def backdoors(work: Path, most: int, part: int, parts: int) -> dict[str, Any]:
    """Scan what is not scanned yet, so many cells at most; return the section."""
    journal = work / f"backdoors-{part}-of-{parts}.jsonl"
    done = _scanned(work)
    for cell in [one for one in cells()[part::parts] if one not in done][:most]:
        name, data, seed = cell
        dataset, started = load_dataset(data), time.process_time()
        trusted = dataset.validation.first(min(TRUSTED, len(dataset.validation)))
        model = model_of(name, work)
        trained = time.process_time()
        found = scan_model(model, trusted, classes=len(dataset.classes), seed=seed)
        spent = {"training": trained - started, "scan": time.process_time() - trained}
        facts = {key: found.to_json()[key] for key in KEPT}
        done[cell] = {"cell": cell, **facts, "cpu_seconds": spent}
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[cell]) + "\n")
        print(cell, found.verdict, found.score, found.reasons, round(spent["scan"]), flush=True)
    known = _scanned(work)  # what other processes have done by now as well
    scans = [known[cell] for cell in cells() if cell in known]
    return {"of": len(cells()), "scans": scans, **summary(scans)}


KEPT = (
    *("verdict", "reasons", "target_label", "kind", "score", "threshold", "p_value", "looks"),
    *("trigger_success", "student_success", "set_aside"),
)


def summary(scans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how often clean models are accused and backdoored ones found, with intervals."""
    clean: list[Mapping[str, Any]] = []
    planted: list[Mapping[str, Any]] = []
    for one in scans:
        name = one["cell"][0]
        (clean if "/" not in name or name.startswith("clean/") else planted).append(one)
    verdicts: dict[tuple[str, str], set[str]] = {}
    for one in scans:
        verdicts.setdefault(tuple(one["cell"][:2]), set()).add(one["verdict"])
    rates = {
        "clean_accused": [one["verdict"] == "backdoored" for one in clean],
        "clean_not_established": [one["verdict"] == "not_established" for one in clean],
        "backdoored_found": [one["target_label"] == TARGET for one in planted],
        "backdoored_cleared": [one["verdict"] == "nothing_found" for one in planted],
        "same_verdict_at_every_seed": [len(one) == 1 for one in verdicts.values()],
    }
    seconds = [one["cpu_seconds"]["scan"] for one in scans] or [0.0]
    quantiles = dict(zip(("median", "most"), np.quantile(seconds, (0.5, 1)).tolist(), strict=True))
    counted = {name: Rate.of(sum(of), len(of)).to_json() for name, of in rates.items() if of}
    return {"rates": counted, "cpu_seconds": quantiles}


SECTIONS: dict[str, Callable[[Path, int, int, int], dict[str, Any]]] = {
    "backdoors": backdoors,
    "ladder": ladder,
    "loops": loops,
}
"""What makes each section: from the folder for what was begun, the most cells to do, and which
part of how many this process does."""


def write(section: str, content: Mapping[str, Any]) -> None:
    """Put one section into the file of results and leave the others as they are."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known[section] = {**content, "machine": machine(), "versions": versions()}
    text = json.dumps(known, indent=1, sort_keys=True)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def _scanned(work: Path) -> dict[Cell, dict[str, Any]]:
    """Return the cells that the results hold, and those in the journals of any process."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    texts = [path.read_text(encoding="utf-8") for path in sorted(work.glob("backdoors-*.jsonl"))]
    scans = list(known.get("backdoors", {}).get("scans", []))
    scans += [json.loads(line) for text in texts for line in text.splitlines()]
    return {(name, data, seed): one for one in scans for name, data, seed in [one["cell"]]}


def main() -> None:
    """Make the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="Folder of what was begun.")
    parser.add_argument("--only", choices=list(SECTIONS), help="One section.")
    parser.add_argument("--cells", type=int, default=10**6, help="At most so many cells more.")
    parser.add_argument("--part", default="0/1", help="Part of the cells, such as 1/4.")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    given.work.mkdir(parents=True, exist_ok=True)
    for section in [given.only] if given.only else SECTIONS:
        write(section, SECTIONS[section](given.work, given.cells, part, parts))


if __name__ == "__main__":
    main()
