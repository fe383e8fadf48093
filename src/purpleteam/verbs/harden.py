"""harden: train a model that is harder to break; `attack` says how much harder."""

from typing import Annotated, Any, Unpack

from purpleteam.verbs.options import ARCH, Beside, Budget, Epochs, Images, Model
from purpleteam.verbs.trained import Trained, check_arch, part, seconds_of, train_and_store
from purpleteam.verbs.verb import verb


@verb()
def harden(
    images: Images = "digits",
    labels: Any = None,
    *,
    recipe: Annotated[
        Any, "Defence NAME[:field=value,...]: pgd, trades, dp_sgd, ...; see purple ls."
    ] = "pgd",
    epsilon: Annotated[
        float | None, "Radius that is trained for, such as 8/255; of dp_sgd the privacy budget."
    ] = None,
    model: Model = None,
    arch: Annotated[str | None, ARCH] = None,
    epochs: Epochs = None,
    budget: Budget = None,
    name: str | None = None,
    **given: Unpack[Beside],
) -> Trained:
    """Train a model by adversarial training and store it; attack it with purple attack.

    With --recipe dp_sgd it is trained with differential privacy instead, best with --arch
    scattering: the fewer weights, the less the noise harms.

    Args:
        arch: the net that is trained, from weights drawn anew; by default `model` where that is a
            `module:factory`, else the usual one for images of this size.
        model: the undefended model, for a defence that attacks one beforehand, and for code of
            the user's own that wants the same input; of a factory the net is what is trained.
    """
    from purpleteam.core.factory import is_factory
    from purpleteam.defences import DEFENCES
    from purpleteam.models.architectures import usual_architecture
    from purpleteam.verbs._subject import code_of, open_subject
    from purpleteam.verbs.outputs import stem_to_write

    if arch is None and isinstance(model, str) and is_factory(model):
        arch = model
    check_arch(arch)
    plan = part(DEFENCES, recipe, "recipe", epochs=epochs, epsilon=epsilon)
    seconds, code = seconds_of(budget), code_of(arch, model)
    subject = open_subject(images, labels, model=model, arch=code, training=True, **given)
    arch = arch or usual_architecture(subject.shape)
    subject.net(arch)
    stem = stem_to_write(given["out"], f"{subject.dataset.name}-{plan.name}")
    return train_and_store(subject, stem, arch, plan, "hardened", name=name, seconds=seconds)
