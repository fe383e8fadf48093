"""What systemd is told, where it runs the app with `Type=notify`: sd_notify(3), in a few lines."""

import os
import socket
from contextlib import suppress
from functools import cache

NOTIFY_SOCKET = "NOTIFY_SOCKET"


@cache
def manager(address: str) -> socket.socket | None:
    """Return a way to systemd, opened once: a process in the sandbox can open none."""
    if address[:1] not in ("/", "@"):
        return None
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with suppress(OSError):
        sender.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
    return sender


def notify(state: str = "") -> None:
    """Send a state such as READY=1, or only open the way; where nobody listens, nothing happens."""
    sender = manager(os.environ.get(NOTIFY_SOCKET, ""))
    if sender is not None and state:
        with suppress(OSError):
            sender.sendall(state.encode())
