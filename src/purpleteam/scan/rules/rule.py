"""What a rule is: it looks at a parsed file and points at lines."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from purpleteam.core.records import Severity
from purpleteam.core.registry import Registry
from purpleteam.scan.module import Module

__all__ = ["RULES", "Hit", "Rule"]


@dataclass(frozen=True)
class Hit:
    """One line that breaks a rule; `severity` where it differs from the rule's own."""

    node: ast.AST
    message: str
    severity: Severity | None = None

    @property
    def line(self) -> int:
        """The line of the node."""
        return int(getattr(self.node, "lineno", 1))


class Rule(ABC):
    """One rule; its identifier never changes its meaning."""

    id: ClassVar[str]
    severity: ClassVar[Severity]
    confidence: ClassVar[str]
    cwe: ClassVar[str]
    fix: ClassVar[str]

    @abstractmethod
    def look(self, module: Module) -> Iterator[Hit]:
        """Yield the lines that break the rule."""


RULES: Registry[type[Rule]] = Registry("rule")
