"""A file over HTTPS, from the first mirror whose content is what it must be.

A transfer that breaks off is taken up where it stopped. Nothing gets its final name before its
digest is right, so what is in the cache has been verified, whoever served it.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from purpleteam.core.errors import DataError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.idx import open_idx

MAX_DOWNLOAD = 64 << 20
"""Most bytes that a download may have; MNIST's largest file has 10 MB."""
MAX_CONTENT = 256 << 20
"""Most bytes that it may hold after decompression."""
PATIENCE = 900.0
"""Seconds after which a transfer is given up, however steadily it drips."""
TRIES = 3
"""Attempts per mirror; each takes up where the one before broke off."""
CHUNK = 1 << 16
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Broken(Exception):
    """A transfer that ended early and is worth taking up again."""


class _Rejected(Exception):
    """A mirror that cannot help: it is out of reach, or its answer or content is wrong."""


def fetch_file(
    urls: tuple[str, ...],
    target: Path,
    digest: str,
    *,
    timeout: float = 30.0,
    max_bytes: int = MAX_DOWNLOAD,
    progress: Progress = SILENT,
) -> None:
    """Fetch an IDX file to `target`, unless it is there with the right content already.

    Raises:
        DataError: no mirror gave the content with this `digest`; names each and why.
    """
    if target.is_file() and not _wrong(target, digest):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be made: {error.strerror}") from None
    reasons = []
    for url in urls:
        mark = hashlib.sha256(url.encode()).hexdigest()[:8]  # mirrors compress differently
        part = target.with_name(f"{target.name}.{mark}.part")
        try:
            _from_mirror(_Transfer(url, part, timeout, max_bytes, progress), digest)
        except (_Broken, _Rejected) as error:
            reasons.append(f"{url}: {error}")
            continue
        part.replace(target)
        for leftover in target.parent.glob(f"{target.name}.*.part"):
            leftover.unlink(missing_ok=True)
        return
    raise DataError(f"cannot fetch {target.name}: {'; '.join(reasons)}")


def _from_mirror(transfer: _Transfer, digest: str) -> None:
    """Bring the part to the wanted content; one that was taken up wrongly is begun afresh."""
    for attempt in range(1, TRIES + 1):
        resumed = transfer.part.is_file()
        try:
            transfer.run()
        except _Broken:
            if attempt == TRIES:
                raise
            continue
        wrong = _wrong(transfer.part, digest)
        if not wrong:
            return
        transfer.part.unlink()
        if not resumed or attempt == TRIES:
            raise _Rejected(wrong)


def _wrong(path: Path, digest: str) -> str:
    """Return why the content of a file is not the wanted one, or nothing where it is."""
    try:
        actual = open_idx(path, max_bytes=MAX_CONTENT).digest
    except DataError as error:
        return str(error)
    return "" if actual == digest else f"content is {actual}, expected {digest}"


@dataclass(frozen=True)
class _Transfer:
    """One attempt to complete `part` from `url`."""

    url: str
    part: Path
    timeout: float
    max_bytes: int
    progress: Progress

    def run(self) -> None:
        have = self.part.stat().st_size if self.part.is_file() else 0
        with self._open(have) as response:
            # The server may send the whole file again, from its first byte.
            is_rest = response.status == http.client.PARTIAL_CONTENT and response.headers.get(
                "Content-Range", ""
            ).startswith(f"bytes {have}-")
            start = have if is_rest else 0
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            if (total or 0) > self.max_bytes:
                raise _Rejected(f"offers {total} bytes, at most {self.max_bytes} are fetched")
            name = f"fetching {self.part.name.partition('.')[0]}"
            with (
                self.part.open("ab" if start else "wb") as file,
                self.progress.task(name, total or self.max_bytes) as task,
            ):
                task.advance(start)
                for piece in self._pieces(response, start, total):
                    file.write(piece)
                    task.advance(len(piece))

    def _open(self, have: int) -> http.client.HTTPResponse:
        _check_address(self.url)
        headers = {"Accept-Encoding": "identity", "User-Agent": "purpleteam"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310  checked above
        handlers: list[urllib.request.BaseHandler] = [_OnlySafeRedirects()]
        if urlsplit(self.url).hostname in LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        try:
            opener = urllib.request.build_opener(*handlers)
            response: http.client.HTTPResponse = opener.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.unlink(missing_ok=True)
                raise _Broken("the part was longer than the file") from None
            raise _Rejected(f"answers {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise _Rejected(f"cannot be reached: {reason}") from None
        return response

    def _pieces(
        self, response: http.client.HTTPResponse, have: int, total: int | None
    ) -> Iterator[bytes]:
        """Yield what arrives, and notice when it is too much, too slow or too little."""
        deadline = time.monotonic() + PATIENCE
        try:
            while piece := response.read1(CHUNK):
                have += len(piece)
                if have > self.max_bytes:
                    raise _Rejected(f"sends more than {self.max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise _Broken(f"sent only {have} bytes in {PATIENCE:.0f} s")
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"broke off after {have} bytes: {error}") from None
        if total is not None and have < total:
            raise _Broken(f"broke off after {have} of {total} bytes")


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise _Rejected("only https is fetched")


class _OnlySafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where we would have gone ourselves."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise _Rejected("only https is fetched, and this leads elsewhere")
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
