"""What stands of a model under each attack by itself, and under all of them together.

    python benchmarks/ladder.py         writes results/attacks.json

The undefended and the hardened model that ship with the package, on all of MNIST's test images
where an attack is quick enough, else on the first ones, as each record says. Every case is a
record with its own verdict on the evaluation. A case that is in the file already is not measured
again, and a case that was stopped goes on where it was, so the hours can be had in parts; `--only`
chooses cases by model and attack, such as `--only robust-0.3/autoattack`, or what other libraries
make of the same images: `cross-check`, and `whole` with AutoAttack.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not spin

import numpy as np
import torch
from ladder_peers import compared, compared_whole
from numpy.typing import NDArray

from purpleteam.attacks import RobustEvaluation, evaluate, soundness_of
from purpleteam.attacks.evaluate import Journal
from purpleteam.attacks.evasion import EvasionAttack, MinimumNormAttack
from purpleteam.attacks.outcomes import NOT_BROKEN
from purpleteam.cli.screen import progress
from purpleteam.core.machine import machine, versions
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset
from purpleteam.models import load
from purpleteam.models.loading import LoadedModel
from purpleteam.verbs._subject import Subject
from purpleteam.verbs.ladders import attack_from

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "attacks.json"
MODELS = ("standard", "robust-0.3")
SEED = 0
LARGE = 1000
"""Images that a case must be measured on to count in the worst case."""
WORST = "worst case over the ladder"
ANYWHERE = {"linf": 1.0, "l2": 28.0, "l1": 784.0, "l0": 784.0}
"""The radius of a ball that holds every image of 28 x 28."""


@dataclass(frozen=True)
class Case:
    """An attack in a ball, and on how many images."""

    attack: str
    norm: str
    epsilon: float
    limit: int | None = None


CASES = (
    Case("fgsm", "linf", 0.3),
    Case("bim", "linf", 0.3),
    Case("mifgsm", "linf", 0.3),
    Case("pgd:steps=40", "linf", 0.3),
    Case("pgd:steps=100,restarts=10", "linf", 0.3, 1000),
    Case("autoattack", "linf", 0.3),
    Case("fmn", "linf", 0.3, 1000),
    Case("deepfool", "linf", 0.3, 1000),
    Case("hop_skip_jump", "linf", 0.3, 100),
    Case("pgd:steps=40", "l2", 2.0, 1000),
    Case("autoattack", "l2", 2.0, 200),
    Case("deepfool", "l2", 2.0, 1000),
    Case("carlini_wagner", "l2", 2.0, 100),
    Case("ddn", "l2", 2.0, 1000),
    Case("fmn", "l2", 2.0, 1000),
    Case("hop_skip_jump", "l2", 2.0, 100),
    Case("pgd:steps=100", "l1", 10.0, 1000),
    Case("apgd_ce", "l1", 10.0, 1000),
    Case("fmn", "l1", 10.0, 1000),
    Case("fmn", "l0", 20.0, 1000),
)


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ladder")
    parser.add_argument("--only", nargs="*", default=[], metavar="MODEL/ATTACK")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    dataset = load_dataset("mnist")
    for name in MODELS:
        model = load(name)
        for case in CASES:
            label = f"{name}/{case.attack}/{case.norm}/{case.limit or 'all'}"
            if asked.only and not any(label.startswith(one) for one in asked.only):
                continue
            _measure(model, dataset, case, asked.out, asked.work)
        _together(model, dataset, asked.out, asked.work)
        known = [one["how"]["key"] for one in _records(asked.out)]
        if not asked.only or "cross-check" in asked.only:
            for record in compared(model, dataset, SEED, known):
                _keep(asked.out, record)
        if not asked.only or "whole" in asked.only:
            standing = _autoattack(asked.work, model)
            for record in compared_whole(model, dataset, standing, SEED, known):
                _keep(asked.out, record)


def _measure(model: LoadedModel, dataset: Dataset, case: Case, out: Path, work: Path) -> None:
    images = dataset.test.first(case.limit)
    attack = attack_from(case.attack, norm=case.norm, epsilon=case.epsilon)
    facts = {"model": model.digest, "case": asdict(case), "attack": asdict(attack), "seed": SEED}
    key = {"name": attack.name, **json.loads(json.dumps(facts))}
    if any(one["how"].get("key") == key for one in _records(out)):
        return
    journal = Journal.of(facts, work / "journal")
    with progress(quiet=False) as bar:
        wide = evaluate(
            model.module, images, _widest(attack), seed=SEED, journal=journal, progress=bar
        )
    nearest = isinstance(attack, MinimumNormAttack)
    found = wide.within(attack.epsilon, images) if nearest else wide
    sound = soundness_of(model.module, images, [attack], [found], seed=SEED)
    subject = Subject(dataset, torch.device("cpu"), model, limit=case.limit).about()
    detail: dict[str, Any] = {
        "soundness": sound.to_json(),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "median_distance": _median(wide) if nearest else None,
    }
    record = found.measurement(subject, seed=SEED, detail=detail, key=key, case=case.attack)
    found.save_outcomes(_outcomes(work, model, case))
    _keep(out, record)
    sys.stdout.write(f"{model.name} {case.attack} {case.norm}: {record.value} {sound.verdict}\n")


def _together(model: LoadedModel, dataset: Dataset, out: Path, work: Path) -> None:
    """Record what stands under each L-infinity attack, and under all, on the same images.

    They are as many as all of them were measured on; the last record is the worst case, image by
    image. Without AutoAttack there is none.
    """
    made = [case for case in CASES if case.norm == "linf" and _size(case, dataset) >= LARGE]
    made = [case for case in made if _outcomes(work, model, case).exists()]
    if not any(case.attack == "autoattack" for case in made):
        return
    n = min(_size(case, dataset) for case in made)
    standing = np.ones(n, np.bool_)
    for case in made:
        with np.load(_outcomes(work, model, case), allow_pickle=False) as rows:
            broken_by = rows["broken_by"][:n]
        stands = broken_by == NOT_BROKEN
        standing &= stands
        detail = _detail_of(_found(out, model, case), broken_by)
        _keep(out, _on_the_same(model, dataset, case.attack, stands, detail))
    _keep(out, _on_the_same(model, dataset, WORST, standing, {}))


def _on_the_same(
    model: LoadedModel,
    dataset: Dataset,
    name: str,
    stands: NDArray[np.bool_],
    detail: Mapping[str, Any],
) -> Measurement:
    """Return a rate over the first images."""
    n = len(stands)
    return Measurement(
        name="robust_accuracy",
        value=Rate.of(int(stands.sum()), n),
        subject=Subject(dataset, torch.device("cpu"), model, limit=n).about(),
        how={
            "attack": name,
            "norm": "linf",
            "epsilon": 0.3,
            "knowledge": "white-box",
            "case": name,
            "same_images": True,
            "key": {"model": model.digest, "case": name, "same_images": True},
        },
        detail=detail,
        seed=SEED,
    )


def _detail_of(source: Mapping[str, Any], broken_by: NDArray[np.int8]) -> dict[str, Any]:
    """Return the verdict on the whole case, calls an image, and what its parts left of these."""
    (whole,) = source["detail"]["attacks"]
    parts: dict[str, Any] = {"survived": _left(broken_by, len(whole.get("members", (1,))))}
    if "members" in whole:
        members = enumerate(whole["members"], start=1)
        parts["members"] = [{**one, "survived": _left(broken_by, rungs)} for rungs, one in members]
    return {**source["detail"], "attacks": [{**whole, **parts}], "calls": _calls(source)}


def _left(broken_by: NDArray[np.int8], rungs: int) -> dict[str, Any]:
    """Return the rate of images that stand after so many attacks, by which one broke each."""
    stands = (broken_by == NOT_BROKEN) | (broken_by >= rungs)
    return Rate.of(int(stands.sum()), len(stands)).to_json()


def _calls(source: Mapping[str, Any]) -> float:
    """Return model calls an image."""
    return float(round(source["cost"]["forward"] / source["value"]["n"], 1))


def _found(out: Path, model: LoadedModel, case: Case) -> Mapping[str, Any]:
    """Return the record of a case that was measured."""
    wanted = {"model": model.digest, "case": asdict(case)}
    for one in _records(out):
        key = one["how"]["key"]
        if all(key.get(name) == value for name, value in wanted.items()):
            return dict(one)
    raise LookupError(f"{model.name} {case.attack}: its outcomes are there, its record is not")


def _size(case: Case, dataset: Dataset) -> int:
    """Return how many images a case is measured on."""
    return len(dataset.test) if case.limit is None else case.limit


def _widest(attack: EvasionAttack) -> EvasionAttack:
    """Let a search for the nearest example find it at any distance; other attacks stay."""
    return (
        replace(attack, epsilon=ANYWHERE[attack.norm])
        if isinstance(attack, MinimumNormAttack)
        else attack
    )


def _median(found: RobustEvaluation) -> float | None:
    """Return the median distance of what was found, over images right when clean."""
    distance = np.where(found.broken_by >= 0, found.distance, np.inf)[found.clean_correct]
    middle = float(np.median(distance)) if len(distance) else float("inf")
    return round(middle, 5) if np.isfinite(middle) else None


def _outcomes(work: Path, model: LoadedModel, case: Case) -> Path:
    attack = case.attack.replace(":", "-").replace("=", "").replace(",", "-")
    return work / f"{model.name}-{attack}-{case.norm}-{case.limit or 'all'}.npz"


def _autoattack(work: Path, model: LoadedModel) -> NDArray[np.bool_]:
    """Return which images stand under AutoAttack, as many as it was made on."""
    (case,) = (one for one in CASES if one.attack == "autoattack" and one.norm == "linf")
    with np.load(_outcomes(work, model, case), allow_pickle=False) as rows:
        return np.asarray(rows["broken_by"] == -1)


def _records(out: Path, model: LoadedModel | None = None) -> Sequence[Any]:
    """Return what has been measured, of one model or of all."""
    if not out.exists():
        return []
    found = json.loads(out.read_text(encoding="utf-8"))["records"]
    return [one for one in found if model is None or one["subject"]["model"] == model.digest]


def _keep(out: Path, record: Measurement) -> None:
    """Put a record into the file, in the place of an older one of the same case."""
    values = record.to_json()
    kept = [one for one in _records(out) if one["how"]["key"] != values["how"]["key"]]
    content = {
        "run": {"versions": versions(), "machine": machine(), "threads": torch.get_num_threads()},
        "records": [*kept, values],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
