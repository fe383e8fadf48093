"""VNN-LIB as it is written, read by another library and by ours, and the verdicts read back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from purpleteam.certify.vnnlib import VERSIONS, Property, read_verdict
from purpleteam.core.errors import DataError, UsageError

PIXELS = arrays(np.float32, (1, 3, 2, 2), elements=st.floats(0, 1, width=32))
RADII = st.one_of(st.floats(0, 1), st.sampled_from([2 / 255, 8 / 255, 0.1, 0.3, 1e-12]))


def property_of(image: np.ndarray, epsilon: float = 0.1, outputs: int = 4) -> Property:
    return Property.around(image, epsilon, 1, outputs)


@given(PIXELS, RADII)
def test_the_box_holds_the_real_ball_and_no_float_more_than_it_must(image, epsilon):
    found = property_of(image, epsilon)
    for pixel, low, high in zip(image.flat, found.lower.flat, found.upper.flat):
        least = max(Fraction(float(pixel)) - Fraction(epsilon), 0)
        most = min(Fraction(float(pixel)) + Fraction(epsilon), 1)
        assert low <= least < np.nextafter(low, np.float32(2))
        assert np.nextafter(high, np.float32(-1)) < most <= high


@given(PIXELS, RADII, st.sampled_from(VERSIONS), st.integers(2, 12))
def test_a_property_is_read_as_it_was_written(image, epsilon, version, outputs):
    asked = property_of(image, epsilon, outputs)
    found = Property.read(asked.text(version))
    assert (found.lower.ravel() == asked.lower.ravel()).all()
    assert (found.upper.ravel() == asked.upper.ravel()).all()
    assert (found.label, found.classes) == (1, outputs)
    assert found.lower.shape == (image.shape if version == "2.0" else (image.size,))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_number_is_exact_in_any_arithmetic(version):
    asked = property_of(np.full((1, 1, 1, 2), 1 / 3, np.float32), 1e-9)
    lines = [line for line in asked.text(version).splitlines() if "X" in line and "assert" in line]
    told = [Fraction(line.split()[-1].rstrip(")")) for line in lines]
    edges = np.stack([asked.lower.ravel(), asked.upper.ravel()], 1)
    assert told == [Fraction(float(edge)) for edge in edges.flat]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("change", [(">=", "<="), ("(or", "(and"), ("0.", "0.1"), ("Y", "Z")])
def test_another_text_is_not_read(version, change):
    text = property_of(np.full((1, 1, 1, 2), 0.5, np.float32)).text(version)
    with pytest.raises(DataError, match="no property that Purpleteam wrote"):
        Property.read(text.replace(*change, 1))


@pytest.mark.parametrize("outputs", [2, 5])
def test_the_library_of_the_format_reads_the_same_box_and_the_same_ways(outputs):
    vnnlib = pytest.importorskip("vnnlib", reason="vnnlib comes with make peers")
    image = np.random.default_rng(0).random((1, 3, 2, 2), np.float32)
    asked = property_of(image, 2 / 255, outputs)
    query = vnnlib.parse_query_string(asked.text("2.0"))
    network = query.networks[0]
    assert (network.inputs[0].shape, network.outputs[0].shape) == ([1, 3, 2, 2], [1, outputs])
    *bounds, ways = [one.expr for one in query.assertions]
    edges = {"GreaterEqual": np.full(image.shape, -1.0), "LessEqual": np.full(image.shape, -1.0)}
    for bound in bounds:
        edges[type(bound).__name__][tuple(bound.lhs.indices)] = bound.rhs.value
    assert (edges["GreaterEqual"] == asked.lower).all() and (
        edges["LessEqual"] == asked.upper
    ).all()
    atoms = [way.args for way in ways.args]
    assert all(type(one).__name__ == "GreaterEqual" for (one,) in atoms)
    told = [(one.lhs.indices, one.rhs.indices) for (one,) in atoms]
    assert told == [([0, other], [0, 1]) for other in range(outputs) if other != 1]


@pytest.mark.parametrize("epsilon", [-0.1, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(epsilon):
    with pytest.raises(UsageError, match=f"finite number from 0, not {epsilon}"):
        property_of(np.zeros((1, 1, 1, 1), np.float32), epsilon)


WITNESS = arrays(np.float32, 5, elements=st.floats(width=32, allow_nan=False))
FORMS = {
    "VNN-COMP": lambda x: f"({' '.join(f'(X_{i} {v!r})' for i, v in enumerate(x))}\n(Y_0 0.5))",
    "VNN-LIB 2.0": lambda x: "\n".join(["X float32 [1,5]", *map(repr, x), "Y float32 [1,1]", "3"]),
}


@pytest.mark.parametrize("form", FORMS)
@given(witness=WITNESS)
def test_a_witness_is_read_to_the_last_bit(form, witness):
    word, found = read_verdict(f"sat\n{FORMS[form](witness.tolist())}\n")
    assert word == "sat" and found.tobytes() == witness.tobytes()


@pytest.mark.parametrize("text", ["unsat", "timeout\n", "unknown", "sat", "timed-out"])
def test_a_verdict_alone_is_read(text):
    word, witness = read_verdict(text)
    assert word == text.strip().replace("timed-out", "timeout") and witness.size == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("verified", "unknown verdict 'verified'; known: sat, timeout, unknown, unsat"),
        ("", "unknown verdict ''"),
        ("sat\n((X_1 0.5))", "does not give X_0"),
        ("sat\n((X_0 0.5) (X_0 0.5))", "each once"),
        ("sat\n((X_0 half))", "no number"),
        ("sat\nX float32 [1,1]\n0.1.2\n", "no number"),
    ],
    ids=["another word", "nothing", "a gap", "twice", "a word for a number", "two points"],
)
def test_what_is_no_verdict_is_refused(text, why):
    with pytest.raises(DataError, match=why):
        read_verdict(text)
