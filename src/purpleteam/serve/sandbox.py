"""Confine this process for good, once all is open that it needs, and try whether it is confined.

Each of two mechanisms of Linux alone keeps files, programs and connections away: seccomp refuses
the system calls, and Landlock (https://docs.kernel.org/userspace-api/landlock.html) what they act
on. What the kernel lacks is left out and said; only what was tried and denied counts as denied.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import mmap
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from purpleteam.core.address import without_secrets
from purpleteam.core.errors import Refused, UsageError, reason_of
from purpleteam.serve import seccomp
from purpleteam.serve.seccomp import Where, call

if TYPE_CHECKING:
    from purpleteam.serve.settings import Settings

NOBODY = 65534
FILES = 256  # most descriptors that are no connection
GROWTH = 512 << 20  # bytes of data beyond those that it has now
CREATE, RULE, RESTRICT = 444, 445, 446  # Landlock's calls, on all machines
LATER = (  # what is imported when it is first needed, which is too late
    *("encodings.idna", "stringprep", "linecache", "traceback", "concurrent.futures.thread"),
    *("asyncio.staggered", "asyncio.trsock", "logging.handlers"),
)
STREAM, UNIX, INET = 1, 1, (2, 10)
TYPING = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: to type into the terminal that it was started from
PARTLY = {
    "clone": (Where(0, (0x10000,), 0x10000),),  # a thread, no process
    "socketpair": (Where(0, (UNIX,)), Where(1, (STREAM,), 0xF)),  # one of datagrams sends to any
    "mmap": (Where(2, (0,), 4),),  # nothing new that can be executed
    "mprotect": (Where(2, (0,), 4),),
    "pkey_mprotect": (Where(2, (0,), 4),),
    "prlimit64": (Where(0, (0,)),),  # of itself
    "ioctl": (Where(1, TYPING, among=False),),
}
"""Calls that a server needs, and how it needs them."""
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EAFNOSUPPORT, errno.ENOSYS)


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What confines a process, and what it tried all the same."""

    mechanisms: tuple[str, ...]
    lacking: tuple[str, ...]  # what the kernel does not have, with the reason
    denied: tuple[str, ...]  # of the trials of `temptations`
    undenied: tuple[str, ...]  # with what came of it

    @property
    def holds(self) -> bool:
        """Whether each trial was denied."""
        return bool(self.denied) and not self.undenied

    def __str__(self) -> str:
        by = f"({', '.join(self.mechanisms) or 'nothing confines it'})"
        lacking = "".join(f"; {reason}" for reason in self.lacking)
        if self.holds:
            return f"reading, writing, executing and connecting are denied {by}{lacking}"
        return f"NOT DENIED: {', '.join(self.undenied)} {by}{lacking}"


def confine(*, connect: Collection[int] = (), files: int = 1024) -> Confinement:
    """Confine this process, all of its threads, for good; open before what it is to use.

    What is open goes on working: listening sockets and their connections, logs, pipes. Nothing
    else can be opened, executed, connected to or signalled, no process started, no library loaded.
    As root it becomes nobody. Data may grow by GROWTH, after which there is a MemoryError.

    Args:
        connect: TCP ports that may be connected to, at an address: names need a file. Where
            Landlock knows no ports (before Linux 6.7), any can be, and the result says so.
        files: most descriptors that the process may have.
    """
    for name in LATER:
        with suppress(ImportError):
            importlib.import_module(name)
    mechanisms, lacking = list[str](), list[str]()
    if sys.platform != "linux":
        nothing = f"no sandbox: {sys.platform} is not Linux"
        return Confinement(mechanisms=(), lacking=(nothing,), denied=(), undenied=("anything",))
    steps: dict[str, Callable[[], str]] = {
        "resource limits": lambda: _limit(files),
        "account of its own": _give_up_rights,
        "no_new_privs": _gain_none,
        "Landlock": lambda: _landlock(connect),
        "seccomp": lambda: _seccomp(connect),
    }
    with temptations() as trials:
        for name, step in steps.items():
            try:
                mechanisms.append(step())
            except (OSError, LookupError, ValueError) as error:
                lacking.append(f"no {name}: {_why(error)}")
        tried = {name: outcome(trial) for name, trial in trials.items()}
    return Confinement(
        mechanisms=tuple(reversed(mechanisms)),
        lacking=tuple(lacking),
        denied=tuple(name for name, came in tried.items() if came is None),
        undenied=tuple(f"{name} ({came})" for name, came in tried.items() if came is not None),
    )


