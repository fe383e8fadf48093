"""The list of verbs: in the order of the flow, and an unknown one is told which there are."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from purpleteam.core.errors import UsageError, unknown

FLOW = (
    *("demo", "run", "data", "train", "evaluate", "poison", "attack", "harden", "detect"),
    *("repair", "certify", "import", "export", "scan", "threats", "serve", "report"),
    *("replay", "verify", "ls", "doctor"),
)
"""The verbs as `purple --help` lists them; others follow."""


class Verbs(TyperGroup):
    """A group of verbs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the flow."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda one: FLOW.index(one) if one in FLOW else len(FLOW))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the verb that the first argument names."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise UsageError(unknown("verb", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)
