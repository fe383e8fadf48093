"""What can be measured: the meaning of each number, its unit, and which way is better.

A `Measurement` names one of METRICS. A plug-in adds its own:

    add(Metric("depth_accuracy", "Fraction of images whose depth is right.", "fraction", "higher"))
"""

from dataclasses import dataclass
from typing import Literal

from purpleteam.core.registry import Registry

Unit = Literal["fraction", "points", "count", "seconds", "distance", "nats", "score"]
"""`points`: a difference of two fractions. `score`: a number on the scale of its own method."""
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """One metric; `meaning` is a sentence that stands beside the number in every report."""

    name: str
    meaning: str
    unit: Unit
    better: Better


METRICS: Registry[Metric] = Registry("metric")


def add(metric: Metric) -> Metric:
    """Add a metric under its name; a second one of that name is a ValueError."""
    return METRICS.register(metric.name)(metric)


_METRICS: dict[tuple[Unit, Better], dict[str, str]] = {
    ("fraction", "higher"): {
        "clean_accuracy": "Fraction of unchanged test images that are classified correctly.",
        "clean_accuracy_mean": "Clean accuracy, mean over several trainings.",
        "validation_accuracy": "Fraction of validation images that are classified correctly.",
        "precision": "Among images classified as this class, the fraction that belong to it.",
        "recall": "Among images of this class, the fraction that are classified as it.",
        "f1": "Harmonic mean of precision and recall of this class.",
        "robust_accuracy": "Fraction of all test images that are classified correctly unchanged "
        "and under every attack tried; an upper bound.",
        "clean_accuracy_without_ramp": "Clean accuracy of the same weights, no ramp before.",
        "robust_accuracy_without_ramp": "Robust accuracy of the same weights, no ramp before.",
        "transfer_accuracy": "Accuracy on images made against another model: no robustness.",
        "adversarial_set_accuracy": "Accuracy on stored adversarial images: no robustness.",
        "certified_accuracy_without_ramp": "Certified accuracy of the same weights, no ramp.",
        "certified_accuracy": "Fraction of test images that are classified correctly and that no "
        "adversary within the bound can change; a lower bound.",
        "recovered_accuracy": "Fraction of triggered images classified as their true class.",
        "redrawn_accuracy": "Accuracy on test images drawn again at another size and place.",
        "served_accuracy": "Fraction of drawings that the running app classifies correctly.",
        "detection_recall": "Fraction of the poisoned training images that were flagged.",
        "detection_precision": "Fraction of the flagged training images that were poisoned.",
        "average_precision": "Area under precision over recall of a detector's ranking.",
        "model_detection_rate": "Fraction of backdoored models found, with the right target label.",
        "training_set_detection_rate": "Fraction of poisoned sets found, with the right label.",
    },
    ("fraction", "lower"): {
        "calibration_error": "Mean distance between stated confidence and accuracy.",
        "attack_success_rate": "Fraction of triggered images of other classes that get the target "
        "label.",
        "attack_success_rate_mean": "Attack success rate, mean over several trainings.",
        "attack_success_rate_planted_again": "Attack success rate after tuning on fresh poisons.",
        "base_rate": "Fraction of the same triggered images that a clean model gives the target "
        "label.",
        "worst_source_success_rate": "Attack success rate of the class that it is highest on.",
        "trigger_sweep_rate": "Largest fraction of images that a common trigger moves to a label.",
        "false_positive_rate": "Fraction of the clean training images that were flagged.",
        "model_false_alarm_rate": "Fraction of clean models that were called backdoored.",
        "training_set_false_alarm_rate": "Fraction of clean training sets called poisoned.",
        "membership_rate": "Fraction of the training images that an attack recognises as such, "
        "at the stated fraction of others that it takes for them.",
        "copy_agreement": "Fraction of test images that a copy, trained on the model's answers, "
        "labels as the model does.",
        "copy_accuracy": "Fraction of test images that such a copy classifies correctly.",
        "rebuilt_recognised": "Fraction of images rebuilt from the model that another network "
        "takes for the class aimed at.",
    },
    ("fraction", "neither"): {
        "triggered_accuracy": "Accuracy on all images with the trigger: no attack success rate.",
    },
    ("points", "higher"): {
        "clean_accuracy_difference": "Clean accuracy less that of the model it is compared with.",
        "clean_accuracy_difference_mean": "Clean accuracy less the clean twin's, a mean over runs.",
    },
    ("points", "lower"): {
        "membership_advantage": "True-positive less false-positive rate of membership inference, "
        "its threshold chosen on other images.",
    },
    ("points", "neither"): {
        "cross_check_difference": "Robust accuracy by another library less ours, same images.",
    },
    ("score", "higher"): {
        "detector_auroc": "Area under the ROC curve of a detector's ranking; 0.5 is chance.",
        "defence_effectiveness": "Defence effectiveness rating (DER) of BackdoorBench, in [0, 1]: "
        "what a repair took from the attack, less what it took from clean accuracy.",
    },
    ("score", "lower"): {
        "membership_auroc": "Area under the ROC curve of membership inference; 0.5 is guessing.",
        "epsilon_audited": "Privacy budget that an audit of the training shows to be spent at "
        "least.",
    },
    ("nats", "lower"): {"loss": "Mean cross-entropy on test images."},
    ("count", "neither"): {"confusion_matrix": "Test images by true and predicted class."},
}
for (_unit, _better), _meanings in _METRICS.items():
    for _name, _meaning in _meanings.items():
        add(Metric(_name, _meaning, _unit, _better))
