"""A deployed classifier that is asked over HTTP, at the pace it wants; and one of `purple serve`.

`POST /predict` takes the 784 bytes of one 28x28 grey image and answers `{"label": 7}`, or a null
label where it refuses, and with `confidences` where they are exposed. `GET /version` says what is
behind it, `GET /readyz` whether it is ready. A redirect is an error that names where it points to.
A busy app (429, 503; RFC 9110 and RFC 6585) is asked again when its Retry-After says so, else after
a pause that doubles.
"""

import email.utils
import http.client
import json
import math
import queue
import re
import ssl
import threading
import time
import weakref
from abc import abstractmethod
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from purpleteam.core.address import Address
from purpleteam.core.arrays import Singles
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import ModelError
from purpleteam.models.black_box import BlackBox, as_bytes, log_scores

SIDE, USUAL_CLASSES = 28, 10
CONNECTIONS = 4  # requests under way at once: an app far away answers as often more per second
FAINTEST = 5e-7  # confidences have six digits: what is rounded to 0 is below this
SECONDS, PATIENCE = 30.0, 300.0  # that an app may be silent, and one image wait for a busy app
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
MOST_BYTES = 1_000_000
LABELS_ALONE = "the app tells labels alone, no scores"
SERVERS = "an inference server's address ends with /v2/models/NAME, :predict or /invocations"
BYTES, JSON = "application/octet-stream", "application/json"
BUSY = (429, 503)
REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionRefusedError, "does not answer: connection refused"),
    (TimeoutError, f"does not answer: silent for {SECONDS:.0f} s"),
    (ConnectionError, "closed the connection without an answer"),
    (ssl.SSLCertVerificationError, "has no valid certificate: {}"),
    (http.client.IncompleteRead, "closed the connection in mid-answer"),
    (http.client.HTTPException, "does not speak HTTP as expected: {}"),
    (Exception, "cannot be reached: {}"),
)
"""What an error of a connection means, the first that it is one of."""


