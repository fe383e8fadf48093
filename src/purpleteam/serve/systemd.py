"""What systemd is told, where it runs the app with `Type=notify`: sd_notify(3), in ten lines."""

import os
import socket
from contextlib import suppress

NOTIFY_SOCKET = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Send a state such as READY=1; where nobody listens, nothing happens."""
    address = os.environ.get(NOTIFY_SOCKET, "")
    if address[:1] in ("/", "@"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            sender.sendall(state.encode())
