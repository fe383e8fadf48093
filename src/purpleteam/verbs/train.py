"""train: a classifier of your own, from a dataset."""

from dataclasses import replace
from typing import Annotated, Any, Unpack

from purpleteam.verbs.options import Arch, Budget, Doing, Epochs, Images
from purpleteam.verbs.trained import Trained, check_arch, part, seconds_of, train_and_store
from purpleteam.verbs.verb import verb


@verb()
def train(
    images: Images = "digits",
    labels: Any = None,
    *,
    arch: Arch = None,
    recipe: Annotated[Any, "Recipe NAME[:field=value,...]; see purple ls."] = "accurate",
    share: Annotated[
        float | None,
        "Learn a random fraction of the training images, by the seed: 0.5 makes a shadow model.",
    ] = None,
    epochs: Epochs = None,
    budget: Budget = None,
    name: str | None = None,
    **given: Unpack[Doing],
) -> Trained:
    """Train a classifier and store it: weights, ONNX and card.

    Stopped, it goes on after its last whole epoch when the same command is typed again.
    """
    from purpleteam.models.architectures import usual_architecture
    from purpleteam.models.recipes import RECIPES
    from purpleteam.verbs._subject import open_subject
    from purpleteam.verbs.outputs import stem_to_write

    check_arch(arch)
    plan, seconds = part(RECIPES, recipe, "recipe", epochs=epochs), seconds_of(budget)
    subject = open_subject(images, labels, training=True, **given)
    arch = arch or usual_architecture(subject.shape)
    more: dict[str, Any] = {}
    if share is not None:
        whole = subject.dataset.train
        dataset = replace(subject.dataset, train=whole.share(share, subject.seed))
        dataset.check_trainable()
        subject = replace(subject, dataset=dataset)
        more = {"share": share, "drawn_from": whole.digest}
    subject.net(arch)  # what cannot be built is refused before anything is written
    stem = stem_to_write(given["out"], f"{subject.dataset.name}-{plan.name}")
    return train_and_store(
        subject, stem, arch, plan, "baseline", name=name, seconds=seconds, **more
    )
