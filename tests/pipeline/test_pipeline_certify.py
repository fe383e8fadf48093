"""Certificates in a run stand beside the attacks of it: what is verified, no attack breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from purpleteam.core.errors import RunError
from purpleteam.core.records import Measurement
from purpleteam.core.runfolder import RunFolder
from purpleteam.pipeline.stages.certify import check_bounds


def of(folder: Path, name: str, **how: object) -> list[Measurement]:
    return [
        record
        for record in RunFolder.open(folder).records()
        if isinstance(record, Measurement)
        and record.name == name
        and all(record.how.get(key) == value for key, value in how.items())
    ]


def test_every_model_is_certified_and_attacked_on_the_same_images(finished: Path) -> None:
    proofs = of(finished, "certified_accuracy", norm="linf")
    assert {record.subject["model_name"] for record in proofs} >= {"baseline", "hardened"}
    for proof in proofs:
        assert sum(proof.detail["counts"].values()) == proof.value.n
        assert proof.how["deterministic"] is True


def test_a_run_in_which_an_attack_broke_a_verified_image_fails(copied: Path) -> None:
    check_bounds(RunFolder.open(copied))
    (proof, *_) = sorted(
        of(copied, "certified_accuracy", norm="linf"), key=lambda r: -r.how["epsilon"]
    )
    (path,) = (copied / "outcomes").glob(f"*{proof.id}.npz")
    with np.load(path) as rows:
        values = {name: rows[name] for name in rows}
    values["verdicts"][:] = "verified"
    np.savez(path, allow_pickle=False, **values)
    with pytest.raises(RunError, match=r"is verified .* and an attack broke"):
        check_bounds(RunFolder.open(copied))


def test_a_method_that_is_not_known_is_refused_before_any_work() -> None:
    from purpleteam.core.errors import ConfigError
    from purpleteam.pipeline.config import CertifyConfig
    from purpleteam.pipeline.validation import _bounds

    with pytest.raises(ConfigError, match="unknown method 'dpa'"):
        _bounds(CertifyConfig(method="dpa"))
