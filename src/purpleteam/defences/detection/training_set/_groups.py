"""Groups of images of one label that a trigger would make: shared, compact, or half of a split.

Shared: the whitened residuals of suspects (features less what the content explains) point the same
way, after SPECTRE (Hayase et al. 2021, arXiv:2104.11315). Mean and covariance come from undoubted
images, and the scale of a score from others of them, so that overfitting is not taken for a signal.
Compact: whitened by what other labels show, a group stands off and is tight, as copies of a trigger
are and styles are not; that also finds poison that kept its label or that small subsets learn.
Split: poison so frequent that every small subset learns it makes two modes in the features of its
label (SCAn, Tang et al. 2021, arXiv:1908.00686), here in features that need no label.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from purpleteam.core.arrays import Bools, Floats, Ints, Singles

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
COMPONENTS = 32  # principal components of the variation within labels
SPLIT_STARTS = 8  # directions of greatest variance of a label that a split starts from
SPLIT_ROUNDS = 30  # turns of the discriminant and the assignment; they settle after a few
OUTER = 0.1  # share of the label's images, at the ends of a direction, that a split starts from
BINS = 60
LEAST_APART = 5.0  # distance of the two means in deviations from which there are two modes
DEEPEST = 0.25  # height of the valley between them as a share of the lower mode, at most
MOST_ROWS = 10_000  # images of other labels that the variation within labels is estimated from
LEAST_PART = 40  # images, and share of a label's images, that a part must have
LEAST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Whitened:
    """Residuals in which images of undoubted label vary alike in all directions."""

    rows: Singles  # (N, d) residuals, whitened, without what tells the classes apart
    labels: Ints  # (N,) labels as they stand in the set
    check: Ints  # places of undoubted images that no estimate was made from

    def scores(self, members: Ints, label: int) -> Floats:
        """Return how far each image (N,) lies along the other members' mean, in deviations."""
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

    def apartness(self, members: Ints) -> float:
        """Return the median squared length across their mean, in that of undoubted images."""
        mean = self.rows[members].mean(0)
        mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        some = self.rows[np.concatenate([members, self.check])].astype(np.float64)
        across = (some**2).sum(1) - (some @ mean) ** 2
        ordinary = max(float(np.median(across[len(members) :])), 1e-12)
        return float(np.median(across[: len(members)])) / ordinary


def whiten(
    features: Singles, labels: Ints, content: Ints, trusted: Ints, seed: int = 0
) -> Whitened:
    """Take the content (N,) out of features (N, d) and whiten the rest, by half of the trusted."""
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


def _middle_and_deviation(values: Floats) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, float(np.quantile(np.abs(values - middle), NORMAL_68))


@dataclass(frozen=True, eq=False)
class SharedGroup:
    """What the images of one label share in one kind of features."""

    label: int
    features: str  # the kind of features
    strength: float  # of the starters: median way along what the others share, in deviations
    members: Ints  # places of the images that share it
    scores: Floats  # (N,) how far each image lies along it, in deviations of undoubted images
    apartness: float  # how unlike their content the members are otherwise; about 1 where planted


def shared_group(
    white: Whitened, candidates: Ints, label: int, features: str, starters: int = STARTERS
) -> SharedGroup | None:
    """Return what a label's suspects, the most suspicious first, share; None where too few."""
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


def contents_in_turn(candidates: Ints, suspicion: Floats, content: Ints, certain: float) -> Ints:
    """Return the candidates, certain ones first and of those each content's in turn."""
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
    members: Ints  # places of its images
    towards: Floats  # (N,) how far from the rest, 0, to the part, 1; 0 for other labels


