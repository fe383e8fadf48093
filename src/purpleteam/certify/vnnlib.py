"""Robustness problems for any verifier: properties in VNN-LIB 1.0 and 2.0, verdicts read back.

A property asks for an image in a box whose label is not the highest score: `unsat` proves that
there is none, and `sat` is believed when its witness, replayed through ONNX Runtime, is one.
Formats: vnnlib.org, and the rules of VNN-COMP 2024 (arXiv:2412.19985) for instances and verdicts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import DataError, Refused, UsageError, reason_of, unknown
from purpleteam.models.black_box import session_of

VERSIONS = ("1.0", "2.0")
WORDS = ("unsat", "sat", "timeout", "unknown")
TIMEOUT = 60  # seconds that instances.csv allows
Singles = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Property:
    """That some image of a box scores another class at least as high as its label."""

    lower: Singles
    upper: Singles
    """The box, in the shape of the net's input, (1, C, H, W); flat where VNN-LIB 1.0 was read."""
    label: int
    classes: int

    @classmethod
    def around(cls, image: Singles, epsilon: float, label: int, classes: int) -> Property:
        """Return it for the L-infinity ball around an image (1, C, H, W)."""
        if not 0 <= epsilon < math.inf:
            raise UsageError(f"--epsilon must be a finite number from 0, not {epsilon}")
        lower, upper = box_of(image, epsilon)
        return cls(lower=lower, upper=upper, label=label, classes=classes)

    def text(self, version: str) -> str:
        """Return it in VNN-LIB, one atom an `and`, as verifiers refuse more.

        Numbers have all of their digits: every arithmetic reads the same box.
        """
        shape = ",".join(map(str, self.lower.shape))
        if version == "1.0":
            x, y = ([f"{of}_{i}" for i in range(n)]
                    for of, n in (("X", self.lower.size), ("Y", self.classes)))  # fmt: skip
            head = [f"(declare-const {name} Real)" for name in (*x, *y)]
        else:
            x = [f"X[{','.join(map(str, index))}]" for index in np.ndindex(self.lower.shape)]
            y = [f"Y[0,{i}]" for i in range(self.classes)]
            ends = f"(declare-output Y float32 [1,{self.classes}])"
            ends = f"(declare-input X float32 [{shape}]) {ends}"
            head = ["(vnnlib-version <2.0>)", f"(declare-network N {ends})"]
        bounds = [
            f"(assert (>= {name} {_in_full(low)}))\n(assert (<= {name} {_in_full(high)}))"
            for name, low, high in zip(x, self.lower.flat, self.upper.flat, strict=True)
        ]
        ways = " ".join(
            f"(and (>= {y[other]} {y[self.label]}))"
            for other in range(self.classes)
            if other != self.label
        )
        return "\n".join([*head, *bounds, f"(assert (or {ways}))\n"])

    @classmethod
    def read(cls, text: str) -> Property:
        """Return what `text` wrote; a DataError where it differs by a character."""
        bounds = np.array(re.findall(r"= X\S+ (\d+\.\d+)\)", text), np.float64).astype(np.float32)
        version, classes = "1.0", text.count("(declare-const Y_")
        shape: tuple[int, ...] = (len(bounds) // 2,)
        if told := re.search(r"X float32 \[([\d,]+)\]\) \(declare-output Y \w+ \[1,(\d+)\]", text):
            version, shape, classes = "2.0", tuple(map(int, told[1].split(","))), int(told[2])
        label = re.search(r"Y\D+(?:0,)?(\d+)\]?\)\)+\s*$", text)
        if label and int(label[1]) < classes and len(bounds) == 2 * math.prod(shape):
            lower, upper = (edge.reshape(shape) for edge in bounds.reshape(-1, 2).T)
            found = cls(lower=lower, upper=upper, label=int(label[1]), classes=classes)
            if found.text(version) == text:
                return found
        raise DataError("it is no property that Purpleteam wrote")

    def refutation(self, session: Any, witness: Singles) -> str:
        """Return why a witness is no counterexample in ONNX Runtime; "" where it is one."""
        if witness.size != self.lower.size:
            return f"the witness has {witness.size} of {self.lower.size} inputs"
        x = witness.reshape(self.lower.shape)
        if not (inside := (self.lower <= x) & (x <= self.upper)).all():  # NaN is not
            i = int(inside.argmin())
            low, high = self.lower.flat[i], self.upper.flat[i]
            return f"X_{i} = {x.flat[i]:.9g} is outside the box, {low:.9g} to {high:.9g}"
        scores = session.run(None, {session.get_inputs()[0].name: x})[0][0]
        wrong = (np.delete(scores, self.label) >= scores[self.label]).any()
        return "" if wrong else f"ONNX Runtime scores the label {self.label} highest"


def box_of(image: Singles, epsilon: float) -> tuple[Singles, Singles]:
    """Return the least box of float32 numbers that holds a ball of reals, cut to [0, 1]."""
    lower, upper = (_outward(image, epsilon, side) for side in (-1, 1))
    return np.maximum(lower, np.float32(0)), np.minimum(upper, np.float32(1))


def _outward(centre: Singles, epsilon: float, side: int) -> Singles:
    """Return the float32 edge of a ball's box on one side, -1 or 1, never within the real one."""
    a, b = centre.astype(np.float64), side * epsilon
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)  # a + b is total + error exactly (Knuth's TwoSum)
    edge = total.astype(np.float32)
    within = side * (edge - total) < side * error
    return np.where(within, np.nextafter(edge, np.float32(side * np.inf)), edge)


