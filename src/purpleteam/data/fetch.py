"""A file over HTTPS, from the first mirror whose content has the wanted digest.

A transfer that breaks off is resumed; no file gets its final name before its digest is right.
"""

import hashlib
import time
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from purpleteam.core.errors import DataError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.idx import open_idx

MAX_DOWNLOAD = 64 << 20  # most bytes that a download may have; MNIST's largest file has 10 MB
MAX_CONTENT = 256 << 20  # most bytes that it may hold after decompression
PATIENCE = 900.0  # seconds after which a transfer is given up, however steadily it drips
TRIES = 3  # attempts per mirror; each takes up where the one before broke off
CHUNK = 1 << 16
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Rejected(Exception):
    """A mirror that is out of reach, or whose answer or content is wrong."""


class _Broken(_Rejected):
    """A transfer that ended early and is worth resuming."""


def fetch_file(
    urls: tuple[str, ...],
    target: Path,
    digest: str,
    *,
    timeout: float = 30.0,
    max_bytes: int = MAX_DOWNLOAD,
    progress: Progress = SILENT,
) -> None:
    """Fetch an IDX file to `target`, unless it is there with the right content already."""
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
        for attempt in range(1, TRIES + 1):
            resumed = part.is_file()
            try:
                _transfer(url, part, timeout, max_bytes, progress)
                if wrong := _wrong(part, digest):
                    part.unlink()  # what was taken up wrongly is begun afresh
                    raise (_Broken if resumed else _Rejected)(wrong)
            except _Rejected as error:
                if attempt == TRIES or not isinstance(error, _Broken):
                    reasons.append(f"{url}: {error}")
                    break
            else:
                part.replace(target)
                for leftover in target.parent.glob(f"{target.name}.*.part"):
                    leftover.unlink(missing_ok=True)
                return
    raise DataError(f"cannot fetch {target.name}: {'; '.join(reasons)}")


def _wrong(path: Path, digest: str) -> str:
    """Return why the content of a file is not the wanted one, or nothing where it is."""
    try:
        actual = open_idx(path, max_bytes=MAX_CONTENT).digest
    except DataError as error:
        return str(error)
    return "" if actual == digest else f"content is {actual}, expected {digest}"


def _transfer(url: str, part: Path, timeout: float, max_bytes: int, progress: Progress) -> None:
    have = part.stat().st_size if part.is_file() else 0
    with _opened(url, part, have, timeout) as response:
        # The server may send all of the file again, from its first byte.
        span = response.headers.get("Content-Range", "")
        if response.status != HTTPStatus.PARTIAL_CONTENT or not span.startswith(f"bytes {have}-"):
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        if (total or 0) > max_bytes:
            raise _Rejected(f"offers {total} bytes, at most {max_bytes} are fetched")
        task_of = progress.task(f"fetching {part.name.partition('.')[0]}", total or max_bytes)
        with part.open("ab" if have else "wb") as file, task_of as task:
            task.advance(have)
            deadline = time.monotonic() + PATIENCE
            try:
                while piece := response.read1(CHUNK):
                    have += len(piece)
                    if have > max_bytes:
                        raise _Rejected(f"sends more than {max_bytes} bytes")
                    if time.monotonic() > deadline:
                        raise _Broken(f"sent only {have} bytes in {PATIENCE:.0f} s")
                    file.write(piece)
                    task.advance(len(piece))
            except (OSError, HTTPException) as error:
                raise _Broken(f"broke off after {have} bytes: {error}") from None
    if total is not None and have < total:
        raise _Broken(f"broke off after {have} of {total} bytes")


def _opened(url: str, part: Path, have: int, timeout: float) -> HTTPResponse:
    _check_address(url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "purpleteam"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    request = Request(url, headers=headers)  # noqa: S310  checked above
    direct = [ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    try:
        opener = build_opener(_OnlySafeRedirects(), *direct)
        response: HTTPResponse = opener.open(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise _Broken("the part was longer than the file") from None
        raise _Rejected(f"answers {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise _Rejected(f"cannot be reached: {getattr(error, 'reason', None) or error}") from None
    return response


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise _Rejected("only https is fetched")


class _OnlySafeRedirects(HTTPRedirectHandler):
    """Follows a redirect only to an address that would be fetched itself."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise _Rejected("only https is fetched, and this leads elsewhere")
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