def confined(settings: Settings, tell: Callable[[str], None]) -> Confinement | None:
    """Confine this process as far as it is asked, and tell in one line what came of it.

    Raises:
        Refused: it is required, and something that was tried is not denied.
        UsageError: what the app is to reach cannot be reached once it is confined.
    """
    if not settings.sandbox:
        tell("sandbox: off: reading, writing, executing and connecting are not denied")
        return None
    ports = () if settings.rate.redis is None else [_port(settings.rate.redis)]
    found = confine(connect=ports, files=settings.limits.connections + FILES)
    if settings.sandbox == "require" and not found.holds:
        raise Refused(f"sandbox: {found}")
    tell(f"{'' if found.holds else 'WARNING: '}sandbox: {found}")
    return found


def _port(url: str) -> int:
    """Return the port of a Redis that is reached without a file: no name, no TLS, no path."""
    with suppress(ValueError):
        parts = urlsplit(url)
        ip_address(parts.hostname or "")
        if parts.scheme == "redis":
            return parts.port or 6379
    remedy = "give redis://ADDRESS:PORT without a name, or leave the sandbox: --set sandbox=false"
    raise UsageError(f"redis {without_secrets(url)!r} cannot be reached from the sandbox; {remedy}")


def _why(error: Exception) -> str:
    known = {
        errno.ENOSYS: "the kernel has none",
        errno.EOPNOTSUPP: "the kernel has it switched off",
        errno.EPERM: "not permitted here",
    }
    return known.get(getattr(error, "errno", 0)) or reason_of(error)