class Stopped(Exception):
    """Another request failed, or the user stopped: this one need not go out."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    body: bytes
    retry_after: str | None
    location: str | None

    @property
    def shown(self) -> str:
        """The start of the body, fit for one line."""
        return repr(" ".join(self.body.decode("utf-8", "replace").split())[:120])


class App:
    """An app, and the kept-alive connections to it, each used by one thread at a time."""

    def __init__(self, address: Address, patience: float, connections: int) -> None:
        self.address, self.patience = address, patience
        self.answered, self.waited = 0, 0.0
        self.stop = threading.Event()  # set once nobody wants the answers
        self._free_at, self._lock = 0.0, threading.Lock()
        self.lines = [self._line() for _ in range(connections)]
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()
        for line in self.lines:
            self._idle.put(line)
            weakref.finalize(self, line.close)

    def _line(self) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        if not self.address.secure:
            return http.client.HTTPConnection(host, port, timeout=SECONDS)
        tls = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=tls)

    def hold(self, seconds: float) -> None:
        """Let no request out for so long; waits that overlap count once."""
        with self._lock:
            now = time.monotonic()
            self.waited += max(0.0, now + seconds - max(self._free_at, now))
            self._free_at = max(self._free_at, now + seconds)

    def wait(self) -> None:
        """Return when a request may go out."""
        while (left := self._free_at - time.monotonic()) > 0 and not self.stop.wait(left):
            pass
        if self.stop.is_set():
            raise Stopped

    def answer(self, path: str, body: bytes | None, needed: str, kind: str = BYTES) -> Any:
        """Return the object that the app answers in JSON, which has a `needed` key.

        With a body it is posted, and counts as an image that was answered.
        """
        method = "GET" if body is None else "POST"
        reply = self.ask(method, path, body, kind)
        if 300 <= reply.status < 400:
            place = (reply.location or "nowhere")[:100]
            raise self.error(f"points elsewhere (status {reply.status}): {place!r}")
        if reply.status != 200:
            hint = f"; {SERVERS}" if (path, reply.status) == ("/predict", 404) else ""
            asked = f"{method} {path or self.address.path}"
            raise self.error(f"answered {asked} with status {reply.status}: {reply.shown}{hint}")
        try:
            answer = json.loads(reply.body)
        except (ValueError, RecursionError):
            raise self.error(f"answered with what is no JSON: {reply.shown}") from None
        if not isinstance(answer, dict) or needed not in answer:
            raise self.error(f"answered without {needed!r}: {reply.shown}")
        with self._lock:
            self.answered += body is not None
        return answer

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = BYTES) -> Reply:
        """Return the reply to one request, the first that is not "busy"."""
        spent, tries = 0.0, 0
        while True:
            self.wait()
            reply = self.send(method, path, body, kind)
            if reply.status not in BUSY:
                return reply
            pause = pause_before(reply.retry_after, tries)
            spent, tries = spent + pause, tries + 1
            if spent > self.patience:
                raise self.error(
                    f"is busy (status {reply.status}) and asks to wait {pause:.0f} s; "
                    f"the limit for one image is {self.patience:.0f} s"
                )
            self.hold(pause)

    def send(self, method: str, path: str, body: bytes | None = None, kind: str = BYTES) -> Reply:
        """Return the reply to one request, whatever it says."""
        headers = {"Accept": JSON}
        if body is not None:
            headers["Content-Type"] = kind
        if self.address.authorisation is not None:
            headers["Authorization"] = self.address.authorisation
        line = self._idle.get()
        fresh = line.sock is None

        def exchange() -> Reply:
            line.request(method, self.address.target(path), body, headers)
            with line.getresponse() as response:
                content = response.read(MOST_BYTES + 1)
                if len(content) > MOST_BYTES:
                    raise http.client.HTTPException(f"answers with more than {MOST_BYTES} bytes")
                if response.length:  # less came than was announced
                    raise http.client.IncompleteRead(content)
                told = (response.getheader(name) for name in ("Retry-After", "Location"))
                return Reply(response.status, content, *told)

        try:
            try:
                return exchange()
            except ConnectionError:
                line.close()
                if fresh:
                    raise
                return exchange()  # it had only closed the idle connection
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            line.close()
            reason = next(text for kind, text in REASONS if isinstance(error, kind))
            told = getattr(error, "verify_message", None) or getattr(error, "strerror", None)
            said = str(error)[:100] if isinstance(error, http.client.HTTPException) else told
            raise self.error(reason.format(said or type(error).__name__)) from None
        finally:
            self._idle.put(line)

    def error(self, problem: str) -> ModelError:
        """Return the error that names the app, the problem, and how many answers came before."""
        far = f"; {self.answered} images were answered before" if self.answered else ""
        return ModelError(f"{self.address.name} {problem}{far}")

    def close(self) -> None:
        """Close the sockets; the next request opens another."""
        for line in self.lines:
            line.close()


def pause_before(retry_after: str | None, tries: int) -> float:
    """Return how long to wait: what was asked for (RFC 9110, 10.2.3), or twice as long each time.

    An app that asks for 0 seconds is asked again at once, and then after a pause.
    """
    own = min(FIRST_PAUSE * 2.0 ** min(tries, 20), LONGEST_PAUSE)
    asked = (retry_after or "").strip()
    if asked.isascii() and asked.isdigit():
        seconds = float(asked)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
        except ValueError:
            return own
    return max(seconds, own if tries else 0.0)


class Remote(BlackBox):
    """A classifier behind an address; each image is a request, several are under way at once."""

    def __init__(self, app: App, **facts: Any) -> None:
        super().__init__(app.address.name, **facts)
        self._app = app
        self.calls, self.waited = app.answered, app.waited

    @abstractmethod
    def _asked(self, image: Tensor) -> Singles:
        """Return the scores (classes,) of one image (C, H, W), NaN where it is refused."""

    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes), a row of NaN where the app refused an image."""
        app = self._app
        app.stop.clear()
        with ThreadPoolExecutor(len(app.lines)) as pool:
            rows = [pool.submit(self._asked, image) for image in images]
            try:
                wait(rows, return_when=FIRST_EXCEPTION)
            finally:  # all are done, or one failed, or the user stopped
                app.stop.set()
                pool.shutdown(cancel_futures=True)
                self.calls, self.waited = app.answered, app.waited
        for error in (row.exception() for row in rows if not row.cancelled()):
            if error is not None and not isinstance(error, Stopped):
                raise error
        return torch.from_numpy(np.stack([row.result() for row in rows]))


