"""Bad input, as people type it: one line that names the thing and the value, and no traceback."""

from __future__ import annotations

import shlex
import struct
from pathlib import Path

import pytest
from cli_values import Purple

BAD = [
    # verbs and options
    ("frobnicate", "'frobnicate' attack, data, demo"),
    ("evaluat", "'evaluat' 'evaluate'"),
    ("data nosuch", "'nosuch' fetch, verify"),
    ("evaluate --frob", "'--frob' --dataset --model"),
    ("evaluate more", "more"),
    ("evaluate --limit", "--limit"),
    ("scan", "PATH"),
    ("report", "RUN"),
    ("replay runs/x", "RECORD"),
    # numbers
    ("evaluate --limit 0", "--limit 1 0"),
    ("evaluate --limit -3", "--limit -3"),
    ("evaluate --limit ten", "'ten' --limit integer"),
    ("evaluate --seed -1", "'-1' --seed 0"),
    ("evaluate --seed 1e99", "'1e99' --seed"),
    ("evaluate --seed 99999999999999999999", "'99999999999999999999' --seed"),
    ("evaluate --threads 0", "'0' --threads"),
    ("evaluate --threads 99999", "'99999' --threads 256"),
    ("attack --epsilon -1", "epsilon -1"),
    ("attack --epsilon nan", "epsilon nan"),
    ("attack --epsilon inf", "epsilon"),
    ("attack --epsilon 8", "epsilon [0, 1] 8 8/255"),
    ("attack --epsilon abc", "'abc' --epsilon"),
    ("attack --epsilon 1/0", "'1/0' --epsilon"),
    ("attack --epsilon 8/", "'8/' --epsilon 8/255"),
    ("attack --epsilon /255", "'/255' --epsilon"),
    ("attack --epsilon 8/255/2", "'8/255/2' --epsilon"),
    ("attack --epsilon -1/255", "epsilon -0.0039"),
    ("attack --epsilon 8/nan", "'8/nan' --epsilon"),
    ("attack --attack pgd:epsilon=8/0", "epsilon '8/0'"),
    ("attack --attack pgd:step_size=2/", "step_size '2/'"),
    ("run --model http://id:secret@127.0.0.1:9", "'http://127.0.0.1:9' run.json purple attack"),
    ("run --set evasion.epsilon=1/0", "evasion: epsilon '1/0'"),
    ("run --set evasion.curve=[8/255,1/0]", "evasion: curve '1/0'"),
    ("poison --rate 1/0", "'1/0' --rate"),
    ("train --budget 1/0", "'1/0' --budget"),
    ("attack --norm l2 --epsilon nan", "epsilon nan"),
    ("attack --batch-size 0", "'0' --batch-size"),
    ("train --epochs 0", "'0' --epochs"),
    ("train --budget 0", "--budget 0"),
    ("train --budget -1", "--budget -1"),
    ("train --budget nan", "--budget nan"),
    ("harden --epsilon 8", "epsilon 8"),
    ("harden --epsilon nan", "epsilon nan"),
    ("harden --epsilon 0", "epsilon 0"),
    ("poison --count 0", "'0' --count"),
    ("poison --count 99999", "99999 1168"),
    ("poison --target-label 77", "77 0, 1, 2"),
    ("serve --port 99999", "'99999' --port 65535"),
    ("serve --port abc", "'abc' --port"),
    # names
    ("evaluate --model standrd", "'standrd' 'standard'"),
    ("evaluate --model ''", "model '' standard"),
    ("evaluate --dataset minst", "'minst' mnist, digits"),
    ("evaluate --dataset ''", "dataset '' digits"),
    ("evaluate --split tset", "'tset' test, train, validation"),
    ("evaluate --device tpu", "'tpu' auto, cpu, cuda"),
    ("evaluate --device cuda:7", "'cuda:7' cuda"),
    ("attack --attack pdg", "'pdg' 'pgd' fgsm"),
    ("attack --attack ''", "'' fgsm pgd"),
    ("attack --norm linfty", "'linfty' (did you mean 'linf'?); known: l1, l2, linf"),
    ("attack --attack pgd:stepz=3", "'stepz' 'steps' restarts"),
    ("attack --attack pgd:steps=0", "steps 1 0"),
    ("attack --attack pgd:steps=many", "steps 'many'"),
    ("attack --attack pgd:steps", "'steps' field=value"),
    ("attack --attack pgd:step_size=nan", "step_size nan"),
    ("attack --attack pgd:epsilon=0.1 --epsilon 0.2", "'pgd:epsilon=0.1' 0.1 0.2"),
    ("attack --attack pgd --norm linfty", "attack pgd: unknown norm 'linfty' known: l1, l2, linf"),
    ("attack --attack deepfool:norm=linfty", "known: l2, linf"),
    ("attack --attack patch:norm=2", "attack patch: unknown norm '2'; known: l0"),
    ("attack --device gpu", "'gpu' 'cuda' known: auto, cpu, cuda"),
    ("attack --attack pgd --attack fgsm:norm=l2", "'fgsm:norm=l2' l2 linf"),
    ("train --arch resnt", "'resnt' residual_cnn, small_cnn"),
    ("train --recipe acurate", "'acurate' 'accurate' plain"),
    ("train --recipe plain:epochs=0", "epochs 1 0"),
    ("train --recipe plain:learning_rate=nan", "learning_rate nan"),
    ("train --recipe plain:augmentation=flip", "'flip' freehand, none, shift"),
    ("train --recipe plain:schedule=sawtooth", "'sawtooth' 'one_cycle'"),
    ("harden --recipe pdg", "'pdg' 'pgd' fast"),
    ("harden --recipe pgd:steps=0", "steps 1 0"),
    ("harden --recipe pgd:warm_up=-1", "warm_up -1"),
    ("poison --attack badnet", "'badnet' 'badnets' blended"),
    ("poison --attack badnets:sources=all", "'all' 'other' 'target'"),
    ("poison --train --recipe nope", "'nope' accurate, freehand"),
    ("scan text.safetensors --fail-on hgh", "'hgh' high low"),
    ("data fetch cifar", "'cifar' mnist"),
    # files and folders
    ("evaluate --dataset empty", "empty"),
    ("evaluate --dataset text.safetensors", "'text.safetensors' digits"),
    ("evaluate --dataset idx", "idx"),
    ("evaluate --dataset sizes", "8x8 9x9"),
    ("evaluate --dataset noimages", "noimages"),
    ("evaluate --dataset notimages", "a/0.png PNG, JPEG"),
    ("evaluate --model weights.pt", "'weights.pt' purple import weights.pt"),
    ("evaluate --model text.safetensors", "'text.safetensors' text.json purple import"),
    ("evaluate --model net.onnx", "'net.onnx' ONNX Runtime"),
    ("evaluate --model ftp://here", "'ftp://here' http://HOST:PORT"),
    ("evaluate --model empty", "'empty' standard"),
    ("evaluate --model standard --weights text.safetensors", "--weights 'standard'"),
    ("evaluate --dataset colours", "'standard' (1, 28, 28) 'colours' (3, 8, 8)"),
    ("import missing.pt", "'missing.pt'"),
    ("import empty", "'empty'"),
    ("import text.safetensors --arch nope", "'nope' small_cnn"),
    ("import text.safetensors --shape 28x28", "'28x28' 1x28x28"),
    ("import text.safetensors --classes 1", "'1' --classes"),
    ("export", "--out"),
    ("export --model nosuch --out x", "'nosuch' standard"),
    ("export --vnnlib new", "--vnnlib --epsilon 2/255"),
    ("export --verdicts empty", "--verdicts --vnnlib"),
    ("export --vnnlib empty --verdicts empty", "'empty/manifest.json'"),
    ("data verify nosuch", "'nosuch'"),
    ("data verify text.safetensors", "'text.safetensors'"),
    ("scan nosuch", "'nosuch'"),
    ("scan latin.toml --against nosuch.sarif", "'nosuch.sarif' read"),
    ("scan latin.toml --only-new", "--only-new --against"),
    ("scan latin.toml --against latin.toml", "'latin.toml' SARIF --sarif"),
    ("report nosuch", "'nosuch' run.json"),
    ("report empty", "'empty' run.json"),
    ("report torn", "'torn/run.json'"),
    ("report damaged", "damaged/records.jsonl 1"),
    ("replay torn m-1", "'torn/run.json'"),
    ("replay fine m-1", "'m-1' n-"),
    ("threats --run nosuch", "'nosuch'"),
    ("threats --model nosuch", "'nosuch'"),
    ("threats --data nosuch", "--data 'nosuch'"),
    ("threats --code nosuch", "--code 'nosuch'"),
    ("threats --url 8000", "--url '8000' http://127.0.0.1:8000"),
    ("threats --url http://127.0.0.1:1", "'http://127.0.0.1:1' refused"),
    ("serve --model nosuch", "'nosuch' standard"),
    ("serve --model weights.pt", "'weights.pt' purple import"),
    ("serve --host 0.0.0.0", "'0.0.0.0' --allow-remote"),
    # where things are written
    ("train --out text.safetensors/x", "'text.safetensors/x'"),
    ("harden --out text.safetensors/x", "'text.safetensors/x'"),
    ("export --out text.safetensors/x", "'text.safetensors/x'"),
    ("poison --out text.safetensors", "'text.safetensors'"),
    ("attack --out empty", "'empty' folder"),
    ("attack --out /proc/none/x.npz", "'/proc/none/x.npz'"),
    ("evaluate --out empty", "'empty' folder"),
    ("scan latin.toml --out empty", "'empty' folder"),
    ("run --results empty", "'empty' folder"),
    # runs and their configuration
    ("run --profile quik", "'quik' 'quick' demo, mnist"),
    ("run --config nosuch.toml", "'nosuch.toml'"),
    ("run --config latin.toml", "'latin.toml' utf-8"),
    ("run --config broken.toml", "'broken.toml' line 1"),
    ("run --config stranger.toml", "'sed' 'seed' dataset"),
    ("run --config empty", "'empty'"),
    ("run --set seed", "'seed' a.b=value"),
    ("run --set =1", "'=1'"),
    ("run --set sed=1", "'sed' 'seed'"),
    ("run --set seed=abc", "seed 'abc'"),
    ("run --set seed=-1", "seed 0 -1"),
    ("run --set threads=0", "threads 0"),
    ("run --set architecture=nope", "'nope' small_cnn"),
    ("run --set models.recipe=nope", "'nope' plain"),
    ("run --set certify.learner=nope", "'nope' readout"),
    ("run --set certify.parts=99999", "parts 99999 1297"),
    ("run --set models.epochs=0", "models.epochs 1 0"),
    ("run --set models.served=nosuch", "'nosuch' standard"),
    ("run --set models.redrawn=-1", "models.redrawn -1"),
    ("run --set evasion.epsilon=8", "epsilon 8 8/255"),
    ("run --set evasion.epsilon=nan", "epsilon nan"),
    ("run --set evasion.attacks=pgd", "attacks 'pgd'"),
    ("""run --set 'evasion.attacks=["pdg"]'""", "'pdg' 'pgd'"),
    ("run --set evasion.attacks=[]", "evasion.attacks"),
    ("run --set evasion.curve=[8]", "evasion.curve 8"),
    ("run --set evasion.curve_images=0", "evasion.curve_images 0"),
    ("run --set evasion.limit=0", "evasion.limit 0"),
    ("run --set poison.count=0", "poison count 0"),
    ("run --set poison.count=9999", "9999"),
    ("run --set poison.trainings=0", "poison.trainings 0"),
    ("run --set poison.target_label=-1", "target_label -1"),
    ("""run --set 'defences.recipes=["nope"]'""", "'nope' pgd"),
    ("run --set defences.epochs=0", "defences.epochs 0"),
    ("run --set defences.options.pdg.steps=1", "'pdg' 'pgd'"),
    ("run --set defences.options.pgd.steps=0", "pgd steps 0"),
    ("""run --set 'scan.paths=["nosuch"]'""", "scan.paths 'nosuch'"),
    ("run --set threats.system=nosuch.yaml", "'nosuch.yaml'"),
    ("run --dataset nosuch", "'nosuch' digits"),
    ("run --model nosuch", "'nosuch' standard"),
    ("run --model own:net", "own:net --weights"),
    ("run --weights text.safetensors", "'text.safetensors' models.use"),
    ("run --device tpu", "'tpu' auto, cpu"),
    ("run --out fine", "'fine' --resume --out"),
    ("run --out fine --resume", "'fine' another request"),
    ("run --out torn --resume", "'torn/run.json'"),
]


