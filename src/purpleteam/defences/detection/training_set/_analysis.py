"""What the detectors of a training set share, each piece computed once.

The clean reference begins without the images whose label the votes doubt, and takes back, round by
round, those whose label it predicts itself, except those against which the votes were sure. Random
patches as filters (Coates, Ng and Lee 2011, AISTATS) need no labels and learn no trigger.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from purpleteam.core.arrays import Bools, Floats, Ints, Singles
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import Registry
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import Images
from purpleteam.defences.detection.training_set import _groups as search
from purpleteam.models import build
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.inference import logits
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import Validation, train

PART_SIZE = 275  # images a part: it holds one or two at most of a hundred poisons in 55,000
LEAST_PARTS = 40
DOUBTED_SHARE = 0.1  # the least share of the images that is set aside at first
DOUBTED_SHARE_OF_FEW = 0.25  # the same for a small set, where three poisons teach a trigger
FEW = 10_000
ROUNDS = 4  # how often images may come back to the clean reference
BARRED = 0.1  # share of the votes for its own label under which an image never comes back
CERTAIN = 5.0  # suspicion from which a label is surely contradicted
FEATURES = ("pixels", "patches", "fine_patches")
MOST_DOUBTED = 0.5  # half must be left to learn from, where the small subsets cannot classify
LEADING = 2  # most frequent contents, which do not count: a label is honestly confused with those
SURELY_NOT = -2.0  # log probability of its label less another's, below which an image is another
CUTS = 4000  # patches from which the whitening is estimated and the filters are drawn
FLAT = 0.02  # least deviation of a patch, in [0, 1]: flat ground is no filter
THRESHOLD = 0.5  # activations below it are cut off, which keeps the features sparse
MOST_PIXELS = 1200  # A covariance of this many columns still takes seconds
BATCH = 200
CACHE_BATCH = 50  # images whose activations stay in the processor's cache; the bits are the same
RIDGE = 0.1  # ridge in units of the mean squared length of a row
CLIP = 3.0  # deviations at which a feature is cut: a rare one would decide alone in its part
AT_ONCE = 20  # learners that are asked in one product
ROWS = 5000

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
        return patch_features(self.images.images, seed=self.seed)

    def features(self, name: str) -> Singles:
        """Return a kind of features (N, d) of all images."""
        if name == "pixels":
            return pixel_features(self.images.images)
        if name == "patches":
            return self.patch_features
        return patch_features(
            self.images.images, filters=24, side=3, pools=7, stride=1, seed=self.seed + 1
        )

    @cached_property
    def votes(self) -> Floats:
        """Shares (N, K) of the votes of the small subsets that an image is not in."""
        parts = min(max(LEAST_PARTS, len(self.images) // PART_SIZE), len(self.images) // 2)
        return out_of_part_votes(
            self.patch_features, self.images.labels, self.classes, parts, self.seed
        )

    @property
    def own_share(self) -> Floats:
        """Share of the votes for each image's own label, (N,)."""
        return self.votes[np.arange(len(self.images)), self.images.labels]

    @cached_property
    def doubted(self) -> Bools:
        """Which labels the small subsets doubt, (N,)."""
        margin, _ = margins(self.votes, self.images.labels)
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
                scores = log_softmax(answers.astype(np.float64), axis=1)
            margin, content = margins(scores, labels[aside])
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
        return penultimate(self.trained, self.images.images)

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
        scores = log_softmax(logits(net, images.images[aside]).astype(np.float64), axis=1)
        content, surely = labels.copy(), np.zeros(len(images))
        margin, content[aside] = margins(scores, labels[aside])
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
            validate=lambda _: Validation(validation_accuracy=float(next(latest))),
            device=self.device,
            description=description,
            progress=self.progress,
        ).module


def outside_leading(content: Ints, classes: int) -> float:
    """Return the share of the contents (N,) that are not among the most frequent two."""
    counts = np.sort(np.bincount(content, minlength=classes))
    return float(counts[:-LEADING].sum() / max(1, counts.sum()))


