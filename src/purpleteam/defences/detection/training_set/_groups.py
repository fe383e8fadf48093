"""What images of one label share: two searches for a group that a trigger would make.

A shared group needs contradicted labels: do the suspects' whitened residuals (features less what
the content explains) point the same way? Whitening is after SPECTRE (Hayase et al. 2021,
arXiv:2104.11315), but mean and covariance come from images whose label is not in doubt, and the
scale of a score from others of them, so that a direction that overfits is not taken for a signal.

A compact group needs none, so it also finds poison that kept its label or that small subsets learn.
A label's images are whitened by what the other labels show, and directions grown from outlying ones
are searched for a group that stands off and is tight: styles fan out, copies of a trigger do not.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

RIDGE = 0.02  # share of the mean variance that is added to every direction
NORMAL_68 = 0.6827  # share of a normal distribution within one deviation of its middle
LEAST_MEMBERS = 8  # fewer images than this can share anything by chance
STARTERS = 40  # how many suspects of a label the search for what they share begins with
REFINEMENTS = 3  # how often a shared group is drawn anew from all suspects
ALIKE = 2.5  # deviations from which an image belongs to a shared group
LEAST_ALIKE = 20  # undoubted images of a label from which its own scale is known
STARTS = 200  # images of the outlying half of a label that directions are grown from
ROUNDS = 4  # how often a direction becomes the mean of the images that lie furthest along it
FURTHEST = 20  # how many images that are
MOST_VARIED = 6  # directions of greatest variance that are searched as well
HALF = 0.5  # an image belongs to a compact group or a part from half its distance on
TAIL = 25  # most extreme images along a direction that a compact group grows from


@dataclass(frozen=True, eq=False)
class Whitened:
    """Residuals in which images of undoubted label vary alike in all directions."""

    rows: NDArray[np.float32]  # (N, d) residuals, whitened, without what tells the classes apart
    labels: NDArray[np.int64]  # (N,) labels as they stand in the set
    check: NDArray[np.int64]  # places of undoubted images that no estimate was made from

    def scores(self, members: NDArray[np.int64], label: int) -> NDArray[np.float64]:
        """Return how far each image (N,) lies along the mean of the members, in deviations.

        A member is compared with the mean of the *others*, so that strangers gain nothing from
        their noise; the scale is that of undoubted images, of all labels or of `label`.
        """
        mean = self.rows[members].mean(0)
        along = (self.rows @ mean).astype(np.float64)
        own = (self.rows[members].astype(np.float64) ** 2).sum(1)
        along[members] = (len(members) * along[members] - own) / (len(members) - 1)
        middle, deviation = _middle_and_deviation(along[self.check])
        alike = self.check[self.labels[self.check] == label]
        if len(alike) >= LEAST_ALIKE:
            of_label = _middle_and_deviation(along[alike])
            middle, deviation = max(middle, of_label[0]), max(deviation, of_label[1])
        return np.asarray((along - middle) / max(deviation, 1e-12))

    def apartness(self, members: NDArray[np.int64]) -> float:
        """Return how unlike their content the members are, apart from what they share.

        It is the median squared length across their mean, as a multiple of undoubted images'.
        """
        mean = self.rows[members].mean(0)
        mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        some = self.rows[np.concatenate([members, self.check])].astype(np.float64)
        across = (some**2).sum(1) - (some @ mean) ** 2
        ordinary = max(float(np.median(across[len(members) :])), 1e-12)
        return float(np.median(across[: len(members)])) / ordinary


def whiten(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    content: NDArray[np.int64],
    trusted: NDArray[np.int64],
    seed: int = 0,
) -> Whitened:
    """Take what images show (N,) out of features (N, d) and whiten what is left.

    Of the `trusted` images, of undoubted label, half make the estimates; the others check them.
    """
    order = np.random.default_rng(seed).permutation(trusted)
    half = len(order) // 2
    fit, check = order[:half], np.sort(order[half:])
    present = np.unique(content[fit])
    means = np.stack([features[fit[content[fit] == k]].mean(0) for k in present])
    overall = features[fit].mean(0)
    table = np.tile(overall, (int(max(content.max(), present.max())) + 1, 1))
    table[present] = means
    residual = features - table[content]
    covariance = residual[fit].T @ residual[fit] / max(len(fit), 1)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    values = np.maximum(values, 0)
    whitening = (vectors / np.sqrt(values + RIDGE * values.mean() + 1e-12)).astype(np.float32)
    rows = residual @ whitening
    between = ((means - overall) @ whitening).T  # (d, K)
    basis, sizes, _ = np.linalg.svd(between, full_matrices=False)
    basis = basis[:, sizes > 1e-3 * max(float(sizes[0]), 1e-12)][:, : len(present) - 1]
    rows -= (rows @ basis) @ basis.T
    return Whitened(rows, labels, check)


def _middle_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, float(np.quantile(np.abs(values - middle), NORMAL_68))


@dataclass(frozen=True, eq=False)
class SharedGroup:
    """What the images of one label share in one kind of features."""

    label: int
    features: str  # the kind of features
    strength: float
    """Median over the starters of how far they lie along what the others share, in deviations."""
    members: NDArray[np.int64]  # places of the images that share it
    scores: NDArray[np.float64]
    """(N,) how far each image lies along it, in deviations of undoubted images."""
    apartness: float  # how unlike their content the members are otherwise; about 1 where planted


def shared_group(
    white: Whitened,
    candidates: NDArray[np.int64],
    label: int,
    features: str,
    starters: int = STARTERS,
) -> SharedGroup | None:
    """Return what the suspects of one label share, or None where there are too few.

    It is first sought in the `starters` of the candidates, the most suspicious first.
    """
    if min(len(candidates), starters) < LEAST_MEMBERS:
        return None
    members = candidates[:starters]
    scores = white.scores(members, label)
    strength = float(np.median(scores[members]))
    for _ in range(REFINEMENTS):
        chosen = candidates[scores[candidates] > max(ALIKE, strength / 4)]
        if len(chosen) < LEAST_MEMBERS:
            break
        members, scores = chosen, white.scores(chosen, label)
    return SharedGroup(label, features, strength, members, scores, white.apartness(members))


def contents_in_turn(
    candidates: NDArray[np.int64],
    suspicion: NDArray[np.float64],
    content: NDArray[np.int64],
    certain: float,
) -> NDArray[np.int64]:
    """Return the candidates of one label, the certain ones first, of these each content's in turn.

    So a style that is often mistaken for one class gets no more of the first places than others.
    """
    ranked = candidates[np.argsort(-suspicion[candidates], kind="stable")]
    sure = ranked[suspicion[ranked] > certain]
    turn = np.zeros(len(sure), np.int64)
    for shown in np.unique(content[sure]):
        of_content = content[sure] == shown
        turn[of_content] = np.arange(of_content.sum())
    return np.concatenate([sure[np.argsort(turn, kind="stable")], ranked[len(sure) :]])


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one label that lie apart from its others: a compact group, or half of a split."""

    label: int
    gap: float  # distance from the rest of the label, in deviations
    members: NDArray[np.int64]  # places of its images
    towards: NDArray[np.float64]
    """(N,) how far from the rest, 0, to the part, 1, an image lies; 0 for other labels."""


