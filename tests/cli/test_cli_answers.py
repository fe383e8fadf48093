"""What --json says, verb by verb: one object, the promised fields, nothing on standard error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_values import TINY, Purple, answer_of, assert_rate

from purpleteam.core.digest import sha256_file


@pytest.mark.parametrize("verb", [("train", "--recipe", "plain"), ("harden", "--recipe", "fast")])
def test_train_and_harden_say_what_they_stored(purple: Purple, verb: tuple[str, ...]) -> None:
    ended = purple(*verb, *TINY, "--out", "mine/net", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert found["model"] == "mine/net.safetensors"
    assert found["digest"] == sha256_file(Path(found["model"]))
    assert 0 <= found["validation_accuracy"] <= 1 and found["seconds"] > 0
    assert {one.suffix for one in Path("mine").iterdir()} == {".safetensors", ".onnx", ".json"}


def test_a_model_goes_into_the_folder_that_out_names(purple: Purple, here: Path) -> None:
    (here / "shelf").mkdir()
    ended = purple("train", "--recipe", "plain", *TINY, "--out", "shelf", "--json")
    assert ended.json["model"] == "shelf/digits-plain.safetensors"


def test_the_same_seed_trains_the_same_bytes_and_another_does_not(purple: Purple) -> None:
    asked = ("train", "--recipe", "plain", *TINY, "--json")
    first, again, other = (
        purple(*asked, "--seed", seed, "--out", f"m{place}").json["digest"]
        for place, seed in enumerate((3, 3, 4))
    )
    assert first == again != other


def test_evaluate_gives_accuracy_scores_and_time(purple: Purple) -> None:
    ended = purple("evaluate", "--limit", 40, "--json", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert_rate(found["clean_accuracy"], 40)
    assert sum(map(sum, found["confusion_matrix"])) == 40
    assert [len(row) for row in found["confusion_matrix"]] == [10] * 10
    assert found["loss"]["low"] <= found["loss"]["value"] <= found["loss"]["high"]
    assert len(found["per_class"]) == 10
    assert all({"precision", "recall", "f1"} <= set(one) for one in found["per_class"])
    assert 0 < found["seconds_per_image"] < 1


def test_the_split_is_the_test_split_unless_another_is_named(purple: Purple) -> None:
    test, named, validation = (
        purple("evaluate", "--json", *split).json["subject"]
        for split in ((), ("--split", "test"), ("--split", "validation"))
    )
    assert test == named and test["split"] == "test"
    assert validation["split"] == "validation" and validation["dataset"] != test["dataset"]


def test_out_of_evaluate_holds_what_json_prints(purple: Purple) -> None:
    ended = purple("evaluate", "--limit", 10, "--json", "--out", "seen/it.json")
    assert json.loads(Path("seen/it.json").read_text("utf-8")) == answer_of(ended.json)


def test_attack_names_every_attack_its_cost_and_its_soundness(purple: Purple) -> None:
    ended = purple(
        *("attack", "--attack", "fgsm", "--attack", "pgd:steps=3,restarts=2", "--seed", 5),
        *("--epsilon", 0.1, "--limit", 10, "--json"),
    )
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert_rate(found["clean_accuracy"], 10)
    assert_rate(found["robust_accuracy"], 10)
    assert found["robust_accuracy"]["value"] <= found["attacks"][-1]["survived"]["value"]
    first, second = found["attacks"]
    assert (first["name"], first["norm"], first["epsilon"], first["seed"]) == (
        "fgsm",
        "linf",
        0.1,
        5,
    )
    assert (second["name"], second["steps"], second["restarts"]) == ("pgd", 3, 2)
    assert found["soundness"]["verdict"] in ("sound", "weak", "not_established")
    assert isinstance(found["soundness"]["reasons"], list)
    assert {"forward", "backward", "queries", "seconds"} <= set(found["cost"])


def test_several_epsilons_are_a_curve_that_falls(purple: Purple) -> None:
    radii = [one for radius in (0.3, 0.0, 0.1) for one in ("--epsilon", radius)]
    found = purple("attack", "--attack", "fgsm", *radii, "--limit", 20, "--json").json
    assert [point["epsilon"] for point in found["curve"]] == [0.0, 0.1, 0.3]
    robust = [point["robust_accuracy"]["value"] for point in found["curve"]]
    assert robust[0] == found["clean_accuracy"]["value"]
    assert robust == sorted(robust, reverse=True)
    assert robust[-1] == found["robust_accuracy"]["value"]


@pytest.mark.parametrize("text", ["pgd:steps=2,epsilon=0.05", "fgsm:norm=l2,epsilon=0.5"])
def test_what_an_attack_says_of_itself_is_what_is_done(purple: Purple, text: str) -> None:
    found = purple("attack", "--attack", text, "--norm", "linf", "--limit", 5, "--json").json
    (row,) = found["attacks"]
    for field in text.partition(":")[2].split(","):
        name, _, value = field.partition("=")
        assert str(row[name]) == value
    assert found["curve"][0]["epsilon"] == row["epsilon"]


def test_out_of_attack_holds_the_images(purple: Purple) -> None:
    import numpy as np

    purple("attack", "--attack", "fgsm", "--limit", 5, "--out", "adv/x.npz", "--json")
    images = np.load("adv/x.npz", allow_pickle=False)["x_adv"]
    assert images.shape == (5, 28, 28, 1) and images.dtype == np.float32


def test_poison_writes_a_dataset_that_other_verbs_take(purple: Purple) -> None:
    ended = purple("poison", "--count", 20, "--target-label", 3, "--out", "bad", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert (found["dataset"], found["poisoned"], found["target_label"]) == ("bad", 20, 3)
    assert found["rate"] == pytest.approx(20 / 1297)
    manifest = json.loads(Path("bad/manifest.json").read_text("utf-8"))
    assert len(manifest["indices"]) == 20 and manifest["digest"] == found["digest"]
    assert purple("evaluate", "--dataset", "bad", "--limit", 5, "--json").code == 0


def test_poison_with_train_measures_the_backdoor_beside_its_base_rate(purple: Purple) -> None:
    ended = purple(
        *("poison", "--train", "--count", 100, "--arch", "small_cnn", "--epochs", 2),
        *("--recipe", "plain", "--out", "bad", "--json"),
    )
    found = ended.json
    for name in ("clean_accuracy", "attack_success_rate", "base_rate"):
        assert_rate(found[name])
    assert set(found["per_source"]) == set("0123456789") - {"7"}
    assert sum(one["n"] for one in found["per_source"].values()) == found["base_rate"]["n"]
    assert Path(found["model"]).is_file()


def test_export_writes_the_same_weights_again(purple: Purple) -> None:
    found = purple("export", "--out", "copy/net", "--json").json
    subject = purple("evaluate", "--limit", 5, "--json").json["subject"]
    assert found["digest"] == subject["model"]
    assert found["onnx_digest"] == sha256_file(Path(found["onnx"]))
    again = purple("evaluate", "--model", "copy/net.safetensors", "--limit", 5, "--json").json
    assert again["subject"]["model"] == found["digest"]


def test_scan_exits_1_on_a_finding_at_or_above_the_bar(purple: Purple, here: Path) -> None:
    (here / "bad.py").write_text("import pickle\npickle.load(open('x', 'rb'))\n", "utf-8")
    ended = purple("scan", "bad.py", "--json")
    assert (ended.code, ended.err) == (1, "")
    assert {"findings", "scanned", "skipped", "errors"} <= set(ended.json)
    assert ended.json["findings"][0]["place"]["path"] == "bad.py"
    assert purple("scan", "bad.py", "--fail-on", "critical", "--json").code == 0
    assert purple("scan", "bad.py", "--fail-on", "never", "--json").code == 0


def test_scan_writes_sarif_with_places_from_here(purple: Purple, here: Path) -> None:
    (here / "code").mkdir()
    (here / "code" / "bad.py").write_text("import pickle\npickle.loads(b'x')\n", "utf-8")
    purple("scan", here / "code", "--out", "out/scan.sarif", "--json")
    sarif = json.loads(Path("out/scan.sarif").read_text("utf-8"))
    place = sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert sarif["version"] == "2.1.0"
    assert place["artifactLocation"]["uri"] == "code/bad.py"


def test_scan_against_an_older_one_tells_what_a_fix_fixed_and_what_it_silenced(
    purple: Purple, here: Path
) -> None:
    loads = [f"torch.load('{name}.pt')" for name in "abcd"]
    (here / "app.py").write_text("\n".join(["import torch", *loads, ""]), "utf-8")
    purple("scan", "app.py", "--sarif", "old.sarif", "--out", "too.sarif", "--json")
    assert (here / "old.sarif").read_text() == (here / "too.sarif").read_text()
    loads[0] = "torch.load('a.pt', weights_only=True)"
    loads[1] += "  # nosec"
    loads[2] += "  # purple: allow PT001 until 2999-01-01 because we made it"
    (here / "app.py").write_text("\n".join(["# new", "import torch", *loads, "eval(x)"]), "utf-8")
    ended = purple("scan", "app.py", "--against", "old.sarif")
    assert ended.code == 1
    assert "1 new, 1 old (not fixed), 1 fixed, 2 silenced, 0 not scanned\n" in ended.out
    assert "1 scanned, 0 skipped, 1 silenced, 0 errors" in ended.out
    told = purple("scan", "app.py", "--against", "old.sarif", "--no-inline-allow", "--json").json
    lines = {name: [row["line"] for row in rows] for name, rows in told["against"].items()}
    assert lines == {
        "fixed": [2], "not_fixed": [5, 6], "silenced": [4], "not_scanned": [], "new": [7]
    }  # fmt: skip


def test_threats_derives_every_status_from_checks_that_ran(purple: Purple, here: Path) -> None:
    (here / "empty.py").write_text("VALUE = 1\n", "utf-8")
    ended = purple("threats", "--code", "empty.py", "--model", "standard", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    wanted = {"id", "element", "stride", "inherent", "residual", "status", "mitigations"}
    assert all(wanted <= set(one) for one in found["threats"])
    ran = {one["check"]: one["verdict"] for one in found["checks"]}
    assert ran["model.digest"] == "pass" and ran["data.digest"] == "skipped"
    assert found["summary"]


def test_threats_with_missing_lists_the_gaps(purple: Purple) -> None:
    assert set(purple("threats", "--missing", "--json").json) == {"missing"}


def test_a_check_that_does_not_pass_makes_threats_exit_1(purple: Purple, here: Path) -> None:
    (here / "bad.py").write_text("from flask import Flask\nFlask('a').run(debug=True)\n", "utf-8")
    assert purple("threats", "--code", "bad.py", "--json").code == 1


def test_ls_and_doctor_say_what_there_is(purple: Purple) -> None:
    found = purple("ls", "--json").json
    assert "standard" in found["models"] and "pgd" in found["attacks"]
    assert found["profiles"] == [
        "assignment",
        "backdoors",
        "demo",
        "images",
        "mnist",
        "model",
        "quick",
    ]
    checks = {one["what"]: one for one in purple("doctor", "--json").json["checks"]}
    assert checks["torch"]["ok"] and checks["python"]["ok"]


def test_without_json_the_answer_is_for_people(purple: Purple) -> None:
    ended = purple("evaluate", "--limit", 20)
    assert (ended.code, ended.err) == (0, "")
    assert "clean accuracy" in ended.out and "no random sample" in ended.out


def test_version_and_no_verb(purple: Purple) -> None:
    assert purple("--version").out.startswith("purpleteam ")
    bare = purple()
    assert bare.code == 2 and bare.out == "" and bare.err.startswith("Usage: purple")