def compact_groups(
    features: Singles, labels: Ints, classes: int, seed: int = 0
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
        # directions (d, M): grown from outlying rows, and those of most variance
        outlying = np.argsort(-(white**2).sum(1), kind="stable")[: len(white) // 2]
        starts = np.random.default_rng((seed, label)).permutation(outlying)[:STARTS]
        grown, furthest = white[starts].T, min(FURTHEST, len(white) // 8)
        for _ in range(ROUNDS):
            along = white @ (grown / np.maximum(np.linalg.norm(grown, axis=0), 1e-12))
            places = np.argpartition(-along, furthest, 0)[:furthest]  # (furthest, M)
            grown = np.stack([white[members].mean(0) for members in places.T], 1)
        most = np.linalg.eigh(white.T @ white)[1][:, -MOST_VARIED:]
        every = np.concatenate([grown, most, -most], 1)
        every /= np.maximum(np.linalg.norm(every, axis=0), 1e-12)
        along = white @ np.asarray(every, np.float32)
        gap, towards = max((split_along(column) for column in along.T), key=lambda group: group[0])
        spread = np.zeros(len(labels))
        spread[some] = towards
        groups.append(Part(label, gap, some[towards > HALF], spread))
    return tuple(groups)


def split_along(values: NDArray[np.floating]) -> tuple[float, Floats]:
    """Return the gap of the upper group of values (N,), and how far towards it each value is.

    Grown from the greatest values, it is those beyond half the way from the median of the rest to
    its own; the gap is that way over the sum of both deviations.
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


def split_labels(features: NDArray[np.floating], labels: Ints, classes: int) -> list[Part]:
    """Return the smaller part of each label that has two modes, from features (N, d)."""
    rows = [np.flatnonzero(labels == label) for label in range(classes)]
    centred = features - features.mean(0, dtype=np.float64).astype(np.float32)
    for some in rows:
        if len(some):
            centred[some] -= centred[some].mean(0)
    whitening = whitening_of(centred)
    parts = []
    for label, some in enumerate(rows):
        if len(some) < 2 * LEAST_PART:
            continue
        white = centred[some].astype(np.float64) @ whitening
        _, axes = np.linalg.eigh(white.T @ white)
        lines = []
        for start in range(1, min(SPLIT_STARTS, white.shape[1]) + 1):
            along = discriminant(white, white @ axes[:, -start])
            if along is not None and 0 < (along > 0).sum() < len(along):
                lines.append(along if (along > 0).mean() <= HALF else -along)
        best = max(filter(_has_two_modes, lines), key=_apart, default=None)
        if best is not None:
            towards = np.zeros(len(labels))
            start, end = best[best <= 0].mean(), best[best > 0].mean()
            towards[some] = (best - start) / (end - start)
            parts.append(Part(label, _apart(best), some[best > 0], towards))
    return parts


def whitening_of(centred: NDArray[np.floating]) -> Floats:
    """Return what brings rows (N, d), centred in each label, to uncorrelated components (d, k)."""
    values, vectors = np.linalg.eigh((centred.T @ centred / len(centred)).astype(np.float64))
    spread = np.maximum(values[-COMPONENTS:], 1e-6 * max(float(values[-1]), 1e-12))
    return np.asarray(vectors[:, -COMPONENTS:] / np.sqrt(spread))


def discriminant(white: Floats, along: Floats) -> Floats | None:
    """Return where rows (N, d) lie on the line between two groups; above 0 is in the second.

    From the outer end of the heavier tail of `along` (N,), discriminant analysis and reassignment
    take turns (SCAn, algorithm 2). None where one group is left without rows.
    """
    from_middle = along - np.median(along)
    second = np.abs(from_middle) > np.quantile(np.abs(from_middle), 1 - OUTER)
    second &= along * np.sign((along**3).sum() or 1.0) > 0  # the heavier tail
    towards = np.zeros(len(white))
    for _ in range(SPLIT_ROUNDS):
        if not 0 < second.sum() < len(white):
            return None
        start, end = white[~second].mean(0), white[second].mean(0)
        towards = (white - (start + end) / 2) @ (end - start)
        if np.array_equal(towards > 0, second):
            break
        second = towards > 0
    return towards


def _apart(along: Floats) -> float:
    """Return the distance of the means of both sides of 0, in deviations."""
    first, second = along[along <= 0], along[along > 0]
    deviation = np.sqrt((first.var() + second.var()) / 2)
    return float((second.mean() - first.mean()) / max(deviation, 1e-12))


def _has_two_modes(along: Floats) -> bool:
    second = along > 0
    least = max(LEAST_PART, LEAST_SHARE * len(second))
    if second.sum() < least or _apart(along) < LEAST_APART:
        return False
    counts, edges = np.histogram(along, BINS)
    first, last = np.searchsorted(edges, (along[~second].mean(), along[second].mean())) - 1
    middle = max(1, int(np.searchsorted(edges, 0)))
    lower = min(counts[:middle].max(), counts[middle:].max())
    return bool(counts[first : last + 1].min() <= DEEPEST * lower)


def nearness_of_others(
    features: NDArray[np.floating], labels: Ints, label: int, flagged: Bools
) -> float:
    """Return where the median other label lies: 0 at its unflagged part, 1 at the flagged one."""
    own = labels == label
    others = np.flatnonzero(~own)[:: max(1, (~own).sum() // MOST_ROWS)]
    rows = features[others].astype(np.float64)
    names, place = np.unique(labels[others], return_inverse=True)
    means = np.stack([rows[place == k].mean(0) for k in range(len(names))])
    rows -= means[place]
    scatter = rows.T @ rows / len(rows)
    scatter[np.diag_indices_from(scatter)] += RIDGE * max(scatter.trace() / len(scatter), 1e-12)
    start = features[own & ~flagged].mean(0, dtype=np.float64)
    line = features[own & flagged].mean(0, dtype=np.float64) - start
    direction = np.linalg.solve(scatter, line)
    return float(np.median((means - start) @ direction) / (line @ direction))
