"""Cells of a sweep that make models and images, and the cells that use them."""

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from purpleteam.core.errors import ConfigError
from purpleteam.core.records import Failure
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.verification import verify
from purpleteam.pipeline.engines import ENGINES, Job, Outcome
from purpleteam.pipeline.engines._job import do
from purpleteam.pipeline.plan import read_plan
from purpleteam.pipeline.replay import replay
from purpleteam.pipeline.sweep import Swept, run_sweep
from purpleteam.report.swept import read_table

SWEEP = """
cells:
  - {verb: train, as: net, dataset: digits, recipe: "plain:epochs=1", seed: [0, 1]}
  - {verb: poison, as: bad, dataset: digits, rate: 0.05, train: true, recipe: "plain:epochs=1"}
  - {verb: evaluate, model: [net, bad], dataset: digits, limit: 20}
  - {verb: evaluate, model: bad, dataset: bad, limit: 20}
"""


def swept(text: str, out: Path, **how: Any) -> Swept:
    file = out.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    return run_sweep(read_plan(file), out, **how)


def found(out: Path) -> dict[str, bytes]:
    """Return what must not vary: records, table, and the files that were made."""
    files = [one for part in ("models", "exports") for one in (out / part).rglob("*")]
    made = {str(one.relative_to(out)): one.read_bytes() for one in files if one.is_file()}
    return made | {"records": RunFolder.open(out).metrics().encode()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Return the sweep that one process did."""
    return swept(SWEEP, tmp_path_factory.mktemp("makers") / "one")


def test_what_a_cell_makes_is_stored_and_used_by_whoever_does_the_next(
    whole: Swept, tmp_path: Path
) -> None:
    two = swept(SWEEP, tmp_path / "two", workers=2)
    assert (whole.cells, whole.done, two.done) == (7, 7, 7)
    assert found(whole.run) == found(two.run)
    models = {path.name for path in (whole.run / "models").rglob("*.safetensors")}
    assert models == {"net.safetensors", "model.safetensors"}
    assert verify(two.run).verdict == "pass"
    assert swept(SWEEP, two.run).before == 7


def test_a_mean_is_over_the_trainings_of_one_recipe(whole: Swept) -> None:
    metric = read_table(whole.run).metrics["clean_accuracy"]
    assert "model.seed" in metric.values and "model.seed" not in metric.names
    records = {key: group.number.records for key, group in metric.by("model").items()}
    assert len(records["net",]) == 2


def test_a_cell_that_uses_a_made_model_is_replayed_from_the_folder(whole: Swept) -> None:
    lines = whole.table.read_text("utf-8").splitlines()
    line = next(one for one in lines if one.startswith("evaluate,bad,bad"))
    assert replay(whole.run, line.rpartition(",")[2]).agrees
    trained = next(one for one in lines if one.startswith("train,"))
    assert replay(whole.run, trained.rpartition(",")[2]).agrees


def test_a_made_file_that_is_damaged_is_made_again_alone(whole: Swept, tmp_path: Path) -> None:
    out = swept(SWEEP, tmp_path / "out").run
    before = found(out)
    weights = next((out / "models").rglob("net.safetensors"))
    weights.write_bytes(b"damaged")
    again = swept(SWEEP, out)
    assert (again.before, again.done) == (6, 7)
    assert found(out) == before == found(whole.run)


def test_what_needs_a_cell_that_failed_fails_with_it_and_others_go_on(tmp_path: Path) -> None:
    broken = SWEEP.replace('"plain:epochs=1", seed: [0, 1]', '"plain:learning_rate=1e30", seed: 0')
    told: list[str] = []
    done = swept(broken, tmp_path / "out", told=told.append)
    assert (done.cells, done.done) == (5, 3)
    first, second = done.failures
    assert (first.what, first.needs) == ("train", "")
    assert (second.what, second.needs) == ("evaluate model=net", "train")
    kept = [one for one in RunFolder.open(done.run).records() if isinstance(one, Failure)]
    assert kept == list(done.failures) and len(told) >= 2
    fixed = swept(SWEEP, done.run)
    assert (fixed.before, fixed.done, fixed.failures) == (3, 7, ())


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("as: bad", "as: net", "there is one of that name already"),
        ("as: bad", "as: standard", "there is one of that name already"),
        ("as: bad", "as: 3", "as = 3: must be letters"),
        ("verb: evaluate, model: bad", "verb: evaluate, as: it, model: bad", "makes nothing"),
        (" train: true,", "", "model = 'bad': it makes not a model; say train: true there"),
        ("dataset: bad", "dataset: net", "dataset = 'net': it makes not images"),
        ("seed: [0, 1]}", "seed: [0, 1], budget: 3}", "unknown option 'budget'"),
    ],
)
def test_names_that_mean_nothing_are_refused(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_plan(file)


def test_a_name_that_stands_twice_is_the_same_cell_in_both_places(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.replace("rate: 0.05", "rate: [0.05, 0.1]"), encoding="utf-8")
    last = [cell for cell in read_plan(file).cells if cell.block == 3]
    assert len(last) == 2 == len(read_plan(file).blocks[3])
    assert all(cell.uses["model"] is cell.uses["images"] for cell in last)
    assert last[1].what == "evaluate model=bad(rate=0.1) images=bad(rate=0.1)"


def test_what_a_card_names_is_no_path_of_this_machine(whole: Swept) -> None:
    for card in (whole.run / "models").rglob("*.json"):
        assert "/tmp" not in card.read_text("utf-8")  # noqa: S108 - where cells are done
    asked = json.loads((whole.run / "run.json").read_text("utf-8"))["artefacts"]
    assert all(not Path(name).is_absolute() for name in asked)


def test_a_model_that_a_cell_made_is_used_on_images_of_another_shape_than_the_default_takes(
    tmp_path: Path,
) -> None:
    images = '"drawn_shapes:classes=2,images=40,size=16"'
    text = f"""
    cells:
      - {{verb: train, as: net, dataset: {images}, arch: small_cnn, epochs: 1}}
      - {{verb: evaluate, model: net, dataset: {images}, limit: 8}}
    """
    assert swept(text, tmp_path / "out").done == 2


def test_a_name_that_is_used_before_its_entry_is_told_where_it_is_made(tmp_path: Path) -> None:
    used, makes = "{verb: evaluate, model: net}", "{verb: train, as: net, recipe: plain}"
    with pytest.raises(ConfigError, match=r"'net'.*; cells\[1\] makes 'net' .* before cells\[0\]"):
        swept(f"cells: [{used}, {makes}]", tmp_path / "out")


def test_what_was_made_by_a_stopped_sweep_and_is_gone_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        """Does the second job, and is stopped before the first has ended."""

        def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
            yield do(jobs[1])
            raise KeyboardInterrupt

        def close(self) -> None:
            """Nothing was started."""

    monkeypatch.setitem(ENGINES._items, "stopped", lambda **_: Stopped())
    trains = "{verb: train, as: net, dataset: digits, recipe: 'plain:epochs=1', seed: [0, 1]}"
    with pytest.raises(KeyboardInterrupt):
        swept(f"cells: [{trains}]", tmp_path / "out", engine="stopped")
    (made,) = (tmp_path / "out").rglob("net.safetensors")
    made.unlink()
    again = swept(f"cells: [{trains}]", tmp_path / "out")
    assert (again.before, again.done, made.exists()) == (0, 2, True)
