"""What a run is asked: one frozen configuration, from a profile, a file and `--set a.b=c`."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from purpleteam.core.config import build, from_file, merge, override
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.plugins import asked_plugins, folder_of, installed_plugins, load_plugin

ALL_STAGES = ("data", "models", "attacks", "certify", "defences", "scan", "threats", "serve")
"""The stages of a run in the order of the flow; `report` follows whatever was run."""


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """The model under test, and the one that is served."""

    recipe: str = "accurate"  # training recipe of the baseline
    epochs: int | None = None  # epochs, where not the recipe's
    use: str | None = None
    """A model to bring instead of training one: zoo name, stored model or module:factory."""
    weights: str | None = None
    """The file of weights for module:factory: .safetensors, or a .pt state dict."""
    arch: str | None = None  # the code of a stored model whose card names some
    normalise: str | None = None  # what it wants of images in [0, 1], where no card says it
    classes: str | None = None
    """The data's class names in the order of its outputs: a,b,c, or a file of them."""
    served: str | None = None  # the model that the app serves; none, and there is no app
    redrawn: int = 2000  # test digits that are redrawn on a canvas and read again; 0 leaves it out


@dataclass(frozen=True, kw_only=True)
class EvasionConfig:
    """How models are attacked at test time."""

    attacks: tuple[str, ...] = ("fgsm", "pgd:steps=40,restarts=3")
    """Attacks that each model meets, each by itself."""
    epsilon: float | None = None
    """Radius of the L-infinity ball for the numbers of the first page; by default the usual one:
    0.3 for grey images, 8/255 for images in colour."""
    checked: int = 500  # images that the check of each evaluation looks at
    limit: int | None = None
    """How many test images are used, from the first; all of them by default."""
    curve: tuple[float, ...] | None = None
    """Radii of the accuracy-over-epsilon curve under PGD; by default around the usual one."""
    curve_images: int = 1000  # how many test images the curves use, from the first
    l2_epsilon: float | None = None
    """Radius of the L2 ball for one PGD attack on the model at hand and the hardened one."""


@dataclass(frozen=True, kw_only=True)
class PoisonConfig:
    """How the training set is poisoned."""

    attacks: tuple[str, ...] = ()  # poisons that are trained on, each `name[:field=value,...]`
    recipe: str = "plain"
    """Training recipe of the poisoned models and of the clean ones beside them."""
    epochs: int | None = None  # epochs, where not the recipe's
    count: int | None = None
    """Images that are changed; by default 100, or one in 43 of a set with fewer than 4,300."""
    target_label: int = 7
    """Label that the adversary wants; the last before it that has images, where it has none."""
    trainings: int = 3  # trainings of each poison, each beside a clean one of the same seed
    scan: bool = False
    """Look for the first training's backdoor in its model and its training set, told nothing."""


@dataclass(frozen=True, kw_only=True)
class CertifyConfig:
    """What is proved, whatever an adversary within the bound does."""

    changes: tuple[int, ...] = ()
    """So many training images inserted or removed, for Deep Partition Aggregation; none, and
    nothing is trained for it."""
    parts: int | None = None
    """Parts of the training set, each with a network of its own; chosen for its size."""
    learner: str = "readout"  # how a part's network is trained: readout, or networks


