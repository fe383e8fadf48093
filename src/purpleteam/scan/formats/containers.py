"""Containers that the standard library opens: tar, and streams packed by zlib, bz2 or xz.

What is unpacked goes to a nameless file on disk, so memory stays small however much it is.
"""

import bz2
import io
import lzma
import mmap
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

from purpleteam.scan.formats.problem import Problem

PIECE = 1 << 20
MAX_MEMORY = 64 << 20  # that an xz stream may ask for
STREAMS: dict[str, Any] = {
    **dict.fromkeys(("gzip", "zlib"), lambda: zlib.decompressobj(zlib.MAX_WBITS | 32)),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=MAX_MEMORY),
}
BROKEN = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError)


class View(io.RawIOBase):
    """Bytes as a file that can be read, without a copy of them."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.at = max(0, (0, self.at, len(self.data))[whence] + offset)
        return self.at

    def readinto(self, buffer: Any, /) -> int:
        piece = self.data[self.at : self.at + len(buffer)]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


def unpacked(data: memoryview, kind: str, most: int) -> tuple[memoryview, str]:
    """Return at most so many bytes of what is packed, and why that is not all of it.

    What comes before a damage is returned too: whoever reads as it unpacks has read it by then.
    """
    with tempfile.TemporaryFile() as file:
        why = ""
        try:
            for piece in _pieces(data, kind):
                file.write(piece[: most - file.tell()])
                if file.tell() >= most:
                    why = f"it unpacks to {most} bytes or more"
                    break
        except BROKEN as error:
            why = f"it is damaged: {error}"
        file.flush()
        if not file.tell():
            return memoryview(b""), why
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), why


def _pieces(data: memoryview, kind: str) -> Iterator[bytes]:
    at = 0
    while at < len(data):  # stream after stream
        stream = STREAMS[kind]()
        while not stream.eof:
            packed = bytes(data[at : at + PIECE])
            if not packed:
                raise EOFError("it ends early")
            at += len(packed)
            while packed or not getattr(stream, "needs_input", True):
                piece = stream.decompress(packed, PIECE)
                packed = getattr(stream, "unconsumed_tail", b"")
                yield piece
                if stream.eof:
                    break
        at -= len(stream.unused_data)
        rest = data[at : at + PIECE]
        if at + len(rest) == len(data) and not any(rest):
            return  # padding


def tar_members(data: memoryview) -> Iterator[tuple[str, memoryview | Problem]]:
    """Yield each file of a tar archive, or what is wrong with it.

    Raises:
        ValueError: the archive is damaged.
    """
    try:
        with tarfile.open(fileobj=io.BufferedReader(View(data)), mode="r:") as archive:
            for member in archive:
                end = member.offset_data + member.size
                link = posixpath.join(posixpath.dirname(member.name), member.linkname)
                places = (member.name, member.linkname if member.islnk() else link)
                if any(posixpath.normpath(one).split("/")[0] in ("", "..") for one in places):
                    yield member.name, Problem("archive", "it leads out of its folder")
                if member.isdev():
                    yield member.name, Problem("archive", "it is a device")
                elif member.isreg() and not member.issparse() and end <= len(data):
                    yield member.name, data[member.offset_data : end]
                elif member.isreg():
                    yield member.name, Problem("unread", "it lies there in pieces")
    except (tarfile.TarError, OSError, EOFError, OverflowError) as error:
        raise ValueError(f"the tar archive is damaged: {error}") from None
