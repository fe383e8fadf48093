"""Ray nodes on one machine that share no network but a bridge, and no folder: as on several.

Each node is a process tree in a network namespace of its own, with a folder of its own where
the driver's is. It needs root on Linux: `can_isolate` says whether that is so.
Elsewhere the nodes are processes of one host, which share its filesystem.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

BRIDGE, NET, PORT = "purplebr", "10.77.0", 6379
RAY = Path(sys.executable).with_name("ray")
OWN = Path(tempfile.gettempdir(), "ray")  # Ray's own place
CURRENT = OWN / "ray_current_cluster"
WAIT = 60.0  # seconds for a node to be there


def can_isolate() -> bool:
    """Say whether namespaces of the network and of mounts can be made here."""
    if sys.platform != "linux" or os.geteuid() or not all(map(shutil.which, ("ip", "unshare"))):
        return False
    made = subprocess.run(["ip", "netns", "add", "purpletry"], capture_output=True, check=False)  # noqa: S607
    subprocess.run(["ip", "netns", "del", "purpletry"], capture_output=True, check=False)  # noqa: S607
    return made.returncode == 0


class Nodes:
    """A Ray cluster of `count` nodes with one core each; node 0 is the head and has none."""

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        isolated: bool,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder, self.count, self.isolated = folder, count, isolated
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.env = os.environ | token | {"RAY_USAGE_STATS_ENABLED": "0"} | env
        """For whoever is let into the cluster: without its token nobody is."""
        try:
            if isolated:
                _ip("link", "add", BRIDGE, "type", "bridge")
                _ip("link", "set", BRIDGE, "up")
                for number in range(count + 1):
                    self._link(number)
            for number in range(count + 1):
                self.start(number)
            self.wait_for(count + 1)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where the head is reached by the driver, which runs as node 0 does."""
        return f"{self._host(0)}:{PORT}"

    def start(self, number: int) -> None:
        """Start a node; one that was killed comes back as another."""
        place = self.folder / f"node-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        host = ["--node-ip-address", self._host(number), "--disable-usage-stats", "--block"]
        if number == 0:
            CURRENT.unlink(missing_ok=True)  # of a head that was killed
            how = ["--head", "--port", str(PORT), "--num-cpus", "0", "--include-dashboard", "false"]
        else:
            how = ["--address", self.address, "--num-cpus", "1"]
        # each has a small object store: what it needs of /dev/shm is all there is
        store = ["--object-store-memory", str(100 << 20)]
        command = [str(RAY), "start", *how, *host, *store]
        self.running[number] = subprocess.Popen(
            self.inside(number, command),
            cwd=place,
            env=self.env,
            stdout=(place / "log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def inside(self, number: int, command: Sequence[str]) -> list[str]:
        """Return a command as it is run on a node."""
        if not self.isolated:
            return list(command)
        own = (
            f'mkdir -p {OWN} && mount -t tmpfs none {OWN} && mount -t tmpfs none "$1" '
            '&& mkdir "$1/here" && cd "$1/here" && shift && exec "$@"'
        )
        space = ["ip", "netns", "exec", f"purple{number}", "unshare", "--mount"]
        if number == 0:  # the driver's: it keeps its folder
            return [*space[:4], *command]
        return [*space, "sh", "-c", own, "sh", str(self.folder), *command]

    def kill(self, number: int) -> None:
        """Kill all processes of a node at once, as when its plug is pulled."""
        node = self.running.pop(number)
        for pid in tree(node.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def workers(self, number: int) -> list[int]:
        """Return the processes of a node that do jobs."""
        return [pid for pid in tree(self.running[number].pid) if "ray::_do" in line_of(pid)]

    def wait_for(self, count: int) -> None:
        """Wait until as many nodes are in the cluster."""
        asks = (
            f"import ray; ray.init(address={self.address!r}, logging_level='ERROR'); "
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            command = ["timeout", "20", sys.executable, "-c", asks]
            told = subprocess.run(
                self.inside(0, command), capture_output=True, check=False, env=self.env
            )
            if told.stdout.strip() == str(count).encode():
                return
            time.sleep(0.5)
        raise RuntimeError(f"{count} nodes are not there after {WAIT:g} s: {told.stderr[-300:]!r}")

    def close(self) -> None:
        """End all nodes, and take the namespaces away."""
        for number in list(self.running):
            self.kill(number)
        if self.isolated:
            for number in range(self.count + 1):
                _ip("link", "del", f"purplev{number}", check=False)
                _ip("netns", "del", f"purple{number}", check=False)
            _ip("link", "del", BRIDGE, check=False)

    def _host(self, number: int) -> str:
        return f"{NET}.{number + 1}" if self.isolated else "127.0.0.1"

    def _link(self, number: int) -> None:
        space, end = f"purple{number}", f"purplev{number}"
        _ip("netns", "add", space)
        _ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", end, "master", BRIDGE, "up")
        _ip("-n", space, "addr", "add", f"{self._host(number)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)  # noqa: S607


def tree(root: int) -> list[int]:
    """Return a process and all that it started, and what they started."""
    found = [root]
    for pid in found:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def line_of(pid: int) -> str:
    """Return the command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
