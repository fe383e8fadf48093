"""Any record of any kind, for property tests."""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

from purpleteam.core.metrics import METRICS
from purpleteam.core.records import (
    Artefact,
    CheckResult,
    Failure,
    Finding,
    Measurement,
    Note,
    Record,
    Severity,
    ThreatStatus,
    Verdict,
)
from purpleteam.core.statistics import Counts, Estimate, Rate

__all__ = ["ANY_RECORD", "KINDS", "NOTES"]

TEXT = st.text(max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FACTS = st.dictionaries(TEXT, JSON, max_size=3)
SHARED = {
    "cost": st.dictionaries(TEXT, NUMBERS, max_size=2),
    "command": st.lists(TEXT, max_size=3).map(tuple),
}
RATES = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).map(lambda successes: Rate.of(successes, n))
)
ESTIMATES = st.builds(
    Estimate,
    value=NUMBERS,
    n=st.integers(1, 99),
    low=NUMBERS,
    high=NUMBERS,
    method=st.sampled_from(["t", "bootstrap", "newcombe-paired"]),
    values=st.lists(NUMBERS, max_size=3).map(tuple),
)
TABLES = st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=2, max_size=2).map(
    lambda rows: Counts(value=tuple(map(tuple, rows)), n=sum(map(sum, rows)))
)
LEVELS = st.sampled_from(get_args(Severity))

KINDS: dict[type[Record], st.SearchStrategy[Record]] = {
    Failure: st.builds(Failure, stage=TEXT, what=TEXT, reason=TEXT, needs=TEXT, **SHARED),
    Measurement: st.builds(
        Measurement,
        name=st.sampled_from(sorted(METRICS)),
        value=RATES | ESTIMATES | TABLES,
        subject=FACTS,
        how=FACTS,
        detail=FACTS,
        seed=st.none() | st.integers(0, 9),
        **SHARED,
    ),
    Finding: st.builds(
        Finding,
        tool=TEXT,
        rule=TEXT,
        severity=LEVELS,
        confidence=TEXT,
        message=TEXT,
        place=FACTS,
        cwe=st.none() | TEXT,
        fix=st.none() | TEXT,
        **SHARED,
    ),
    CheckResult: st.builds(
        CheckResult,
        check=TEXT,
        proves=TEXT,
        verdict=st.sampled_from(get_args(Verdict)),
        measured=JSON,
        threshold=JSON,
        message=TEXT,
        inputs=st.dictionaries(TEXT, TEXT, max_size=2),
        negative_control=st.dictionaries(TEXT, st.booleans(), max_size=2),
        **SHARED,
    ),
    Artefact: st.builds(Artefact, path=TEXT, digest=TEXT, made_by=TEXT, **SHARED),
    ThreatStatus: st.builds(
        ThreatStatus,
        threat=TEXT,
        element=TEXT,
        stride=TEXT,
        title=TEXT,
        inherent=LEVELS,
        residual=LEVELS,
        status=st.sampled_from(["mitigated", "partly", "open", "accepted", "not_applicable"]),
        mitigations=FACTS,
        origin=st.lists(TEXT, max_size=2).map(tuple),
        **SHARED,
    ),
    Note: st.builds(Note, name=TEXT, facts=FACTS, **SHARED),
}
ANY_RECORD = st.one_of(*KINDS.values())
NOTES = st.lists(KINDS[Note], max_size=4)