def compact_groups(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, seed: int = 0
) -> tuple[Part, ...]:
    """Return the tightest group of each label that has images enough, from features (N, d)."""
    rows = [np.flatnonzero(labels == label) for label in range(classes)]
    scatter = []
    for some in rows:
        centred = features[some] - features[some].mean(0) if len(some) else features[some]
        scatter.append(np.asarray(centred.T @ centred, np.float64))
    total = np.sum(scatter, axis=0)
    groups = []
    for label, some in enumerate(rows):
        if len(some) < 4 * LEAST_MEMBERS or len(labels) - len(some) < 2 * LEAST_MEMBERS:
            continue
        covariance = (total - scatter[label]) / (len(labels) - len(some))  # of the other labels
        ridge = RIDGE * covariance.trace() / len(covariance) + 1e-9
        factor = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
        centred = (features[some] - features[some].mean(0)).T
        solved = scipy.linalg.solve_triangular(factor.astype(np.float32), centred, lower=True)
        white = np.ascontiguousarray(solved.T, np.float32)
        along = white @ _directions(white, np.random.default_rng((seed, label)))
        gap, towards = max((split_along(column) for column in along.T), key=lambda group: group[0])
        spread = np.zeros(len(labels))
        spread[some] = towards
        groups.append(Part(label, gap, some[towards > HALF], spread))
    return tuple(groups)


def _directions(white: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return unit directions (d, M): grown from outlying rows, and those of most variance."""
    outlying = np.argsort(-(white**2).sum(1), kind="stable")[: len(white) // 2]
    starts = rng.permutation(outlying)[:STARTS]
    grown = white[starts].T
    furthest = min(FURTHEST, len(white) // 8)
    for _ in range(ROUNDS):
        along = white @ (grown / np.maximum(np.linalg.norm(grown, axis=0), 1e-12))
        places = np.argpartition(-along, furthest, 0)[:furthest]  # (furthest, M)
        grown = np.stack([white[some].mean(0) for some in places.T], 1)
    _, varied = np.linalg.eigh(white.T @ white)
    most = varied[:, -MOST_VARIED:]
    every = np.concatenate([grown, most, -most], 1)
    return np.asarray(every / np.maximum(np.linalg.norm(every, axis=0), 1e-12), np.float32)


def split_along(values: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
    """Return the gap of the upper group of values (N,), and how far towards it each value is.

    The group is grown from the greatest values: those beyond half the way from the median of
    the rest to the median of the group. The gap is that way over the sum of both deviations.
    """
    numbers = values.astype(np.float64)
    ordered = np.sort(numbers)
    low = high = 0.0
    size = TAIL  # of the group, which is always the upper end
    for _ in range(20):
        if not LEAST_MEMBERS <= size <= len(ordered) // 2:
            return 0.0, np.zeros(len(ordered))
        rest = len(ordered) - size
        low = (ordered[(rest - 1) // 2] + ordered[rest // 2]) / 2  # medians of what is in order
        high = (ordered[rest + (size - 1) // 2] + ordered[rest + size // 2]) / 2
        before, size = size, int((((ordered - low) / max(high - low, 1e-12)) > HALF).sum())
        if size == before:
            break
    towards = (numbers - low) / max(high - low, 1e-12)
    deviations = 0.0
    for part in (numbers[towards > HALF], numbers[towards <= HALF]):
        # the greater of the usual deviation and the robust one, which a long tail fools
        deviations += max(_middle_and_deviation(part)[1], float(part.std()))
    return float(high - low) / max(deviations, 1e-12), towards
