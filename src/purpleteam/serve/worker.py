"""One worker process, `python -m purpleteam.serve.worker`: started and watched by `supervisor`."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

from purpleteam.core.errors import PurpleError, reason_of
from purpleteam.serve.main import worker_main
from purpleteam.serve.settings import Settings
from purpleteam.serve.supervisor import SAID

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> int:
    """Do what the parent asks for, on the socket whose number is the only argument."""
    line = socket.socket(fileno=int(sys.argv[1]))
    with line, line.makefile("rb") as said:
        order = json.loads(said.readline())
        _end_with(order["parent"])
        settings = restored(Settings, order["settings"])

        def beat(requests: int) -> None:
            try:
                line.send(b"%d\n" % requests)
            except OSError:  # nobody watches any more
                signal.raise_signal(signal.SIGINT)

        def tell(text: str) -> None:
            with suppress(OSError):
                line.sendall(SAID + text.encode() + b"\n")

        try:
            with socket.socket(fileno=order["listener"]) as listener:
                worker_main(order["reference"], settings, listener, _end_quietly, tell, beat)
        except PurpleError as error:
            with suppress(OSError):
                line.sendall(reason_of(error).encode() + b"\n")
            return error.exit_code
    return 0


def restored(kind: Any, value: Any) -> Any:
    """Return what `asdict` and JSON made of a value of this type; it was valid before.

    `core.config.build` would do it too, at the price of loading pydantic in every worker.
    """
    inner = get_args(kind)
    if is_dataclass(kind):
        hints, made = get_type_hints(kind), cast(Any, kind)
        return made(**{name: restored(hints[name], part) for name, part in value.items()})
    if get_origin(kind) is tuple:
        return tuple(restored(inner[0], part) for part in value)
    return Path(value) if Path in (kind, *inner) and value is not None else value


def _end_quietly() -> None:
    """Let the signals that end the server, which raises them again afterwards, be its whole end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, however it ends; elsewhere than on Linux, notice it later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())