@pytest.fixture(scope="module")
def litter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything that is not what it should be, made once."""
    here = tmp_path_factory.mktemp("littered")
    for name in ("empty", "torn", "damaged", "noimages/a", "noimages/b"):
        (here / name).mkdir(parents=True)
    (here / "text.safetensors").write_text("no tensors", "utf-8")
    (here / "weights.pt").write_bytes(b"PK\x03\x04 and no more")
    (here / "net.onnx").write_bytes(b"\x08\x08")
    (here / "own.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(2, 2)\n")
    (here / "latin.toml").write_bytes(b"dataset = '\xe9'")
    (here / "broken.toml").write_text("seed = = 1", "utf-8")
    (here / "stranger.toml").write_text("sed = 1", "utf-8")
    (here / "torn" / "run.json").write_text("{", "utf-8")
    (here / "damaged" / "run.json").write_text('{"asked": {}}', "utf-8")
    (here / "damaged" / "records.jsonl").write_text('{"kind": "note"}\n', "utf-8")
    _finished_run(here / "fine")
    _truncated_idx(here / "idx")
    _pictures(here / "sizes", {"a": 8, "b": 9})
    _pictures(here / "colours", {"a": 8, "b": 8})
    for name in ("a/0.png", "b/0.png"):
        (here / "notimages" / name).parent.mkdir(parents=True)
        (here / "notimages" / name).write_text("no picture", "utf-8")
    return here


@pytest.fixture
def littered(purple: Purple, litter: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, where `purple` is typed."""
    monkeypatch.chdir(litter)
    return litter


