"""A check that requests can be found again in the operator's log."""

import re

from purpleteam.core.checks import Outcome
from purpleteam.serve.checks._web import OCTETS, STROKE, ask, left_out, web_check

OWN = "0123456789abcdef"


@web_check("web.request-ids", left_out("watch"))
def request_ids(url: str) -> Outcome:
    """Every answer, a refusal too, carries a new id of the request, and never the client's own."""
    replies = {
        "page": ask(url, "GET", "/"),
        "answer": ask(url, "POST", "/predict", STROKE),
        "the same again": ask(url, "POST", "/predict", STROKE, {**OCTETS, "X-Request-Id": OWN}),
        "no such path": ask(url, "GET", "/no-such-path", headers={"X-Request-Id": OWN}),
        "wrong type": ask(url, "POST", "/predict", STROKE, {}),
        "too large": ask(url, "POST", "/predict", bytes(100_000)),
        "foreign host": ask(url, "GET", "/", headers={"Host": "evil.example"}),
    }
    ids = {name: reply.headers.get("x-request-id", "") for name, reply in replies.items()}
    wrong = sorted(name for name, id in ids.items() if not re.fullmatch(r"[\w-]{8,64}", id))
    new = len(set(ids.values())) == len(ids) and OWN not in ids.values()
    return Outcome(
        passed=not wrong and new,
        measured={"asked": len(ids), "without": wrong, "all new": new},
        threshold="an id of its own on each",
    )
