"""Attacks by queries and honest sessions, under the detector of the app: results/abuse.json.

    python benchmarks/abuse.py              a quarter of an hour

The thresholds of `Watch` were chosen on sessions with digits of MNIST's validation split; what
counts is measured on sessions with others, of its test split, under other seeds. The unit is a
session: what one client sends. An attacker attacks digits one after another, until it has asked
`MOST` times, and is detected where an alarm came before that.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import numpy as np
import torch
import torch.nn.functional as functional
from abuse_sessions import (
    Images,
    Session,
    attack_session,
    diluted,
    drawing,
    in_box,
    jacobian_queries,
    noise_queries,
    scribbles,
)
from scipy.stats import shapiro

from purpleteam.attacks.evasion import ATTACKS
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import Rate
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.queries import Queries, Watch
from purpleteam.models.architectures import ARCHITECTURES
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import logits
from purpleteam.models.loading import load
from purpleteam.serve.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
MOST = 300  # queries of one attacker
PARTS = ("honest", "attacks", "extraction")
TOGETHER = 50
NEVER = Watch(alarm=1e9)
PEOPLE = {  # kind: (a preview while drawing, always the same digits)
    "pen up": (False, False),
    "live preview": (True, False),
    "pen up, the same digit": (False, True),
    "live preview, the same digit": (True, True),
}
LIMITS = {"queries": MOST}
NEAREST = {**LIMITS, "stop_inside": True}
ATTACKERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Square, linf 0.3": ("square", {"epsilon": 0.3, **LIMITS}),
    "Square, linf 0.1": ("square", {"epsilon": 0.1, **LIMITS}),
    "Square, l2 2": ("square", {"norm": "l2", "epsilon": 2.0, **LIMITS}),
    "HopSkipJump, l2 2": ("hop_skip_jump", {"norm": "l2", "epsilon": 2.0, **NEAREST}),
    "HopSkipJump, linf 0.3": ("hop_skip_jump", {"norm": "linf", "epsilon": 0.3, **NEAREST}),
    "rotation and translation": ("spatial", {}),
}
DISGUISES: dict[str, Callable[..., Any]] = {
    "within the digit's box": in_box,
    "and moved by up to 2 pixels": partial(in_box, shift=2),
    "and with 6 specks": partial(in_box, specks=6),
    "and with 12 specks": partial(in_box, specks=12),
}
DISGUISED = ("Square, linf 0.3", "HopSkipJump, linf 0.3")
HARDENED = ("Square, linf 0.3", "HopSkipJump, l2 2")


def alarm_after(sent: Iterable[bytes], watch: Watch) -> int | None:
    """Return with which query the first alarm came."""
    queries = Queries(watch)
    return next((number for number, query in enumerate(sent, 1) if queries.see(query)), None)


def sums(sent: Iterable[bytes], watch: Watch) -> tuple[float, float]:
    """Return the largest that each of the two sums became."""
    queries = Queries(watch)
    reached = [(queries.near, queries.strange) for query in sent if queries.see(query) is None]
    near, strange = zip(*reached, strict=True)
    return max(near), max(strange)


def noisy(image: Images) -> bytes:
    """Return a digit as a camera might give it: on a background that is not quite black."""
    rng = np.random.default_rng(int(image.sum()))
    return np.maximum(image, rng.integers(0, 40, image.shape, np.uint8)).tobytes()


def people(digits: Images, kind: str, count: int, seed: int) -> Iterator[list[bytes]]:
    """Yield sessions of people who draw."""
    live, alike = PEOPLE[kind]
    for number in range(count):
        rng = np.random.default_rng([seed, *kind.encode(), number])
        yield drawing(digits, rng, live, alike)


def row(sessions: Iterable[Session], watch: Watch, clients: int = 1, **told: Any) -> dict[str, Any]:
    """Return what the detector saw of attackers, and what they got before, and in all.

    Of several clients that share the work, query by query, the first alarm of any counts.
    """
    found = count = before = broken = tried = asked = 0
    queries = list[int]()
    for session in sessions:
        alarms = [alarm_after(session.sent[client::clients], watch) for client in range(clients)]
        known = [clients * after for after in alarms if after is not None]
        found += bool(known)
        queries += [min(known)] if known else []
        before += sum(not known or place <= min(known) for place in session.broken)
        broken, tried = broken + len(session.broken), tried + session.tried
        asked += len(session.sent)
        count += 1
    made = {**told, "detected": Rate.of(found, count).to_json(), "asked": asked}
    made["queries_to_alarm"] = float(np.median(queries)) if queries else None
    if tried:
        made |= {"tried": tried, "broken": broken, "broken_before_alarm": before}
    print(made, flush=True)
    return made


class Prada:
    """The detector of extraction of Juuti et al. 2019 (arXiv:1805.02628), for one client.

    Of each image the distance to the nearest before it that got the same label counts. Once there
    are 100, those within three deviations have to look normal to the test of Shapiro and Wilk.
    """

    def __init__(self, engine: Engine, delta: float = 0.95) -> None:
        self.engine, self.delta, self.distances = engine, delta, list[float]()
        self.grown: dict[int, list[Any]] = {}
        self.nearest: dict[int, list[float]] = {}  # distances among the images of `grown`

    def see(self, query: bytes) -> bool:
        label = self.engine.classify(query).label
        if label is None:
            return False
        image = np.frombuffer(query, np.uint8).astype(np.float32) / 255
        grown, known = self.grown.setdefault(label, []), self.nearest.setdefault(label, [])
        if grown:
            distance = float(np.linalg.norm(np.stack(grown) - image, axis=1).min())
            self.distances.append(distance)
            far = not known or distance > np.mean(known) - np.std(known)
            known += [distance] if far else []
        if not grown or far:
            grown.append(image)
        if len(self.distances) < 100 or len(self.distances) % 10:
            return False
        values = np.array(self.distances)
        values = values[np.abs(values - values.mean()) <= 3 * values.std()]
        return bool(shapiro(values).statistic < self.delta)


def attackers(
    engine: Engine, test: ImageSet, names: Iterable[str], count: int, hides: Iterable[str | None]
) -> Iterator[tuple[str, str | None, list[Session]]]:
    """Yield sessions of each attack in each disguise."""
    for name in names:
        kind, config = ATTACKS[ATTACKERS[name][0]], ATTACKERS[name][1]
        for hidden in hides:
            made = list[Session]()
            for number in range(count):
                places = np.random.default_rng([number, 7]).choice(len(test), 40, replace=False)
                made.append(
                    attack_session(
                        engine,
                        kind(**config),
                        test.images[places, ..., 0],
                        test.labels[places],
                        seed=number,
                        most=MOST,
                        disguise=None if hidden is None else DISGUISES[hidden],
                    )
                )
            yield name, hidden, made


def clones(engine: Engine, pool: ImageSet, test: ImageSet, seeds: int) -> list[dict[str, Any]]:
    """Return how often copies, trained on labels alone, say what the served model says."""
    wanted = logits(load(engine.card.name).module, test.images).argmax(1)
    rows = list[dict[str, Any]]()
    for queries in (100, 300, 1000):
        agreed = []
        for seed in range(seeds):
            rng = np.random.default_rng([queries, seed])
            images = pool.images[rng.choice(len(pool), queries, replace=False)]
            labels = [engine.classify(image.tobytes()).label for image in images]
            given = [number for number, label in enumerate(labels) if label is not None]
            y = torch.tensor([labels[number] for number in given])
            copy = copied(to_batch(images[given]), y, seed)
            agreed.append(int((logits(copy, test.images).argmax(1) == wanted).sum()))
        rows.append(
            {"queries": queries, "agreement": [Rate.of(n, len(test)).to_json() for n in agreed]}
        )
        print(rows[-1], flush=True)
    return rows


def copied(x: torch.Tensor, y: torch.Tensor, seed: int, steps: int = 600) -> torch.nn.Module:
    """Return a net trained on images, turned, sheared, moved and sized at random, and labels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ARCHITECTURES["small_cnn"]((1, 28, 28), 10)
        optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
        for _ in range(steps):
            rows = torch.randint(len(x), (32,))
            angle, size, shear, *shift = (
                (torch.rand(32) - 0.5) * r for r in (0.5, 0.3, 0.5, 0.2, 0.2)
            )
            cosine, sine = angle.cos() / (1 + size), angle.sin() / (1 + size)
            moves = torch.stack([cosine, shear - sine, shift[0], sine, cosine, shift[1]], 1)
            grid = functional.affine_grid(
                moves.view(32, 2, 3), [32, 1, 28, 28], align_corners=False
            )
            moved = functional.grid_sample(x[rows], grid, align_corners=False)
            optimizer.zero_grad()
            functional.cross_entropy(net(moved), y[rows]).backward()
            optimizer.step()
            falling.step()
    return net.eval()