def _status() -> dict[str, str]:
    """Return what the kernel says of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _limit(files: int) -> str:
    """Bound descriptors, data and cores; not processes: that count is of the whole account."""
    import resource

    held = int(_status()["VmData"].split()[0]) << 10  # it is in KiB
    bounds = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": files, "RLIMIT_DATA": held + GROWTH}
    for name, bound in bounds.items():
        kind = getattr(resource, name)
        before = resource.getrlimit(kind)[1]
        most = bound if before == resource.RLIM_INFINITY else min(bound, before)
        resource.setrlimit(kind, (most, most))
    return "resource limits"


def _give_up_rights() -> str:
    """Turn root into nobody, and give up all capabilities."""
    ending, root = ctypes.c_int(), os.geteuid() == 0
    if root:
        call("prctl", 2, ctypes.byref(ending))  # the signal at its parent's end, which is lost here
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        call("prctl", 1, ending.value)
    if any(int(_status()[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")):
        call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))
    return "account nobody" if root else "no capabilities"


def _gain_none() -> str:
    """Make programs that it executes run with no more rights than it has itself."""
    call("prctl", seccomp.NO_NEW_PRIVS, 1, 0, 0, 0)
    return "no_new_privs"


def _landlock(connect: Collection[int]) -> str:
    """Deny all that Landlock knows: files, TCP ports, what other processes can be reached by."""
    version, threads = call(CREATE, None, 0, 1), len([*Path("/proc/self/task").iterdir()])
    rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16 if version < 9 else 17)
    words = [(1 << rights) - 1, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]
    asked = struct.pack(f"{len(words)}Q", *words)
    rules = call(CREATE, asked, len(asked), 0)
    try:
        for port in connect if version >= 4 else ():
            call(RULE, rules, 2, struct.pack("QQ", 2, port), 0)
        call(RESTRICT, rules, 8 if version >= 8 else 0)  # 8: all threads
    finally:
        os.close(rules)
    partly = f" on one of {threads} threads" if version < 8 and threads > 1 else ""
    return f"Landlock ABI {version}{partly}"


def _seccomp(connect: Collection[int]) -> str:
    """Refuse the calls that a server does without, for all threads."""
    if not seccomp.supported():
        raise OSError(errno.ENOSYS, "")
    own = Where(0, (os.getpid(),))
    allowed = {**PARTLY, "kill": (own,), "tgkill": (own,)}
    if connect:
        allowed |= {"socket": (Where(0, INET), Where(1, (STREAM,), 0xF)), "connect": ()}
    refused = [name for name in seccomp.calls() if name not in allowed]
    seccomp.install(seccomp.program(refused, allowed))
    return "seccomp"


@contextmanager
def temptations() -> Iterator[dict[str, Callable[[], object]]]:
    """Yield what a confined process must be denied, by name; each works in any other process."""
    folder, shell, secret = "/", "/bin/sh", Path("/etc/passwd")  # which nobody may use, too
    with suppress(FileNotFoundError):  # a system that is read-only has no folder for files
        folder = tempfile.gettempdir()
    program = os.fsencode(shell if os.access(shell, os.X_OK) else sys.executable)

    def write() -> None:
        descriptor, path = tempfile.mkstemp(dir=folder)
        os.close(descriptor)
        Path(path).unlink()

    def execute(harmless: int, function: str, *arguments: object) -> None:
        """Execute what fails in a known way, or this process were gone, once it is permitted."""
        try:
            call(function, *arguments)
        except OSError as error:
            if error.errno != harmless:
                raise

    def start() -> None:
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)

    def send(kind: socket.SocketKind, address: tuple[str, int]) -> None:
        with socket.socket(socket.AF_INET, kind) as out:
            out.settimeout(1.0)
            out.connect(address)
            out.send(b"\0")

    def untried() -> None:
        raise LookupError("it could not be tried")

    trials: dict[str, Callable[[], object]] = {
        "reading a file": (secret if secret.is_file() else Path(__file__)).read_bytes,
        "writing a file": write,
        "executing a program": lambda: execute(
            errno.EFAULT, "execve", program, ctypes.c_void_p(1), None
        ),
        "executing from memory": untried,
        "making code": lambda: mmap.mmap(-1, 1, prot=mmap.PROT_READ | mmap.PROT_EXEC).close(),
        "starting a process": start,
        "connecting": untried,
        "sending datagrams": untried,
        "signalling its parent": lambda: os.kill(os.getppid(), 0),
    }
    with ExitStack() as open_now:
        with suppress(OSError, AttributeError):
            empty = open_now.enter_context(os.fdopen(os.memfd_create("nothing"), "wb"))
            trials["executing from memory"] = lambda: execute(
                errno.ENOEXEC, "execveat", empty.fileno(), b"", None, None, 0x1000
            )
        with suppress(OSError):
            listener = open_now.enter_context(socket.create_server(("127.0.0.1", 0)))
            tcp = listener.getsockname()
            trials["connecting"] = lambda: send(socket.SOCK_STREAM, tcp)
        with suppress(OSError):
            box = open_now.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            box.bind(("127.0.0.1", 0))
            udp = box.getsockname()
            trials["sending datagrams"] = lambda: send(socket.SOCK_DGRAM, udp)
        yield trials


def outcome(trial: Callable[[], object]) -> str | None:
    """Return what came of a trial: None where it was denied."""
    try:
        trial()
    except (OSError, AttributeError, LookupError) as error:  # a C library may lack a function
        return None if getattr(error, "errno", 0) in DENIED else _why(error)
    return "done"
