"""Evidence: which of several records is the one that counts."""

from __future__ import annotations

from pathlib import Path

from purpleteam.core.records import Measurement
from purpleteam.core.schema import Role, model_note
from purpleteam.core.statistics import Rate
from purpleteam.report.chapters.closing import gaps
from purpleteam.report.collect import Evidence, model_name
from report_records import measured


def robust(
    survived: int, attack: str, epsilon: float = 0.3, model: str = "m", **how: object
) -> Measurement:
    facts = {"attack": attack, "epsilon": epsilon, "norm": "linf", **how}
    return measured("robust_accuracy", Rate.of(survived, 100), model, facts)


def evidence(*records: Measurement) -> Evidence:
    return Evidence(Path(), {}, records)


def test_the_strongest_attack_counts() -> None:
    found = evidence(robust(40, "fgsm"), robust(3, "pgd"), robust(9, "pgd", 0.1)).weakest("m", 0.3)
    assert found is not None and found.value.value == 0.03


def test_a_transferred_attack_is_no_white_box_attack() -> None:
    assert evidence(robust(40, "fgsm", knowledge="transfer")).weakest("m", 0.3) is None


def test_another_norm_is_another_question() -> None:
    assert evidence(robust(40, "pgd", norm="l2")).weakest("m", 0.3) is None


def test_the_headline_radius_is_where_most_models_were_attacked() -> None:
    records = (robust(1, "pgd", 0.1), robust(1, "pgd", 0.1, "n"), robust(1, "pgd", 0.3))
    assert evidence(*records).headline_epsilon == 0.1


def test_the_headline_is_found_at_a_radius_that_no_decimal_number_is() -> None:
    found = evidence(robust(40, "fgsm", 8 / 255), robust(3, "pgd", 8 / 255))
    weakest = found.weakest("m", found.headline_epsilon)
    assert weakest is not None and weakest.value.value == 0.03
    assert found.best("robust_accuracy", "m", attack="fgsm", epsilon=found.headline_epsilon)


def test_a_command_to_type_says_of_a_brought_model_what_was_said_of_it() -> None:
    asked = {"models": {"use": "net:make", "normalise": "imagenet", "classes": "a cat,b"}}
    found = Evidence(Path(), {"asked": {"dataset": "d", **asked}}, [robust(1, "pgd", 8 / 255)])
    assert found.typed == ("net:make --normalise imagenet --classes 'a cat,b'", "d")
    told = [how for _, how in gaps(found) if "certify" in how]
    assert told[0].endswith("--classes 'a cat,b' --dataset d --epsilon 8/255")


def test_models_come_in_the_order_of_their_parts_whatever_they_are_called() -> None:
    parts: dict[str, Role] = {
        "zebra": "hardened",
        "hardened": "served",
        "x": "brought",
        "y": "baseline",
    }
    measurements = [measured("clean_accuracy", Rate.of(1, 2), name) for name in parts]
    notes = [
        model_note(one.subject["model"], name, role)
        for one, (name, role) in zip(measurements, parts.items(), strict=True)
    ]
    found = Evidence(Path(), {"schema": 2}, [*measurements, *notes])
    assert found.models == ["y", "x", "zebra", "hardened"]
    assert found.at_hand == "y" and found.models_of("hardened") == ["zebra"]


def test_a_record_written_twice_counts_once() -> None:
    one = robust(1, "pgd")
    assert [model_name(found) for found in evidence(one, one).measurements] == ["m"]


def backdoor(name: str, hits: int, model: str, seed: int) -> Measurement:
    how = {"target_label": 7}
    return measured(
        name, Rate.of(hits, 100), model, how if name != "clean_accuracy" else {}, seed=seed
    )


def test_a_backdoor_stands_beside_the_numbers_of_its_own_seed() -> None:
    names = ("attack_success_rate", "clean_accuracy", "base_rate")
    records = [backdoor(name, seed, "m", seed) for seed in (3, 4) for name in names]
    clean, base = evidence(*records).around(records[3])
    assert clean is records[4] and base is records[5]


def test_of_equally_strong_attacks_the_longer_one_is_named() -> None:
    found = evidence(robust(0, "fgsm", steps=1), robust(0, "pgd", steps=40)).weakest("m", 0.3)
    assert found is not None and found.how["attack"] == "pgd"


def test_the_widest_evaluation_by_an_attack_stands_for_it() -> None:
    few = robust(3, "pgd")
    many = measured("robust_accuracy", Rate.of(500, 1000), "m", dict(few.how))
    assert evidence(few, many).weakest("m", 0.3) is many