class Endpoint(Remote):
    """An app at an address. It is asked once when it is opened, to see what it answers."""

    def __init__(
        self,
        url: str,
        *,
        classes: int | None = None,
        patience: float = PATIENCE,
        connections: int = CONNECTIONS,
    ) -> None:
        """Open `http://HOST:PORT`, or https; a user and password in it are sent and never shown.

        There are as many classes as the app says, else 10.
        """
        app = App(Address.of(url), patience, connections)
        ready = app.send("GET", "/readyz")
        if ready.status >= 500:
            raise app.error(f"is not ready (status {ready.status}): {ready.shown}")
        version, facts = app.ask("GET", "/version"), {}
        with suppress(ValueError, RecursionError):
            said = json.loads(version.body) if version.status == 200 else None
            facts = said if isinstance(said, dict) else {}
        stroke = np.zeros((SIDE, SIDE), np.uint8)  # upright: an app for digits takes it for one
        stroke[4:24, 13:15] = 255
        first = app.answer("/predict", stroke.tobytes(), "label")
        tells = facts.get("confidences") is True or "confidences" in first
        stated = facts.get("digest")
        if isinstance(stated, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", stated):
            note = "the model's digest is the one that the app states of itself"
        else:
            stated = sha256_bytes(app.address.name.encode())
            note = "the app states no digest: the model's is of its address, and may hide a change"
        lists = (facts.get("classes"), first.get("confidences"))
        shown = next((len(part) for part in lists if isinstance(part, list) and part), 0)
        super().__init__(
            app,
            digest=stated,
            shape=(1, SIDE, SIDE),
            classes=classes or shown or USUAL_CLASSES,
            gives="scores" if tells else "labels",
            notes=(note,) if tells else (note, LABELS_ALONE),
        )
        # an answer that means nothing is an error now, not later; a refusal counts as the call does
        self.refusals += int(np.isnan(self._row(first)).any())

    def _asked(self, image: Tensor) -> Singles:
        return self._row(self._app.answer("/predict", as_bytes(image).tobytes(), "label"))

    def _row(self, answer: dict[str, Any]) -> Singles:
        """Return the scores (classes,) that an answer means."""
        label, shares, classes = answer["label"], answer.get("confidences"), self.classes
        if label is None:
            return np.full(classes, np.nan, np.float32)
        if type(label) is not int or not 0 <= label < classes:
            wrong = f"answered with label {label!r:.50}, not one of 0 to {classes - 1}"
            raise self._app.error(wrong)
        if self.gives == "labels":
            return np.asarray(np.arange(classes) == label, np.float32)
        if not (
            isinstance(shares, list)
            and len(shares) == classes
            and all(type(share) in (int, float) and 0 <= share <= 1 for share in shares)
            and math.isclose(sum(shares), 1, abs_tol=0.01)
        ):
            wrong = f"answered with confidences {shares!r:.60}, not {classes} that sum to 1"
            raise self._app.error(wrong)
        scores: Singles = log_scores(torch.tensor(shares), FAINTEST).numpy()
        if scores.argmax() != label:  # the app decides otherwise than by the largest
            scores[label] = np.nextafter(scores.max(), np.float32(np.inf))
        return scores