def _in_full(value: np.float32) -> str:
    text = format(Decimal(float(value)), "f")
    return text if "." in text else f"{text}.0"


def read_verdict(text: str) -> tuple[str, Singles]:
    """Return one of `WORDS` and the witness, flat, of length 0 where there is none.

    Forms: VNN-COMP's, `(X_0 0.5)`, and that of VNN-LIB 2.0's solvers, a line for each value.
    """
    word, _, rest = text.strip().partition("\n")
    word = word.strip().replace("timed-out", "timeout")
    if word not in WORDS:
        raise DataError(unknown("verdict", word[:40], WORDS))
    pairs = re.findall(r"\(\s*X_(\d+)\s+([^\s()]+)\s*\)", rest)
    values = [value for _, value in pairs]
    if [int(number) for number, _ in pairs] != list(range(len(pairs))):
        raise DataError("its witness does not give X_0, X_1, ... in order, each once")
    if listed := re.match(r"X \w+ \[.*\]\n([^XY]*)", rest):
        values = listed[1].split()
    try:
        with np.errstate(over="ignore"):
            return word, np.array(values, np.float64).astype(np.float32)
    except ValueError as error:
        raise DataError(f"its witness holds what is no number: {reason_of(error)}") from None


def write_problem(
    folder: Path, net: bytes, properties: Sequence[Property], about: Mapping[str, Any]
) -> None:
    """Write net.onnx, properties with their instances.csv in 1.0/ and 2.0/, and manifest.json."""
    digests: dict[str, str] = {}

    def put(name: str, content: bytes) -> None:
        digests[name] = sha256_bytes(content)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    put("net.onnx", net)
    for version in VERSIONS:
        rows = [f"../net.onnx,{i:05d}.vnnlib,{TIMEOUT}\n" for i in range(len(properties))]
        put(f"{version}/instances.csv", "".join(rows).encode())
        for i, one in enumerate(properties):
            put(f"{version}/{i:05d}.vnnlib", one.text(version).encode())
    put("manifest.json", json.dumps({**about, "files": digests}, indent=1).encode())


def read_verdicts(folder: Path, verdicts: Path) -> dict[str, tuple[str, str]]:
    """Return for each property of a written folder a verdict's word, and why it is not believed.

    The verdict on 2.0/00000.vnnlib is `<verdicts>/00000.txt`; "" where there is no such file.

    Raises:
        DataError: a file is missing, or is no verdict or property.
        Refused: a file is not the one of the manifest.
    """
    contents, found, path = {}, {}, folder / "manifest.json"
    try:
        for name, digest in json.loads(path.read_bytes())["files"].items():
            path = folder / name
            contents[name] = path.read_bytes()
            if sha256_bytes(contents[name]) != digest:
                raise Refused(f"{str(path)!r} is not the file of its manifest: write all anew")
        session = session_of("net.onnx", contents["net.onnx"])
        for name in sorted(name for name in contents if re.fullmatch(r"2\.0/\d+\.vnnlib", name)):
            path, word, why = verdicts / f"{Path(name).stem}.txt", "", ""
            if path.is_file():
                word, witness = read_verdict(path.read_text(encoding="utf-8", errors="replace"))
                asked = Property.read(contents[name].decode())
                why = asked.refutation(session, witness) if word == "sat" else ""
            found[path.stem] = word, why
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {reason_of(error)}") from None
    return found
