"""A system of three parts that every test can bend, and the one that ships."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from purpleteam.threats import load_system
from purpleteam.threats.model import SystemModel

TODAY = date(2026, 11, 20)

SMALL: dict[str, Any] = {
    "name": "small",
    "description": "A visitor asks an app that reads a file.",
    "zones": [
        {"id": "out", "name": "Outside", "description": "Strangers."},
        {"id": "in", "name": "Inside", "description": "Us."},
    ],
    "elements": [
        {
            "id": "user",
            "kind": "external",
            "name": "Visitor",
            "zone": "out",
            "description": "Asks.",
        },
        {"id": "app", "kind": "process", "name": "App", "zone": "in", "description": "Answers."},
        {"id": "file", "kind": "store", "name": "File", "zone": "in", "description": "Weights."},
    ],
    "flows": [
        {"id": "f-ask", "name": "question", "source": "user", "target": "app", "description": "Q."},
        {"id": "f-read", "name": "read", "source": "file", "target": "app", "description": "W."},
    ],
    "threats": [
        {
            "id": "T-FILE-T1",
            "element": "file",
            "stride": "T",
            "title": "The file is replaced",
            "description": "Another file of the same name.",
            "inherent": {"likelihood": "high", "impact": "medium", "why": "It is writable."},
            "mitigations": ["M-DIGEST", "M-FORMAT"],
            "refs": {"cwe": ["CWE-345"]},
        }
    ],
    "mitigations": [
        {
            "id": "M-DIGEST",
            "statement": "The digest is checked.",
            "effect": {"likelihood": -1},
            "why": "Another file is found.",
            "checks": {"all": ["model.digest", "web.model-digest"]},
        },
        {
            "id": "M-FORMAT",
            "statement": "The format holds no code.",
            "effect": {"impact": -1},
            "why": "Nothing runs.",
            "checks": {"any": ["model.format", "model.scan"]},
        },
    ],
    "not_applicable": [{"element": "file", "stride": ["R", "I"], "reason": "Public."}],
    "catalogue": {"CWE-345": "Insufficient Verification of Data Authenticity"},
}


@pytest.fixture(scope="session")
def shipped() -> SystemModel:
    return load_system()


@pytest.fixture
def small() -> dict[str, Any]:
    return copy.deepcopy(SMALL)


@pytest.fixture
def bend(small: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Return the small system with one field of one entry changed."""

    def change(section: str, index: int, **values: Any) -> dict[str, Any]:
        small[section][index].update(values)
        return small

    return change