@dataclass(frozen=True, kw_only=True)
class DefencesConfig:
    """How models are hardened."""

    recipes: tuple[str, ...] = ()  # training defences, by name
    epochs: int | None = None  # epochs of every recipe, where not its own
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of a recipe by its name, such as {pgd = {steps = 7}}."""


@dataclass(frozen=True, kw_only=True)
class BackdoorsConfig:
    """Backdoors: looked for in what is served, and the lab, where they are planted and removed."""

    own: bool = True  # look for a backdoor in the model at hand
    served: bool = True  # look for one in the served model
    own_training_set: bool = False
    """Look for poisoned images in the training set, with the model at hand."""
    attacks: tuple[str, ...] = ()
    """Poisons, each `name[:field=value,...]`; none, and the lab stays closed."""
    trainings: int = 1
    """Trainings of each poison, each with its own poisoned images, beside one clean model."""
    clean: int = 0
    """Clean models at least, where that is more than the trainings: what the scans say of them."""
    architecture: str | None = None  # of the lab's models, where not the run's
    recipe: str = "plain"  # training recipe of the lab's models, the clean one included
    epochs: int | None = None  # epochs, where not the recipe's
    target_label: int = 7
    """Label that the adversary wants, where an attack does not say; as poison.target_label."""
    trusted: int = 1000
    """How many validation images, from the first, are known to be clean: for scans and repairs."""
    search_training_set: bool = True  # look for the poisoned images in the training set
    rank_detectors: bool = True
    """Let every detector rank the images too, where poison was planted; a search needs none."""
    scan_models: bool = True  # look for a backdoor in each trained model, the clean ones included
    repairs: tuple[str, ...] = ("retrain", "unlearn", "fine_tune", "fine_prune", "ft_sam")
    """Repairs of each backdoored model, those that are known to fail included."""
    plant_again: tuple[int, ...] = (10, 50)
    """So many poisoned images then try to bring the backdoor back into the repaired model."""


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """What is scanned."""

    paths: tuple[str, ...] = ()  # files and folders of code; the installed package by default


@dataclass(frozen=True, kw_only=True)
class ThreatsConfig:
    """Whose threats are derived."""

    system: str | None = None
    """A YAML file with a system of your own; by default the one that the run shows."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, from data to report. Everything that its numbers depend on is in here."""

    dataset: str = "digits"
    stages: tuple[str, ...] = ALL_STAGES  # the stages that are run, whatever their order here
    architecture: str | None = None
    """Of the models that are trained: the brought model's own, else classic_cnn."""
    seed: int = 0
    threads: int = 1
    """torch's threads. Nets this small cost least on one; more help only on an idle machine."""
    processes: int = 1
    """Processes that do the work side by side, on a CPU; the records are the same."""
    device: str = "auto"
    models: ModelsConfig = field(default_factory=ModelsConfig)
    evasion: EvasionConfig = field(default_factory=EvasionConfig)
    poison: PoisonConfig = field(default_factory=PoisonConfig)
    certify: CertifyConfig = field(default_factory=CertifyConfig)
    defences: DefencesConfig = field(default_factory=DefencesConfig)
    backdoors: BackdoorsConfig = field(default_factory=BackdoorsConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    threats: ThreatsConfig = field(default_factory=ThreatsConfig)
    plugins: tuple[str, ...] = ()  # modules, or names of installed plug-ins, that are loaded
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is said to a plug-in, by its name."""


def profiles() -> dict[str, Path]:
    """Return the files for `--profile` by name: Purpleteam's own, and those of plug-ins."""
    folders = [Path(str(resources.files("purpleteam"))) / "pipeline"]
    folders += [folder for name in installed_plugins() if (folder := folder_of(name))]
    paths = [path for folder in folders for path in (folder / "profiles").glob("*.toml")]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def resolve(profile: str | None, file: Path | None, settings: Iterable[str]) -> RunConfig:
    """Return the configuration of a profile, a file over it, and the settings over both."""
    values: dict[str, Any] = {}
    source = "configuration"
    if profile is not None:
        if profile not in (known := profiles()):
            raise UsageError(unknown("profile", profile, known))
        values, source = from_file(known[profile]), f"profile {profile}"
    if file is not None:
        values, source = merge(values, from_file(file)), str(file)
    config = build(RunConfig, override(values, settings), source)
    config = replace(config, plugins=tuple(dict.fromkeys((*config.plugins, *asked_plugins()))))
    for name in config.plugins:
        load_plugin(name)
    return config
