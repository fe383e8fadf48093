"""Check of what is taken from visitors who say that an answer is wrong."""

import json
import tempfile
from pathlib import Path

from purpleteam.core.checks import Outcome
from purpleteam.core.scratch import scratch
from purpleteam.serve.checks._web import STROKE, ask, left_out, must_answer, web_check
from purpleteam.serve.checks.limits import MOST_AT_ONCE, client_at, rest
from purpleteam.serve.feedback import Feedback

WRONG = "/feedback?said=3&meant=8"
BAD = ("", "?said=3", "?said=3&meant=3", "?said=3&meant=11", "?said=<b>&meant=1", "?a=1&b=2&c=3")
ONE_DRAWING = 2000  # bytes: room for no second one


@web_check("web.feedback", left_out("rate"))
def feedback(url: str) -> Outcome:
    """Who calls an answer wrong is limited, and a drawing is kept where both sides agree alone.

    The running app gets only what it must refuse, which counts as nobody's opinion; what is kept
    is looked at in apps of the check's own.
    """
    must_answer(url)
    with client_at("127.0.0.14", url) as client:
        replies = [client.ask(f"/feedback{query}".replace("<", "%3C"), b"") for query in BAD]
        replies.append(client.ask(WRONG, b"7"))
        refused = [reply.status for reply in replies]
        for _ in range(MOST_AT_ONCE):
            if (last := client.ask("/feedback", b"")).status == 429:
                break
    rest(url, last)
    kept = _kept()
    wanted = {"nobody asked for it": False, "not ticked": False, "both agree": True, "full": False}
    return Outcome(
        passed=all(400 <= status < 500 for status in refused)
        and last.status == 429
        and kept == {**wanted, "lines": 1},
        measured={"bad requests": refused, "at last": last.status, "kept": kept},
        threshold=f"4xx, 429 within {MOST_AT_ONCE} requests; kept where both agree alone",
    )


def _kept() -> dict[str, object]:
    """Return which drawings are kept, and how many lines the file then has."""
    from purpleteam.serve.main import running_app

    def tell(address: str, drawing: bytes) -> bool:
        return bool(json.loads(ask(address, "POST", WRONG, drawing).body)["kept"])

    with tempfile.TemporaryDirectory(prefix="purple-feedback-", dir=scratch()) as folder:
        file = Path(folder) / "wrong.jsonl"
        with running_app() as address:
            kept: dict[str, object] = {"nobody asked for it": tell(address, STROKE)}
        with running_app(feedback=Feedback(file=file, most_bytes=ONE_DRAWING)) as address:
            kept["not ticked"] = tell(address, b"")
            kept["both agree"] = tell(address, STROKE)
            kept["full"] = tell(address, STROKE)
        kept["lines"] = len(file.read_bytes().splitlines())
    return kept
