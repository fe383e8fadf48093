"""What the detectors of a training set share, each piece computed once.

The clean reference begins without the images whose label the votes doubt, and takes back, round by
round, those whose label it predicts itself, except those against which the votes were sure.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from purpleteam.core.arrays import Bools, Floats, Ints, Singles
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import Registry
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.training_set import _features as features_of
from purpleteam.defences.detection.training_set import _groups as search
from purpleteam.models import build
from purpleteam.models.inference import logits
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train

PART_SIZE = 275  # images a part: it holds one or two at most of a hundred poisons in 55,000
LEAST_PARTS = 40
DOUBTED_SHARE = 0.1  # the least share of the images that is set aside at first
DOUBTED_SHARE_OF_FEW = 0.25  # the same for a small set: passed often, three poisons teach
FEW = 10_000
ROUNDS = 4  # how often images may come back to the clean reference
BARRED = 0.1  # share of the votes for its own label under which an image never comes back
CERTAIN = 5.0  # suspicion from which a label is surely contradicted
FEATURES = ("pixels", "patches", "fine_patches")
MOST_DOUBTED = 0.5  # half must be left to learn from, where the small subsets cannot classify
LEADING = 2  # most frequent contents, which do not count: a label is honestly confused with those
SURELY_NOT = -2.0  # log probability of its label less another's, below which an image is another

Detector = Callable[["Analysis"], Floats]  # a score (N,) for each image, higher: more suspicious
TRAINING_SET_DETECTORS: Registry[Detector] = Registry("training set detector")


@dataclass(frozen=True, eq=False)
class Reference:
    """What the clean reference predicts for the images that it never learned from."""

    suspects: Ints  # places of the images that never came back, growing
    margin: Floats  # log probability of their label less that of the best other one, (S,)
    content: Ints  # the most probable label other than their own, (S,)


@dataclass(frozen=True, kw_only=True, eq=False)
class PartPrediction:
    """The smaller part of a label that falls in two, classified by a net that never saw it."""

    split: search.Part
    sure: int  # how many of its images are surely something else than their label
    broad: int  # how many of these are none of the two contents that are predicted most
    group: search.SharedGroup | None  # what they share that their contents do not


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """A training set under suspicion, and what has been computed of it so far."""

    images: ImageSet
    classes: int
    seed: int = 0
    architecture: str = "small_cnn"
    epochs: int = 3  # passes of each net over the set; small sets are passed over more often
    trusted: ImageSet | None = None
    model: nn.Module | None = None  # that was trained on the set; None: one is trained
    device: torch.device | None = None
    progress: Progress = SILENT

    def rows_by_label(self, least: int = 1) -> list[Ints]:
        """Return the places of each label's images, labels with fewer than `least` left out."""
        rows = [np.flatnonzero(self.images.labels == label) for label in range(self.classes)]
        return [places for places in rows if len(places) >= least]

    def scores_by_label(self, least: int, score: Callable[[Singles], Floats]) -> Floats:
        """Return scores (N,) that the model's features of each label give its images."""
        scores = np.zeros(len(self.images))
        for rows in self.rows_by_label(least):
            scores[rows] = score(self.model_features[rows])
        return scores

    @cached_property
    def patch_features(self) -> Singles:
        return features_of.patch_features(self.images.images, seed=self.seed)

    def features(self, name: str) -> Singles:
        """Return a kind of features (N, d) of all images."""
        if name == "pixels":
            return features_of.pixel_features(self.images.images)
        if name == "patches":
            return self.patch_features
        return features_of.patch_features(
            self.images.images, filters=24, side=3, pools=7, stride=1, seed=self.seed + 1
        )

    @cached_property
    def votes(self) -> Floats:
        """Shares (N, K) of the votes of the small subsets that an image is not in."""
        parts = min(max(LEAST_PARTS, len(self.images) // PART_SIZE), len(self.images) // 2)
        return features_of.out_of_part_votes(
            self.patch_features, self.images.labels, self.classes, parts, self.seed
        )

    @property
    def own_share(self) -> Floats:
        """Share of the votes for each image's own label, (N,)."""
        return self.votes[np.arange(len(self.images)), self.images.labels]

    @cached_property
    def doubted(self) -> Bools:
        """Which labels the small subsets doubt, (N,)."""
        margin, _ = features_of.margins(self.votes, self.images.labels)
        share = DOUBTED_SHARE if len(margin) >= FEW else DOUBTED_SHARE_OF_FEW
        least, most = np.quantile(margin, (share, MOST_DOUBTED))
        return np.asarray(margin <= min(max(least, 0.0), most))

    @cached_property
    def reference(self) -> Reference:
        """What the clean reference predicts for the suspects."""
        labels, module = self.images.labels, None
        aside = np.flatnonzero(self.doubted)
        barred = self.doubted & (self.own_share < BARRED)
        for turn in range(ROUNDS + 1):
            kept = np.setdiff1d(np.arange(len(labels)), aside)
            title = f"clean reference {turn + 1}/{ROUNDS + 1}"
            module = self.learned(kept, title, module=module, turn=turn)
            scores = np.zeros((0, self.classes))
            if len(aside):  # every doubted image may have come back
                answers = logits(module, self.images.images[aside])
                scores = log_softmax(answers.astype(np.float64), 1)
            margin, content = features_of.margins(scores, labels[aside])
            if turn < ROUNDS:
                aside = aside[(margin <= 0) | barred[aside]]
        return Reference(aside, margin, content)

    @cached_property
    def trained(self) -> nn.Module:
        """The given model, or one that was trained on the whole set."""
        if self.model is not None:
            return self.model
        every = np.arange(len(self.images))
        return self.learned(every, "net of all images", augmentation="none")

    @cached_property
    def model_features(self) -> Singles:
        """What enters the last layer (N, d) of the model that learned from all images."""
        return features_of.penultimate(self.trained, self.images.images)

    @cached_property
    def suspicion(self) -> Floats:
        """How surely reference and votes together contradict a label, (N,); 0 for no suspect."""
        suspects = self.reference.suspects
        suspicion = np.zeros(len(self.images))
        votes_against = -np.log(self.own_share[suspects] + 0.01)
        suspicion[suspects] = np.maximum(-self.reference.margin, 0) / 3 + votes_against
        return suspicion

    @cached_property
    def content(self) -> Ints:
        """What each image shows (N,): its label, or for a suspect what the reference predicts."""
        content = self.images.labels.copy()
        content[self.reference.suspects] = self.reference.content
        return content

    @cached_property
    def groups(self) -> tuple[search.SharedGroup, ...]:
        """What the suspects of each label share, in each kind of features."""
        suspects, labels = self.reference.suspects, self.images.labels
        trusted = np.setdiff1d(np.arange(len(self.images)), suspects)
        groups = []
        for name in FEATURES:
            white = search.whiten(self.features(name), labels, self.content, trusted, self.seed)
            for label in range(self.classes):
                of_label = search.contents_in_turn(
                    suspects[labels[suspects] == label], self.suspicion, self.content, CERTAIN
                )
                starters = min(search.STARTERS, max(search.LEAST_MEMBERS, len(of_label) // 2))
                groups.append(search.shared_group(white, of_label, label, name, starters))
        return tuple(group for group in groups if group is not None)

    @cached_property
    def compact(self) -> tuple[search.Part, ...]:
        """The tightest group of pixels that stands off within each label."""
        pixels = self.features("pixels")
        return search.compact_groups(pixels, self.images.labels, self.classes, self.seed)

    @cached_property
    def splits(self) -> tuple[PartPrediction, ...]:
        """Labels that fall in two, with what a net that never saw it predicts for each part."""
        images, labels = self.images, self.images.labels
        splits = search.split_labels(self.patch_features, labels, self.classes)
        if not splits:
            return ()
        aside = np.concatenate([split.members for split in splits])
        rest = np.setdiff1d(np.arange(len(images)), aside)
        net = self.learned(rest, "net of the rest")
        scores = log_softmax(logits(net, images.images[aside]).astype(np.float64), 1)
        content, surely = labels.copy(), np.zeros(len(images))
        margin, content[aside] = features_of.margins(scores, labels[aside])
        surely[aside] = np.maximum(SURELY_NOT - margin, 0)
        white = search.whiten(self.features("pixels"), labels, content, rest, self.seed)
        parts = []
        for split in splits:
            sure = split.members[surely[split.members] > 0]
            ranked = sure[np.argsort(-surely[sure], kind="stable")]
            group = search.shared_group(white, ranked, split.label, "pixels")
            broad = round(outside_leading(content[sure], self.classes) * len(sure))
            parts.append(PartPrediction(split=split, sure=len(sure), broad=broad, group=group))
        return tuple(parts)

    def learned(
        self,
        rows: Ints,
        description: str,
        *,
        module: nn.Module | None = None,
        turn: int = 0,
        augmentation: str = "shift",
    ) -> nn.Module:
        """Return a net that learned from `rows` alone; a `module` goes on, shortly and slowly."""
        few, images = len(self.images) < FEW, self.images.take(rows)
        epochs = 4 * self.epochs if few else self.epochs
        if module is None:
            height, width, channels = images.images.shape[1:]
            shape = (channels, height, width)
            module = build(self.architecture, shape, self.classes, seed=self.seed)
        latest = itertools.count()  # the best epoch: there is no validation set to choose by
        recipe = Recipe(
            epochs=max(1, epochs // 3) if turn else epochs,
            learning_rate=1e-3 if turn else 2e-3,
            batch_size=32 if few else 128,
            augmentation=augmentation,
        )
        return train(
            module,
            images,
            images,
            recipe,
            seed=self.seed + turn,
            validate=lambda _: float(next(latest)),
            device=self.device,
            description=description,
            progress=self.progress,
        ).module


def outside_leading(content: Ints, classes: int) -> float:
    """Return the share of the contents (N,) that are not among the most frequent two."""
    counts = np.sort(np.bincount(content, minlength=classes))
    return float(counts[:-LEADING].sum() / max(1, counts.sum()))