def microseconds(sent: list[bytes], watch: Watch) -> float:
    """Return the processor time of one query, the history full, the least of five turns."""
    least = float("inf")
    for _ in range(5):
        queries = Queries(watch)
        for query in sent[: len(sent) // 2]:
            queries.see(query)
        before = time.process_time()
        for query in sent[len(sent) // 2 :]:
            queries.see(query)
        least = min(least, (time.process_time() - before) / (len(sent) - len(sent) // 2))
    return round(1e6 * least, 1)


class Bench:
    """What is measured: parts of the file, each by itself, so that they can be had in pieces."""

    def __init__(self, sessions: int) -> None:
        self.watch, self.sessions = Watch(), sessions
        self.few = max(2, sessions // 5)  # of each attack as it is; half as many in disguise
        self.mnist = load_dataset("mnist")
        self.test = self.mnist.split("test")
        self.standard, self.robust = Engine.load("standard"), Engine.load("robust-0.3")

    def honest(self) -> dict[str, Any]:
        """Measure how often honest sessions raise an alarm, and what a query costs."""
        others, own = self.mnist.split("validation").images[..., 0], self.test.images[..., 0]
        rows, chosen_on, queries = [], [], list[bytes]()
        for kind in PEOPLE:
            reached = [sums(one, NEVER) for one in people(others, kind, self.sessions // 2, 1)]
            near, strange = map(max, zip(*reached, strict=True))
            chosen_on.append({"kind": kind, "n": len(reached), "near": near, "strange": strange})
            print(chosen_on[-1], flush=True)
            kept = list(people(own, kind, self.sessions, 2))
            rows.append(honest_row(kind, kept, self.watch))
            queries += [query for session in kept[:8] for query in session]
        order = np.random.default_rng(0).permutation(len(own))
        heavy = [[image.tobytes() for image in own[part]] for part in np.split(order, 20)]
        rows.append(honest_row("500 test images in a row", heavy, self.watch))
        loud = [[noisy(image) for image in own[part[:100]]] for part in np.split(order, 20)]
        rows.append(honest_row("100 digits with noise around them", loud, self.watch))
        cost = microseconds(list(dict.fromkeys(queries)), self.watch)
        return {"chosen_on": chosen_on, "honest": rows, "microseconds": cost}

    def attacks(self) -> dict[str, Any]:
        """Measure how attackers fare, as they are and in disguise."""
        rows, boxed = list[dict[str, Any]](), dict[str, list[Session]]()
        for name, _, made in attackers(self.standard, self.test, ATTACKERS, self.few, [None]):
            rows.append(row(made, self.watch, model="standard", attack=name, how="as it is"))
        half = self.few // 2
        for name, _, made in attackers(self.robust, self.test, HARDENED, half, [None]):
            rows.append(row(made, self.watch, model="robust-0.3", attack=name, how="as it is"))
        for name, how, made in attackers(self.standard, self.test, DISGUISED, half, DISGUISES):
            boxed.setdefault(name, made)
            rows.append(row(made, self.watch, model="standard", attack=name, how=how))
        natural = self.mnist.split("train").images[: 9 * MOST]  # none is asked twice
        cover = [image.tobytes() for image in natural]
        for name, made in boxed.items():
            told = {"model": "standard", "attack": name}
            for parts in (1, 2, 4, 9):
                mixed = [diluted(one, cover, parts) for one in made]
                how = f"within the box, {parts} natural digits before each"
                rows.append(row(mixed, self.watch, **told, how=how))
            for keys in (10, 40):
                how = f"within the box, by {keys} clients"
                rows.append(row(made, self.watch, keys, **told, how=how))
        crowds = [self._crowd(first) for first in range(0, TOGETHER * half // 2, TOGETHER)]
        how = f"within the box, {TOGETHER} digits in turn"
        told = {"model": "standard", "attack": "Square, linf 0.1"}
        rows.append(row(crowds, self.watch, **told, how=how))
        return {"attacks": rows}

    def _crowd(self, first: int) -> Session:
        """Attack many digits at a time, the next query for each in turn."""
        part = slice(first, first + TOGETHER)
        return attack_session(
            self.standard,
            ATTACKS["square"](epsilon=0.1, queries=60),
            self.test.images[part, ..., 0],
            self.test.labels[part],
            seed=first,
            most=TOGETHER * 60,
            disguise=in_box,
            together=True,
        )

    def extraction(self) -> dict[str, Any]:
        """Measure who trains a copy unseen, how good it is, and what PRADA sees of all."""
        pool, by_kind = self.mnist.split("train"), dict[str, list[list[bytes]]]()
        digits = self.test.images[..., 0]
        for number in range(self.few):
            rng = np.random.default_rng([number, 5])
            seeds = digits[rng.choice(len(digits), 100, replace=False)]
            natural = pool.images[rng.choice(len(pool), 300, replace=False)]
            made = {
                "uniform noise": noise_queries(rng, 300),
                "white pixels at random": noise_queries(rng, 300, 0.15),
                "Jacobian augmentation": jacobian_queries(self.standard, seeds, most=800),
                "Jacobian augmentation within the box": jacobian_queries(
                    self.standard, seeds, most=800, boxed=True
                ),
                "scribbles, placed": scribbles(rng, 300),
                "other people's digits": [image.tobytes() for image in natural],
            }
            for kind, sent in made.items():
                by_kind.setdefault(kind, []).append(sent)
        rows = [
            row([Session(sent=one) for one in made], self.watch, kind=kind)
            for kind, made in by_kind.items()
        ]
        beside = {kind: list(people(digits, kind, self.few, 2)) for kind in PEOPLE} | by_kind
        for name, _, found in attackers(self.standard, self.test, DISGUISED, self.few, [None]):
            beside[name] = [one.sent for one in found]
        return {
            "extraction": rows,
            "prada": [prada_row(self.standard, kind, made) for kind, made in beside.items()],
            "clones": clones(self.standard, pool, self.test.part(0, 3000), 3),
        }


def honest_row(kind: str, sessions: list[list[bytes]], watch: Watch) -> dict[str, Any]:
    """Return in how many sessions of honest people there was an alarm."""
    alarms = [alarm_after(sent, watch) is not None for sent in sessions]
    asked = sum(map(len, sessions))
    made = {"kind": kind, "alarmed": Rate.of(sum(alarms), len(alarms)).to_json(), "asked": asked}
    print(made, flush=True)
    return made


def prada_row(engine: Engine, kind: str, sessions: list[list[bytes]]) -> dict[str, Any]:
    """Return in how many sessions of one kind PRADA raised an alarm."""
    alarms = 0
    for sent in sessions:
        detector = Prada(engine)
        alarms += any(detector.see(query) for query in sent[:MOST])
    made = {"kind": kind, "alarmed": Rate.of(alarms, len(sessions)).to_json()}
    print("PRADA", made, flush=True)
    return made


def main() -> None:
    """Measure, and write the file; a part alone keeps what the file has of the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100, help="of each kind of people")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "abuse.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(asked.sessions)
    for part in PARTS if asked.only is None else (asked.only,):
        found = getattr(bench, part)()
        before = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {}
        models = {one.card.name: one.card.digest for one in (bench.standard, bench.robust)}
        content = {
            **{**before, **found},
            "sessions": bench.sessions,
            "watch": asdict(bench.watch),
            "models": models,
            "data": {"name": "mnist", "digest": bench.mnist.digest},
            "versions": versions(),
            "machine": machine(),
        }
        asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
