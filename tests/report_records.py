"""Records of a small run, every kind of them, as the pipeline writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.records import (
    CheckResult,
    Finding,
    Measurement,
    Note,
    Record,
    ThreatStatus,
)
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import (
    Counts,
    Estimate,
    Rate,
    Value,
    mean_over_seeds,
    paired_difference,
)
from purpleteam.report.png import write_png

MODELS = (
    "baseline",
    "poisoned-kept",
    "poisoned-relabelled",
    "clean-twin",
    "hardened-fast",
    "hardened",
    "seed-a-defence",
    "seed-b-defence",
)
SURVIVORS = {  # of 1000, at epsilon 0.1, 0.2 and 0.3, by PGD
    "baseline": (701, 12, 0),
    "hardened-fast": (951, 902, 811),
    "hardened": (972, 941, 893),
    "seed-a-defence": (113, 4, 0),
    "seed-b-defence": (322, 11, 0),
}


def measured(
    name: str,
    value: Value,
    model: str,
    how: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
    seed: int | None = None,
    selection: str = "all",
) -> Measurement:
    """A measurement about one model on the test images."""
    subject = {
        "model": sha256_bytes(model.encode(), str(seed or 0).encode()),
        "model_name": model,
        "dataset": sha256_bytes(b"mnist"),
        "dataset_name": "mnist",
        "split": "test",
        "selection": selection,
    }
    return Measurement(
        name=name,
        value=value,
        subject=subject,
        how=how or {},
        detail=detail or {},
        seed=seed,
        cost={"seconds": 1.5, "seconds_per_image": 0.00015},
    )


def estimate(value: float, n: int = 10000) -> Estimate:
    return Estimate(value=value, n=n, low=value * 0.9, high=value * 1.1, method="bootstrap")


def matrix(wrong: int = 1) -> Counts:
    rows = tuple(
        tuple(980 if i == j else (i * j * wrong) % 7 for j in range(10)) for i in range(10)
    )
    return Counts(value=rows, n=sum(map(sum, rows)))


def clean_records() -> list[Record]:
    found: list[Record] = []
    for place, model in enumerate(MODELS):
        found.append(measured("clean_accuracy", Rate.of(9889 - 40 * place, 10000), model))
        found.append(measured("loss", estimate(0.0359 + 0.004 * place), model))
        found.append(measured("calibration_error", estimate(0.0031), model))
        found.append(
            measured(
                "confusion_matrix", matrix(place + 1), model, detail={"classes": list(range(10))}
            )
        )
        epochs = [
            {
                "epoch": epoch,
                "loss": (0.5 + 0.05 * place) / epoch,
                "validation_accuracy": 0.99 - 0.1 / epoch,
            }
            for epoch in range(1, 6)
        ]
        found.append(
            Note(
                name="training",
                facts={"model_name": model, "epochs": epochs, "recipe": {"epochs": 5}},
            )
        )
    for label in range(10):
        found.append(
            measured("precision", Rate.of(970 + label, 1000), "baseline", {"class": label})
        )
        found.append(measured("recall", Rate.of(980 - label, 1000), "baseline", {"class": label}))
        found.append(measured("f1", estimate(0.985, 1000), "baseline", {"class": label}))
    return found


def attack_records() -> list[Record]:
    found: list[Record] = []
    sound = {
        "soundness": {"verdict": "sound", "reasons": [], "checks": {"overstated_by": 0.021}},
        "attacks": [{"name": "fgsm"}, {"name": "pgd"}],
    }
    doubt = {
        "soundness": {
            "verdict": "not_established",
            "reasons": ["a black-box attack was stronger than the white-box one"],
        }
    }
    for model, survivors in SURVIVORS.items():
        for epsilon, survived in zip((0.1, 0.2, 0.3), survivors):
            how = {
                "attack": "pgd",
                "norm": "linf",
                "epsilon": epsilon,
                "steps": 40,
                "restarts": 1,
                "step_size": 2.5 * epsilon / 40,
                "knowledge": "white-box",
                "curve": True,
            }
            detail = doubt if model == "hardened-fast" and epsilon == 0.3 else sound
            found.append(
                measured(
                    "robust_accuracy", Rate.of(survived, 1000), model, how, detail, 0, "first 1000"
                )
            )
        how = {
            "attack": "fgsm",
            "norm": "linf",
            "epsilon": 0.3,
            "steps": 1,
            "knowledge": "white-box",
        }
        found.append(
            measured(
                "robust_accuracy",
                Rate.of(
                    {"baseline": 1319, "hardened": 9512, "hardened-fast": 9460}.get(model, 358),
                    10000,
                ),
                model,
                how,
                sound,
            )
        )
        how = {
            "attack": "fgsm",
            "norm": "linf",
            "epsilon": 0.3,
            "knowledge": "transfer",
            "source_model": "baseline",
        }
        claimed = {"baseline": 1322, "seed-a-defence": 9971, "seed-b-defence": 9650}.get(
            model, 9700
        )
        found.append(measured("transfer_accuracy", Rate.of(claimed, 10000), model, how))
    return found


def poison_records() -> list[Record]:
    found: list[Record] = []
    for model, hits, seeds in (
        ("poisoned-kept", 63, (0,)),
        ("poisoned-relabelled", 8900, (0, 1, 2)),
    ):
        for seed in seeds:
            how = {
                "trigger": {"pattern": "square", "side": 4},
                "target_label": 7,
                "poisoned": 100,
                "relabel": model.endswith("relabelled"),
            }
            detail = {
                "per_source": {
                    str(label): Rate.of(min(990, hits // 9 + label), 990).to_json()
                    for label in range(10)
                    if label != 7
                }
            }
            found.append(
                measured(
                    "attack_success_rate", Rate.of(hits + seed, 8972), model, how, detail, seed
                )
            )
            found.append(measured("base_rate", Rate.of(12, 8972), model, how, seed=seed))
            found.append(
                measured("triggered_accuracy", Rate.of(9789, 10000), model, how, seed=seed)
            )
            found.append(
                measured("recovered_accuracy", Rate.of(8972 - hits, 8972), model, how, seed=seed)
            )
    found.append(
        measured(
            "attack_success_rate_mean",
            mean_over_seeds([0.991, 0.992, 0.99], bounds=(0, 1)),
            "poisoned-relabelled",
        )
    )
    difference = paired_difference([True] * 990 + [False] * 10, [True] * 988 + [False] * 12)
    found.append(measured("clean_accuracy_difference", difference, "poisoned-relabelled", seed=0))
    return found


def serve_records() -> list[Record]:
    cases = {"large, centred": (978, 923), "small, off centre": (978, 236)}
    found: list[Record] = [
        measured(
            "redrawn_accuracy",
            Rate.of(hits, 1000),
            "baseline",
            {"case": case, "preprocessing": way},
        )
        for case, both in cases.items()
        for way, hits in zip(("place", "resize"), both)
    ]
    found.append(
        Note(name="served", facts={"url": "http://127.0.0.1:8000", "limits": {"body": 784}})
    )
    return found


def judged_records() -> list[Record]:
    control = {"ran": True, "failed_as_required": True}
    checks = [
        ("data.digest", "pass"),
        ("model.format", "pass"),
        ("code.sast", "fail"),
        ("web.headers", "pass"),
        ("run.ledger", "broken"),
    ]
    found: list[Record] = [
        CheckResult(
            check=name,
            proves=f"What {name} says is so.",
            verdict=verdict,
            measured=1,
            threshold=1,
            negative_control=control
            if verdict != "broken"
            else {"ran": True, "failed_as_required": False},
        )  # type: ignore[arg-type]
        for name, verdict in checks
    ]
    found.append(
        Finding(
            tool="bandit 1.9.4",
            rule="B614",
            severity="medium",
            confidence="high",
            message="Use of unsafe PyTorch load.",
            place={"path": "server.py", "line": 40},
            cwe="CWE-502",
            fix="weights_only=True",
        )
    )
    found.append(
        Note(name="scan", facts={"paths": ["src"], "scanned": 63, "skipped": [], "errors": []})
    )
    proof = {
        "M-FORMAT": {
            "statement": "Only safetensors are loaded.",
            "status": "verified",
            "checks": {"model.format": "pass"},
        }
    }
    bare = {"M-RATE": {"statement": "Requests are limited.", "status": "unverified", "checks": {}}}
    found.append(
        ThreatStatus(
            threat="T-WEIGHTS-E1",
            element="weights",
            stride="E",
            title="A model file runs code when it is loaded.",
            inherent="high",
            residual="low",
            status="mitigated",
            mitigations=proof,
            origin=("B-E-1",),
        )
    )
    found.append(
        ThreatStatus(
            threat="T-APP-D1",
            element="app",
            stride="D",
            title="The app is flooded.",
            inherent="high",
            residual="high",
            status="open",
            mitigations=bare,
        )
    )
    found.append(
        ThreatStatus(
            threat="N-WEIGHTS-R",
            element="weights",
            stride="R",
            title="Each file has a card.",
            inherent="note",
            residual="note",
            status="not_applicable",
            mitigations={},
        )
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 60">'
        '<rect width="90" height="40" x="5" y="10" fill="none" stroke="currentColor"/>'
        '<text x="20" y="35">weights</text></svg>'
    )
    facts = {
        "elements": [
            {"id": "weights", "name": "Model files", "kind": "store"},
            {"id": "app", "name": "Drawing app", "kind": "process"},
        ],
        "flows": [{"id": "f-load", "name": "load", "source": "weights", "target": "app"}],
        "seed_tables": {
            "A, elements": [
                {
                    "element": "Model",
                    "tampering": "says: a threat",
                    "remains": "low",
                    "status": "mitigated",
                }
            ]
        },
        "diagram": svg,
    }
    found.append(Note(name="system-model", facts=facts))
    return found


def noted_records(folder: Path) -> list[Record]:
    rng = np.random.default_rng(0)
    images = []
    for number in range(4):
        path = folder / "images" / f"digit-{number}.png"
        write_png(path, rng.integers(0, 255, (28, 28), dtype=np.uint8))
        images.append(
            {"path": f"images/digit-{number}.png", "caption": f"a {number}, read as {9 - number}"}
        )
    found: list[Record] = [
        Note(name="gallery", facts={"title": f"Pictures: {kind}", "kind": kind, "images": images})
        for kind in ("digits", "evasion", "trigger", "drawing")
    ]
    found.append(
        Note(
            name="not-tested",
            facts={
                "items": [
                    "Physical attacks",
                    {"what": "Model stealing", "why": "no query budget was set"},
                ]
            },
        )
    )
    figures = [
        {
            "seed": "A",
            "what": "clean_accuracy",
            "model_name": "baseline",
            "value": 0.9889,
            "where": "Model performance",
        },
        {
            "seed": "A",
            "what": "transfer_accuracy",
            "model_name": "seed-a-defence",
            "value": 0.9971,
            "where": "Adversarial training",
            "note": "images made against another model",
        },
        {
            "seed": "A",
            "what": "attack_success_rate",
            "model_name": "poisoned-kept",
            "value": "not measured",
            "where": "nowhere",
        },
        {
            "seed": "B",
            "what": "clean_accuracy",
            "model_name": "seed-b-defence",
            "value": 0.5117,
            "where": "section 7",
        },
    ]
    found.append(Note(name="seeds-figures", facts={"figures": figures}))
    found.append(
        measured("cross_check_difference", estimate(0.25), "baseline")
    )  # no chapter has it
    return found


def pictures(run: RunFolder) -> list[Record]:
    return [run.artefact(file, "n-1") for file in sorted((run.path / "images").iterdir())]


def write_full_run(path: Path) -> Path:
    """Write the run of the fixture, also for looking at it by hand."""
    run = RunFolder.create(path, {"name": "demo", "seed": 0})
    stages = {
        "models": clean_records,
        "attacks": attack_records,
        "poison": poison_records,
        "serve": serve_records,
        "judged": judged_records,
    }
    for stage, records in stages.items():
        run.cell(stage, {}, records)
    run.cell("noted", {}, lambda: [*noted_records(path), *pictures(run)])
    run.finish("finished")
    return path
