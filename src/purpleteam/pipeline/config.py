"""What a run is asked: one frozen configuration, from a profile, a file and `--set a.b=c`."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from purpleteam.core.config import build, from_file, merge, override
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.plugins import asked_plugins, folder_of, installed_plugins, load_plugin

ALL_STAGES: tuple[str, ...] = ("data", "models", "attacks", "certify", "defences")
ALL_STAGES += ("privacy", "scan", "threats", "serve")
"""The stages of a run in the order of the flow; `report` follows whatever was run."""


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """The model under test, and the one that is served."""

    recipe: str = "accurate"  # training recipe of the baseline
    epochs: int | None = None  # epochs, where not the recipe's
    use: str | None = None  # model to bring: zoo name, stored model or module:factory
    weights: str | None = None  # weights for module:factory: .safetensors, or a .pt state dict
    arch: str | None = None  # the code of a stored model whose card names some
    normalise: str | None = None  # what it wants of images in [0, 1], where no card says it
    classes: str | None = None  # class names in the order of its outputs: a,b,c, or a file
    served: str | None = None  # the model that the app serves; none, and there is no app
    redrawn: int = 2000  # test digits that are redrawn on a canvas and read again; 0 leaves it out


@dataclass(frozen=True, kw_only=True)
class EvasionConfig:
    """How models are attacked at test time."""

    attacks: tuple[str, ...] = ("fgsm", "pgd:steps=40,restarts=3")  # each by itself
    epsilon: float | None = None
    """Radius in linf of the first page's numbers; by default 0.3 for grey images, else 8/255."""
    checked: int = 500  # images that the check of each evaluation looks at
    limit: int | None = None  # how many test images are used, from the first; all by default
    curve: tuple[float, ...] | None = None  # radii under PGD; by default around the usual one
    curve_images: int = 1000  # how many test images the curves use, from the first
    l2_epsilon: float | None = None  # of one L2 PGD attack on the model at hand and the hardened


@dataclass(frozen=True, kw_only=True)
class PoisonConfig:
    """How the training set is poisoned."""

    attacks: tuple[str, ...] = ()  # poisons that are trained on, each `name[:field=value,...]`
    recipe: str = "plain"  # of the poisoned models and of the clean ones beside them
    epochs: int | None = None  # epochs, where not the recipe's
    count: int | None = None  # images changed; by default 100, or one in 43 of fewer than 4,300
    target_label: int = 7  # label that the adversary wants, or the last before it that has images
    trainings: int = 3  # trainings of each poison, each beside a clean one of the same seed
    scan: bool = False  # look for the first training's backdoor, told nothing of it


@dataclass(frozen=True, kw_only=True)
class CertifyConfig:
    """What is proved, whatever an adversary within the bound does."""

    changes: tuple[int, ...] = ()
    """Training images inserted or removed, for Deep Partition Aggregation; none, and it is off."""
    parts: int | None = None  # of the training set, each with a network; chosen for its size
    learner: str = "readout"  # how a part's network is trained: readout, or networks
    epsilons: tuple[float, ...] = ()
    """Radii in linf within which the model at hand and hardened ones are certified; none: off."""
    method: str = "auto"  # of these: ibp, crown_ibp, crown, alpha_crown, complete
    seconds: float = 5.0  # limit for one image by the dearest of these methods
    limit: int | None = 1000  # test images, the first, that are certified within them


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
    own_training_set: bool = False  # look for poison in the training set, with the model at hand
    attacks: tuple[str, ...] = ()  # poisons, each `name[:field=value,...]`; none closes the lab
    trainings: int = 1  # of each poison, each with its own images, beside one clean model
    clean: int = 0  # clean models at least: what the scans say of them
    architecture: str | None = None  # of the lab's models, where not the run's
    recipe: str = "plain"  # training recipe of the lab's models, the clean one included
    epochs: int | None = None  # epochs, where not the recipe's
    target_label: int = 7  # label that the adversary wants, or the last before it that has images
    trusted: int = 1000  # validation images, from the first, known to be clean: for scans, repairs
    search_training_set: bool = True  # look for the poisoned images in the training set
    rank_detectors: bool = True  # where poison was planted; a search needs no ranking
    scan_models: bool = True  # look for a backdoor in each trained model, the clean ones included
    repairs: tuple[str, ...] = ("retrain", "unlearn", "fine_tune", "fine_prune", "ft_sam")
    plant_again: tuple[int, ...] = (10, 50)  # poisons that try to bring back a removed backdoor


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """What the model at hand gives away, as `purple privacy` measures it."""

    attacks: tuple[str, ...] = ()
    """Attacks on privacy, each `name[:field=value,...]`; none, and nothing is tried."""
    shadows: int = 8  # models on random halves of the images, for attacks that compare with them
    epochs: int | None = None  # of the shadow models, where not the model's own
    queries: int | None = None  # questions that the model answers each attack, at most


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """What is scanned."""

    paths: tuple[str, ...] = ()  # files and folders of code; the installed package by default


@dataclass(frozen=True, kw_only=True)
class ThreatsConfig:
    """Whose threats are derived."""

    system: str | None = None  # a YAML file with a system of your own; else the run's


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, from data to report. Everything that its numbers depend on is in here."""

    dataset: str = "digits"
    stages: tuple[str, ...] = ALL_STAGES  # the stages that are run, whatever their order here
    architecture: str | None = None  # of trained models; else the brought one's, or the usual
    seed: int = 0
    threads: int = 1  # torch's; nets this small cost least on one
    processes: int = 1  # that do the work side by side, on a CPU; the records are the same
    device: str = "auto"
    models: ModelsConfig = field(default_factory=ModelsConfig)
    evasion: EvasionConfig = field(default_factory=EvasionConfig)
    poison: PoisonConfig = field(default_factory=PoisonConfig)
    certify: CertifyConfig = field(default_factory=CertifyConfig)
    defences: DefencesConfig = field(default_factory=DefencesConfig)
    backdoors: BackdoorsConfig = field(default_factory=BackdoorsConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
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
