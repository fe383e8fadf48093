"""What the checks of a running app share: they need its address, and fear the same server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from purpleteam.core.checks import Check, Target
from purpleteam.core.errors import UsageError
from purpleteam.serve.checks._careless import careless_server

__all__ = ["WebCheck", "address"]


class WebCheck(Check):
    """A check of a running app; its negative control is the careless server."""

    needs: ClassVar[tuple[str, ...]] = ("url",)

    def bad_example(self, folder: Path) -> Target:
        raise NotImplementedError("the careless server must be started: see bad_target")

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        with careless_server() as url:
            yield Target(url=url)


def address(target: Target) -> str:
    """Return the target's address."""
    if target.url is None:
        raise UsageError("the check needs the address of a running app")
    return target.url.rstrip("/")