def _finished_run(path: Path) -> None:
    from purpleteam.core.records import Note
    from purpleteam.core.runfolder import RunFolder

    run = RunFolder.create(path, {"dataset": "digits"})
    run.cell("data", {}, lambda: [Note(name="dataset", facts={"name": "digits"})])
    run.finish("finished")


def _truncated_idx(folder: Path) -> None:
    folder.mkdir()
    for part in ("train", "t10k"):
        images, labels = folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"
        images.write_bytes(struct.pack(">IIII", 0x803, 20, 4, 4) + bytes(19 * 16))
        labels.write_bytes(struct.pack(">II", 0x801, 20) + bytes(20))


def _pictures(folder: Path, classes: dict[str, int], count: int = 40) -> None:
    from PIL import Image

    for name, side in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            colour = (number * 6, side, 255 - number)
            Image.new("RGB", (side, side), colour).save(folder / name / f"{number}.png")


@pytest.mark.parametrize(("command", "named"), BAD, ids=[command for command, _ in BAD])
def test_bad_input_is_refused_in_one_line(
    purple: Purple, littered: Path, command: str, named: str
) -> None:
    before = sorted(littered.rglob("*"))
    ended = purple(*shlex.split(command))
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended.err
    assert "Traceback" not in ended.err and "traceback" not in ended.err
    assert [word for word in named.split() if word not in ended.err] == []
    made = {one for one in littered.rglob("*") if "__pycache__" not in one.parts} - {*before}
    assert {one.relative_to(littered).parts[0] for one in made} <= {"models", "data", "runs"}


