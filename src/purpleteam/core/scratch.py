"""A folder for the temporary files of a process, which goes with it, or soon after it was killed.

It is locked while its process lives. One that is not was left by a process that was killed: whoever
started that takes it away, or the next process that needs a folder of its own.
"""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

fcntl: Any = None
with suppress(ImportError):  # where there is none, only what ends as it should leaves nothing
    import fcntl

PREFIX = "purple_"


@cache
def scratch() -> Path:
    """Return the temporary folder of this process, which goes when it ends."""
    clear()
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    while not _held(path):
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
    atexit.register(_leave, path, os.getpid())
    return path


def clear() -> None:
    """Take away the folders of processes that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if fcntl is not None else ():
        with suppress(OSError):  # its process lives, or it is another account's
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


def _held(path: Path) -> bool:
    """Lock a folder until the process ends; False where another took it for one that was left."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)  # it stays open
    return path.exists()


def _leave(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # no process that was forked from it
        shutil.rmtree(path, ignore_errors=True)
