"""Run `purple` in an empty home, and see whom it talked to and where it wrote.

strace sees every system call, of native code and of child processes too. Where it is not
installed, Python's audit hook sees what Python code does, in the first process alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HOOK = """
import os, sys
out = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink")
def note(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        host, port = arguments[1][:2] if isinstance(arguments[1], tuple) else (arguments[1], 0)
        os.write(out, f'{event}({{sin_port=htons({port}), inet_addr("{host}")}})\\n'.encode())
    elif event == "socket.getaddrinfo" and any(c.isalpha() for c in str(arguments[0] or "")):
        os.write(out, f"{event} {arguments[0]} is a look-up\\n".encode())
    elif event == "open" and isinstance(arguments[0], str) and arguments[2] & 3:
        os.write(out, f'mkdir("{arguments[0]}")\\n'.encode())
    elif event in CHANGES:
        os.write(out, f'mkdir("{os.fspath(arguments[0])}")\\n'.encode())
sys.addaudithook(note)
from purpleteam.cli import main
main()
"""
CALLS = (
    "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,"
    "unlink,unlinkat,link,linkat,symlink,symlinkat"
)
STRACE = shutil.which("strace")
REACH = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(")
PLACE = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"|is a look-up|resolve')
PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
CHANGE = re.compile(r"\b(?:creat|mkdir|rename|unlink|link|symlink)\w*\(|O_WRONLY|O_RDWR|O_CREAT")
PATH = re.compile(r'(?:<([^>"]*)>, )?"([^"]*)"')
SCRATCH = ("/dev/", "/proc/")


@dataclass
class Watched:
    """`purple`, to be started in the empty folder `here`, with an empty home and its own TMPDIR."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.here, self.home, self.scratch = (self.folder / n for n in ("here", "home", "scratch"))
        for one in (self.here, self.home, self.scratch):
            one.mkdir()
        self.log = self.folder / "calls.txt"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `purple` with these arguments."""
        program = "from purpleteam.cli import main; main()" if STRACE else HOOK
        tracer = [STRACE, "-f", "--seccomp-bpf", "-qq", "-y", "-e", f"trace={CALLS}"]
        command = [*tracer, "-o", str(self.log)] if STRACE else []
        kept = {name: value for name, value in os.environ.items() if _is_neutral(name)}
        return subprocess.Popen(
            [*command, sys.executable, "-c", program, *arguments],
            cwd=self.here,
            env={
                **kept,
                **self.settings,
                "HOME": str(self.home),
                "TMPDIR": str(self.scratch),
                "PYTHONDONTWRITEBYTECODE": "1",
                "WATCHED": str(self.log),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self, process: subprocess.Popen[str], seconds: float = 600) -> str:
        """Wait until it has ended well and said nothing of an error; return what it printed."""
        try:
            out, errors = process.communicate(timeout=seconds)
        finally:
            if process.poll() is None:
                terminate(process)
                process.communicate()
        assert (process.returncode, errors) == (0, "")
        return out

    def reached(self) -> list[str]:
        """Return the calls that reach for another machine, or for the name of one."""
        found = []
        for line in self._calls():
            place, port = PLACE.search(line), PORT.search(line)
            if place is None or not (REACH.search(line) or "look-up" in line or "socket." in line):
                continue
            address = place[1] or place[2]
            here = address is not None and (address.startswith("127.") or address == "::1")
            if not here or (port is not None and port[1] == "53"):
                found.append(line)
        return found

    def wrote(self, *asked: Path) -> list[str]:
        """Return the paths that were made, changed or removed, but neither scratch nor asked."""
        allowed = (*SCRATCH, str(self.scratch), str(self.log), *map(str, asked))
        paths = set()
        for line in filter(CHANGE.search, self._calls()):
            for folder, name in PATH.findall(line):
                if name and " = -1" not in line.partition('"' + name + '"')[2]:
                    paths.add(os.path.normpath(self.here / folder / name))
        return sorted(path for path in paths if not path.startswith(allowed))

    def _calls(self) -> list[str]:
        return self.log.read_text("utf-8", errors="replace").splitlines()


def terminate(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM to the program itself: strace passes no signal on."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    traced = children.read_text().split() if STRACE else [str(process.pid)]
    for one in traced:
        os.kill(int(one), signal.SIGTERM)


def _is_neutral(name: str) -> bool:
    return not name.startswith(("XDG_", "PURPLETEAM_", "ORT_", "COV_", "TORCHINDUCTOR_"))
