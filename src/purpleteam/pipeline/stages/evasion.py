"""Stage attacks, first part: how far test images must move before a model errs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.evaluate import curve, evaluate
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.journal import Journal
from purpleteam.attacks.outcomes import RobustEvaluation
from purpleteam.attacks.peers import peer_attack
from purpleteam.attacks.soundness import soundness_of
from purpleteam.core.config import build, parse_part
from purpleteam.core.errors import ConfigError, unknown
from purpleteam.core.records import Artefact, Note, Record
from purpleteam.models.inference import logits
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline
from purpleteam.pipeline.stages.pictures import Picture, as_picture, gallery, signed_picture
from purpleteam.pipeline.work import Piece, Work

__all__ = ["attack_baseline", "attack_from", "each_attack", "l2_attack", "over_epsilon", "shown"]

LOOKED_AT = 100
"""Images that the check on an evaluation looks at: a run makes many evaluations."""


def attack_baseline(work: Work) -> Iterator[Piece]:
    """Attack the undefended model: each attack by itself, the curve, L2, and a gallery."""
    model = baseline(work)
    asked = work.config.evasion
    yield from each_attack(work, "attacks", model, "baseline", asked.epsilon)
    yield Piece("curve baseline", partial(over_epsilon, work, "attacks", model, "baseline"))
    yield l2_attack(work, "attacks", model, "baseline")
    yield Piece("gallery baseline", partial(shown, work, "attacks", model, "baseline"))


def each_attack(
    work: Work, stage: str, model: LoadedModel, name: str, epsilon: float
) -> Iterator[Piece]:
    """Yield every attack that is asked for, each by itself, at one radius."""
    for text in work.config.evasion.attacks:

        def attack(text: str = text) -> list[Record]:
            asked = attack_from(text, epsilon=epsilon)
            return attacked(work, stage, model, name, asked, limit=work.config.evasion.limit)

        yield Piece(f"{text} on {name}, epsilon {epsilon:g}", attack)


def l2_attack(work: Work, stage: str, model: LoadedModel, name: str) -> Piece:
    """Return the one attack in L2."""
    asked = work.config.evasion
    attack = PGD(norm="l2", epsilon=asked.l2_epsilon)
    limit = asked.curve_images
    return Piece(
        f"pgd in l2 on {name}", partial(attacked, work, stage, model, name, attack, limit=limit)
    )


def attack_from(
    text: str, *, epsilon: float | None = None, norm: str | None = None
) -> EvasionAttack:
    """Return the attack that `name:field=value,...` means; its own fields win.

    `foolbox:LinfPGD:steps=20` is another library's.
    """
    name, values = parse_part(text)
    given = {"epsilon": epsilon, "norm": norm}
    defaults = {key: value for key, value in given.items() if value is not None}
    kind = peer_attack(name) if ":" in name else ATTACKS[name]
    asked = (defaults | values).get("norm", kind.norm)
    if asked not in kind.norms:  # the type alone would offer those of other attacks
        raise ConfigError(f"attack {name}: {unknown('norm', asked, kind.norms)}")
    return build(kind, defaults | values, f"attack {name}")


def attacked(
    work: Work,
    stage: str,
    model: LoadedModel,
    name: str,
    attack: EvasionAttack,
    *,
    limit: int | None = None,
) -> list[Record]:
    """Measure robust accuracy under one attack, with its soundness, as one cell."""
    images = work.dataset.test.first(limit)
    seed = work.config.seed
    depends_on = {
        "attack": {"name": attack.name, **asdict(attack)},
        "model": model.digest,
        "limit": limit,
        "seed": seed,
    }

    def measure() -> list[Record]:
        journal = Journal.of(depends_on, work.run.path / "under-way")
        found = evaluate(
            model.module,
            images,
            attack,
            seed=seed,
            fit_on=work.dataset.validation,
            journal=journal,
            progress=work.progress,
        )
        sound = soundness_of(
            model.module, images, [attack], [found], seed=seed, looked_at=LOOKED_AT
        )
        found = found.counting(sound.breaks)
        record = found.measurement(
            work.subject(model, name, limit=limit), seed=seed, detail={"soundness": sound.to_json()}
        )
        file = f"{name}-{attack.name}-{attack.norm}-{attack.epsilon:g}.npz"
        path = work.run.path / "outcomes" / file
        found.save_outcomes(path)
        journal.remove()
        return [record, work.run.artefact(path, record.id)]

    return work.cell(stage, f"attack {name}", depends_on, measure)


def over_epsilon(work: Work, stage: str, model: LoadedModel, name: str) -> list[Record]:
    """Measure robust accuracy under PGD at each radius of the curve, as one cell."""
    asked = work.config.evasion
    images = work.dataset.test.first(asked.curve_images)
    seed = work.config.seed
    attacks = [PGD(steps=40)]
    depends_on = {
        "curve": list(asked.curve),
        "attacks": [asdict(one) for one in attacks],
        "model": model.digest,
        "limit": asked.curve_images,
        "seed": seed,
    }

    def measure() -> list[Record]:
        points = curve(
            model.module, images, attacks, asked.curve, seed=seed, progress=work.progress
        )
        last = [replace(attacks[0], epsilon=max(points))]
        found = list(points.values())
        sound = soundness_of(model.module, images, last, found, seed=seed, looked_at=LOOKED_AT)
        subject = work.subject(model, name, limit=asked.curve_images)
        detail = {"soundness": sound.to_json()}
        return [
            one.counting(sound.breaks).measurement(subject, seed=seed, detail=detail, curve=True)
            for one in points.values()
        ]

    return work.cell(stage, f"curve {name}", depends_on, measure) if asked.curve else []


def shown(work: Work, stage: str, model: LoadedModel, name: str, count: int = 6) -> list[Record]:
    """Show clean images, what was added, and what the model then reads, as one cell."""
    epsilon, seed = work.config.evasion.epsilon, work.config.seed
    attack = PGD(epsilon=epsilon, steps=40)

    def look() -> Sequence[Note | Artefact]:
        images = work.dataset.test.first(40)
        found = evaluate(model.module, images, attack, seed=seed)
        title = f"{name}: clean, perturbation, adversarial (PGD, epsilon {epsilon:g} in linf)"
        chosen = np.flatnonzero(found.clean_correct)[:count]
        return gallery(
            work.run,
            "evasion",
            title,
            _triples(work, model, found, name, chosen) if len(chosen) else [],
            none=f"The model reads none of the first {len(images)} images rightly: there is "
            "nothing to lead astray.",
        )

    return work.cell(stage, f"gallery {name}", {"model": model.digest, "seed": seed}, look)


def _triples(
    work: Work, model: LoadedModel, found: RobustEvaluation, name: str, chosen: NDArray[np.intp]
) -> list[Picture]:
    images = work.dataset.test.take(chosen)
    x_adv = found.x_adv[chosen]
    read = logits(model.module, as_picture(x_adv)).argmax(1)
    pictures: list[Picture] = []
    for number, (clean, label) in enumerate(zip(images.images, images.labels, strict=True)):
        stem = f"{name}-{number}"
        perturbation = x_adv[number] - clean / np.float32(255)
        true, now = work.dataset.classes[int(label)], work.dataset.classes[int(read[number])]
        pictures += [
            (f"{stem}-clean", np.array(clean), f"a {true}"),
            (
                f"{stem}-perturbation",
                signed_picture(perturbation, found.attacks[0].epsilon),
                "added",
            ),
            (f"{stem}-adversarial", as_picture(x_adv[number]), f"read as {now}"),
        ]
    return pictures