def test_debug_shows_the_traceback(purple: Purple, here: Path) -> None:
    from purpleteam.cli import main
    from purpleteam.core.errors import UsageError

    with pytest.raises(UsageError, match="nosuch"):
        main(["evaluate", "--dataset", "nosuch", "--debug"])


def test_an_empty_folder_is_no_good_news_from_scan(purple: Purple, here: Path) -> None:
    (here / "empty").mkdir()
    ended = purple("scan", "empty", "--json")
    assert ended.code == 2 and ended.json["errors"]
    assert (
        ended.err.startswith("error: the scan is not whole: empty") and ended.err.count("\n") == 1
    )


def test_a_folder_that_is_not_mnist_is_an_honest_no(purple: Purple, here: Path) -> None:
    (here / "empty").mkdir()
    ended = purple("data", "verify", "empty", "--json")
    assert (ended.code, ended.err) == (1, "")
    assert ended.json["verified"] is False and len(ended.json["files"]) == 4


def test_weights_that_were_exchanged_are_an_honest_no(purple: Purple) -> None:
    purple("export", "--out", "net", "--json")
    content = bytearray(Path("net.safetensors").read_bytes())
    content[-1] ^= 1
    Path("net.safetensors").write_bytes(content)
    ended = purple("evaluate", "--model", "net", "--json")
    assert (ended.code, ended.json["error"]["kind"]) == (1, "Refused")
    assert "net.safetensors" in ended.err and ended.err.count("\n") == 1