def patch_features(
    images: Images,
    *,
    filters: int = 96,
    side: int = 6,
    pools: int = 3,
    stride: int = 2,
    seed: int = 0,
) -> Singles:
    """Return features (N, filters * pools ** 2) of uint8 images (N, H, W, C), standardised."""
    height, width, channels = images.shape[1:]
    side, rng = max(1, min(side, height // 2, width // 2)), np.random.default_rng(seed)
    picked = rng.integers(0, len(images), CUTS)
    rows, columns = rng.integers(0, (height - side + 1, width - side + 1), (CUTS, 2)).T
    cuts = []
    for few in np.array_split(np.arange(CUTS), -(-CUTS // CACHE_BATCH)):
        shown = images[picked[few]]
        windows = np.lib.stride_tricks.sliding_window_view(shown, (side, side), (1, 2))
        cuts.append(windows[np.arange(len(few)), rows[few], columns[few]])
    patches = np.concatenate(cuts).reshape(CUTS, -1) / 255.0  # by channel, row, column
    inked = patches.std(1) > FLAT
    patches = patches[inked] if inked.sum() > filters else patches
    patches = patches - patches.mean(1, keepdims=True)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches.T).reshape(patches.shape[1], -1))
    whiten = (vectors / np.sqrt(np.maximum(values, 0) + 0.05)) @ vectors.T
    white = (patches - mean) @ whiten
    white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)
    chosen = white[rng.choice(len(white), filters, replace=len(white) < filters)]
    kernel = chosen @ whiten
    bias = torch.from_numpy(-(kernel @ mean)).float()
    kernel -= kernel.mean(1, keepdims=True)  # a filter answers to shape, not to brightness
    weight = torch.from_numpy(kernel.reshape(filters, channels, side, side)).float()
    stride = min(stride, max(1, min(height, width) // (4 * side)))
    pooled = []
    with torch.inference_mode():
        for start in range(0, len(images), CACHE_BATCH):
            batch = torch.from_numpy(images[start : start + CACHE_BATCH] / np.float32(255))
            batch = batch.permute(0, 3, 1, 2).contiguous()  # one channel as it lies: faster here
            response = F.conv2d(batch, weight, bias, stride=stride).sub_(THRESHOLD).relu_()
            pooled.append(F.adaptive_avg_pool2d(response, pools).flatten(1).numpy())
    features = np.concatenate(pooled)
    centred = features - features.mean(0)
    return np.asarray(centred / np.maximum(centred.std(0), 1e-6))


def pixel_features(images: Images) -> Singles:
    """Return the pixels (N, d) in [0, 1] of uint8 images, shrunk to `MOST_PIXELS` at most."""
    height, width, channels = images.shape[1:]
    shrink = max(1.0, np.sqrt(height * width * channels / MOST_PIXELS))
    size = (max(1, int(height / shrink)), max(1, int(width / shrink)))
    rows = []
    for start in range(0, len(images), BATCH):
        batch = to_batch(images[start : start + BATCH])
        rows.append(F.adaptive_avg_pool2d(batch, size).flatten(1).numpy())
    return np.concatenate(rows)


def penultimate(model: nn.Module, images: Images) -> Singles:
    """Return the input (N, d) of the last dense layer for uint8 images (N, H, W, C)."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UsageError("the model has no dense layer whose input could be read")
    seen: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1)))
    with hook, frozen(model) as net, torch.no_grad():
        for start in range(0, len(images), BATCH):
            net(to_batch(images[start : start + BATCH], device_of(model)))
    return torch.cat(seen).float().cpu().numpy()


def margins(table: NDArray[np.floating], labels: Ints) -> tuple[Floats, Ints]:
    """Return each row's score of its label less the best other (N,), and which that is (N,)."""
    rows = np.arange(len(labels))
    others = table.astype(np.float64)
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    rival = others.argmax(1)
    return own - others[rows, rival], rival


def out_of_part_votes(
    features: Singles, labels: Ints, classes: int, parts: int, seed: int
) -> Floats:
    """Return for each row (N, d) the shares (N, K) of the votes of all random parts but its own."""
    part = np.empty(len(labels), np.int64)
    part[np.random.default_rng(seed).permutation(len(labels))] = np.arange(len(labels)) % parts
    constant = np.ones((len(labels), 1), np.float32)
    rows = np.concatenate([np.clip(features, -CLIP, CLIP), constant], 1)
    rows /= np.sqrt(np.float32(rows.shape[1]))
    weights = []  # (d + 1, K) of each part, by the dual, for centred one-hot labels
    for k in range(parts):
        own = rows[part == k]
        wanted = np.eye(classes, dtype=np.float32)[labels[part == k]] - np.float32(1 / classes)
        kernel = own @ own.T
        ridge = np.float32(RIDGE) * max(kernel.trace() / len(own), 1e-6)
        kernel[np.diag_indices_from(kernel)] += ridge
        weights.append(own.T @ np.linalg.solve(kernel, wanted))
    counts = torch.zeros(len(labels), classes)
    asked, home = torch.from_numpy(rows), torch.from_numpy(part)
    for first in range(0, parts, AT_ONCE):
        some = torch.from_numpy(np.stack(weights[first : first + AT_ONCE], 1))  # (d + 1, P, K)
        for start in range(0, len(labels), ROWS):
            block = slice(start, start + ROWS)
            answers = asked[block] @ some.flatten(1)
            votes = F.one_hot(answers.reshape(-1, *some.shape[1:]).argmax(2), classes)  # (n, P, K)
            other = home[block, None] != first + torch.arange(some.shape[1])
            counts[block] += (votes * other[:, :, None]).sum(1)  # no vote on its own
    return (counts / counts.sum(1, keepdim=True)).double().numpy()
