"""Check that whoever attacks the model by queries is slowed down, and who draws is not."""

import time
from collections.abc import Iterator

import numpy as np

from purpleteam.core.checks import Outcome
from purpleteam.core.errors import Absent
from purpleteam.serve.checks._web import (
    STROKE,
    Reply,
    ask,
    credentials,
    left_out,
    must_answer,
    web_check,
)
from purpleteam.serve.guards.abuse import SLOWED

ROWS = range(5, 21, 2)  # of a stroke, as it grows
MOST_QUERIES = 48
LONGEST_WAIT = 3.0  # seconds that another guard may ask for, such as the limit on the rate


@web_check("web.abuse", left_out("abuse"))
def abuse(url: str) -> Outcome:
    """Whoever asks as a black-box attack asks is slowed down, and who draws a digit is not."""
    must_answer(url)
    if credentials(url):
        raise Absent("an attack by the one key of the address would slow down all other checks")
    drawing = [STROKE[: 28 * (4 + rows)].ljust(len(STROKE), b"\0") for rows in ROWS]
    statuses = sorted({_patiently(url, preview, False).status for preview in drawing})
    slowed_after = None
    for number, query in enumerate(square_queries(MOST_QUERIES), 1):
        if SLOWED in _patiently(url, query, True).text:
            slowed_after = number
            break
    return Outcome(
        passed=slowed_after is not None and statuses == [200],
        measured={"an attack slowed after": slowed_after, "a drawing": statuses},
        threshold=f"within {MOST_QUERIES} queries; 200 each time",
    )


def square_queries(count: int) -> Iterator[bytes]:
    """Yield what a Square attack that never succeeds asks: the image in stripes, then squares."""
    rng, image = np.random.default_rng(0), np.frombuffer(STROKE, np.uint8).reshape(28, 28)
    stripes = image + rng.choice([-76, 76], (1, 28))
    for _ in range(count):
        asked, (down, across) = stripes.copy(), rng.integers(0, 20, 2)
        window = slice(down, down + 8), slice(across, across + 8)
        asked[window] = image[window] + rng.choice([-76, 76])
        yield asked.clip(0, 255).astype(np.uint8).tobytes()


def _patiently(url: str, image: bytes, elsewhere: bool) -> Reply:
    """Ask, and once more where another guard asks for a moment."""
    reply = ask(url, "POST", "/predict", image, elsewhere=elsewhere)
    wait = reply.headers.get("retry-after", "")
    if SLOWED not in reply.text and wait.isdigit() and int(wait) <= LONGEST_WAIT:
        time.sleep(int(wait))
        reply = ask(url, "POST", "/predict", image, elsewhere=elsewhere)
    return reply
