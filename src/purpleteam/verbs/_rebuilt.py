"""Images rebuilt from a subject's model, judged, shown, and their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from purpleteam.core.records import Measurement, Record
from purpleteam.data.images import ImageSet
from purpleteam.models.architectures import usual_architecture
from purpleteam.models.devices import frozen
from purpleteam.models.recipes import RECIPES
from purpleteam.privacy.inversion import Inversion, Rebuilt
from purpleteam.privacy.inversion.judge import Judge, Judged
from purpleteam.verbs._learned import Training, spelled
from purpleteam.verbs._subject import Subject

IMAGES = 20  # rebuilt images: the test of a leak needs some
JUDGE_LEARNS = 10_000  # training images at most
APART = 1000  # what is added to the seed of the net that judges


def rebuilt(
    subject: Subject, inversions: Sequence[Inversion], learned: ImageSet, others: ImageSet
) -> tuple[list[dict[str, Any]], list[Record]]:
    """Return what each attack rebuilds, judged, and the records."""
    pool = subject.dataset.validation if len(subject.dataset.validation) else others
    known = np.intersect1d(learned.labels, others.labels).tolist()  # what can be compared
    classes = [known[n % len(known)] for n in range(IMAGES)]
    judged_by = Judge(by=_judge(subject), learned=learned, others=others, seed=subject.seed)
    told, records = list[dict[str, Any]](), list[Record]()
    with subject.progress.task("inversion", len(inversions)) as task:
        for attack in inversions:
            with frozen(subject.loaded.module) as net:
                made = attack.rebuild(net, classes, pool=pool, seed=subject.seed)
            judged = judged_by(made)
            facts = {"attack": attack.name, "prior": attack.prior, "queries": made.queries}
            told.append(facts | judged.to_json())
            measured = Measurement(
                name="rebuilt_recognised",
                value=judged.recognised,
                subject=subject.about(training_set=learned.digest),
                how={"attack": spelled(attack), "prior": attack.prior, "queries": made.queries},
                detail={k: v for k, v in judged.to_json().items() if k != "recognised"},
                seed=subject.seed,
            )
            records += [measured, *_shown(subject, attack, made, judged, learned, measured.id)]
            task.advance(1)
    return told, records


def _judge(subject: Subject) -> nn.Module:
    """Return a net that was trained apart from the model."""
    training = Training(usual_architecture(subject.shape), RECIPES["plain"]())
    bare = replace(subject, model=None)
    images = subject.dataset.train.first(JUDGE_LEARNS)
    return training.train(bare, images, subject.seed + APART, "a net that judges")


def _shown(
    subject: Subject,
    attack: Inversion,
    made: Rebuilt,
    judged: Judged,
    learned: ImageSet,
    made_by: str,
) -> list[Record]:
    """Show the first image of each class above the nearest training image."""
    if (run := subject.run) is None:
        return []
    from purpleteam.verbs._pictures import Picture, gallery

    names, pictures = subject.dataset.classes, list[Picture]()
    for place in range(min(len(names), len(made.images), IMAGES // 2)):
        name = names[int(made.images.labels[place])]
        nearest = judged.nearest[place]
        pictures += [
            (f"{made_by}-{place}", np.array(made.images.images[place]), f"rebuilt: {name}"),
            (f"{made_by}-{place}-near", np.array(learned.images[nearest]), "nearest learned"),
        ]
    title = f"{subject.loaded.name}: rebuilt by {spelled(attack)}: {judged.verdict}"
    return gallery(run, "rebuilt", title, pictures, made_by=made_by)
