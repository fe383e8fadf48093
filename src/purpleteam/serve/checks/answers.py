"""Checks of what the app says: the label alone, and the digest of the model it serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.serve.checks._careless import careless_server
from purpleteam.serve.checks._client import OCTETS, STROKE, Reply, ask
from purpleteam.serve.checks._web import WebCheck, address

__all__ = ["ModelDigest", "NoConfidences"]

FULL_PAGE = b"\xff" * 784
EMPTY = bytes(784)


@CHECKS.register("web.no-confidences")
class NoConfidences(WebCheck):
    """The answers to three images hold nothing but a label or a reason."""

    id = "web.no-confidences"
    proves = "The app answers with a label or a reason, never with scores."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        images = {"stroke": STROKE, "full page": FULL_PAGE, "empty page": EMPTY}
        replies = {
            name: ask(url, "POST", "/predict", body=image, headers=OCTETS)
            for name, image in images.items()
        }
        answers = {name: _fields(reply) for name, reply in replies.items()}
        return Outcome(
            passed=all(_is_bare(answer) for answer in answers.values()),
            measured={name: sorted(answer or ()) for name, answer in answers.items()},
            threshold="label, and reason where there is no label",
        )


@CHECKS.register("web.model-digest")
class ModelDigest(WebCheck):
    """/version names the digest of the model that should be served."""

    id = "web.model-digest"
    proves = "The running app serves the model whose digest is on record."
    needs = ("url", "served_digest")

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        wanted = target.served_digest
        said = (_fields(ask(url, "GET", "/version")) or {}).get("digest")
        inputs = {"/version": str(said)}
        return Outcome(passed=said == wanted, measured=said, threshold=wanted, inputs=inputs)

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        with careless_server() as url:
            yield Target(url=url, served_digest="sha256:" + 64 * "a")


def _is_bare(answer: dict[str, Any] | None) -> bool:
    if answer is None or "label" not in answer:
        return False
    if answer["label"] is None:
        return set(answer) == {"label", "reason"} and isinstance(answer["reason"], str)
    return set(answer) == {"label"} and type(answer["label"]) is int


def _fields(reply: Reply) -> dict[str, Any] | None:
    try:
        found = json.loads(reply.body)
    except ValueError:
        return None
    return found if reply.status == 200 and isinstance(found, dict) else None
