"""Every engine does the same jobs to the same records, and none loses one."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from purpleteam.core.errors import PurpleError
from purpleteam.core.records import record_from_json
from purpleteam.pipeline.engines import ENGINES, Engine, Job, Outcome
from purpleteam.pipeline.engines._job import do
from purpleteam.pipeline.engines.ray import files_of

OWN = """
import os, torch
def build():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    torch.nn.init.ones_(net[1].weight), torch.nn.init.zeros_(net[1].bias)
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
        def forward(self, x):
            if len(x) == 23 and os.environ.get("DRIVER") != str(os.getpid()):
                os.kill(os.getpid(), 9)
            return self.net(x)
    return Net()
"""


WAITS = "__import__('time').sleep(600)"


@pytest.fixture(params=["inline", "inline of one", "ray"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """Return an engine that works in an empty folder."""
    name = request.param.split()[0]
    if name == "ray" and find_spec("ray") is None:
        pytest.skip("Ray is not installed; try: pip install 'purpleteam[ray]'")
    workers = None if request.param.endswith("one") else 2
    monkeypatch.setenv("DRIVER", str(os.getpid()))
    monkeypatch.chdir(tmp_path)
    made = ENGINES[name](workers=workers, threads=1, address=None)
    yield made
    made.close()


def jobs(model: str, limits: list[int]) -> list[Job]:
    options = {"model": model, "images": "digits", "threads": 1}
    return [
        Job(key=f"of {limit}", verb="evaluate", options=options | {"limit": limit})
        for limit in limits
    ]


def told(outcome: Outcome) -> list[object]:
    return [record_from_json(record).metric() for record in outcome.records]


def test_an_engine_does_each_job_once_and_as_this_process_does(engine: Engine) -> None:
    asked = jobs("standard", [20, 21, 22, 24])
    found = {outcome.key: outcome for outcome in engine.run(deque(asked))}
    assert found.keys() == {job.key for job in asked}
    for job in asked:
        assert told(found[job.key]) == told(do(job))
        assert found[job.key].seconds > 0


def test_an_engine_tells_what_failed_and_goes_on(engine: Engine) -> None:
    Path("own.py").write_text(OWN, encoding="utf-8")
    asked = jobs("own.py:build", [20, 23, 24])
    bad = Job(key="bad", verb="evaluate", options=dict(asked[0].options) | {"model": "none"})
    found = {outcome.key: outcome for outcome in engine.run(deque([*asked, bad]))}
    assert [found[key].error for key in ("of 20", "of 24")] == ["", ""]
    assert "'none'" in found["bad"].error
    alone = type(engine).__name__ == "Alone"  # which the job would have killed
    assert found["of 23"].error.startswith("" if alone else "crashed 3 times")


def test_a_job_that_hangs_is_ended_and_told(engine: Engine) -> None:
    if type(engine).__name__ == "Alone":
        pytest.skip("one process cannot end itself and go on")
    Path("own.py").write_text(OWN.replace("os.kill(os.getpid(), 9)", WAITS), encoding="utf-8")
    asked = deque(replace(job, seconds=15.0) for job in jobs("own.py:build", [20, 23]))
    found = {outcome.key: outcome.error for outcome in engine.run(asked)}
    assert found == {"of 20": "", "of 23": "took more than 15 s"}


def test_only_ray_has_an_address() -> None:
    with pytest.raises(PurpleError, match=r"--address '10\.0\.0\.1' is for --engine ray"):
        ENGINES["inline"](workers=2, threads=1, address="10.0.0.1")
    with pytest.raises(PurpleError, match="--gpus 1 is for --engine ray"):
        ENGINES["inline"](workers=2, threads=1, address=None, gpus=1)


def test_a_cluster_without_the_gpus_that_are_asked_for_says_so() -> None:
    pytest.importorskip("ray", reason="Ray is not installed; try: pip install 'purpleteam[ray]'")
    for gpus, said in ((2, "2: the cluster has 0"), (1.5, r"1\.5: must be a whole number")):
        with pytest.raises(PurpleError, match=f"--gpus {said}"):
            ENGINES["ray"](workers=1, threads=1, address=None, gpus=gpus)


def test_what_travels_is_what_options_name_below_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("net.safetensors", "net.json", "own.py", "images/a/1.png", "images/b/2.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    found = files_of({"model": "net", "images": "images:resize=8", "arch": "own.py:build"})
    assert sorted(path.as_posix() for path in found) == [
        *("images/a/1.png", "images/b/2.png"),
        *("net.json", "net.safetensors", "own.py"),
    ]
    assert files_of({"model": "standard", "images": "digits"}) == []
    with pytest.raises(PurpleError, match="outside the current folder"):
        files_of({"model": str(tmp_path / "net")})
