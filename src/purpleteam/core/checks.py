"""Executed checks: each proves one sentence, and proves first that it can fail.

`examine` must fail on the target of `bad_example`: otherwise the check is `broken`.
"""

import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import Absent, PurpleError, reason_of
from purpleteam.core.records import CheckResult, Verdict
from purpleteam.core.registry import Registry
from purpleteam.core.scratch import scratch


@dataclass(frozen=True, kw_only=True)
class Target:
    """What checks look at; a check uses the parts that it `needs` and ignores the others."""

    code: Path | None = None  # folder or file of source code
    data: Path | None = None  # folder with the four IDX files
    data_digests: Mapping[str, str] = field(default_factory=dict)  # that files must have, by name
    model: Path | None = None  # a model file, or a folder of them
    model_digest: str | None = None  # digest that the model file must have
    signer: Path | None = None  # the public key that must have signed the model, or the run
    signature: Path | None = None  # of the run, where it does not lie in it
    url: str | None = None  # address of a running app, such as http://127.0.0.1:8000
    served_digest: str | None = None  # identity of the model that the app at `url` must serve
    audit: Path | None = None  # the audit log of the app at `url`
    run: Path | None = None  # a run folder
    packages: tuple[str, ...] | None = None  # folders of installed packages, as sys.path has them
    command: tuple[str, ...] | None = None  # a program that a check watches instead of its own


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check saw, before its negative control is taken into account."""

    passed: bool
    measured: Any = None
    threshold: Any = None
    message: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)


class Check(ABC):
    """One executed check; the first line of its docstring is the sentence that a pass backs."""

    id: ClassVar[str] = ""  # the name under which it is registered
    proves: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]  # the Target fields without which the check is skipped

    def __init_subclass__(cls) -> None:
        if cls.__doc__ and "proves" not in vars(cls):
            cls.proves = cls.__doc__.partition("\n")[0]

    @abstractmethod
    def examine(self, target: Target) -> Outcome:
        """Look at the target and name all that was looked at in `inputs`, with its digest.

        `Absent`, where it holds nothing of that kind, makes the check `skipped`; any other
        exception, or what JSON cannot say, `error`.
        """

    def bad_example(self, folder: Path) -> Target:
        """Make, in the empty `folder`, a target on which `examine` must not pass."""
        raise NotImplementedError

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        """Yield the bad example; override where it has to be started and stopped."""
        yield self.bad_example(folder)


CHECKS: Registry[type[Check]] = Registry("check")


def run_check(check: Check, target: Target) -> CheckResult:
    """Run the negative control, then the check; return the verdict with its evidence."""
    started = time.perf_counter()
    verdict: Verdict
    missing = [name for name in check.needs if getattr(target, name) is None]
    control = {"ran": False, "failed_as_required": False}
    if missing:
        outcome, verdict = Outcome(passed=False, message=f"needs {', '.join(missing)}"), "skipped"
    else:
        with (
            tempfile.TemporaryDirectory(prefix="purple-control-", dir=scratch()) as folder,
            suppress(Exception),
        ):
            with check.bad_target(Path(folder)) as bad:
                failed = not check.examine(bad).passed
            control = {"ran": True, "failed_as_required": failed}
        try:
            outcome = check.examine(target)
            canonical_json([outcome.measured, outcome.threshold, outcome.inputs])
            verdict = "pass" if outcome.passed else "fail"
        except Exception as error:
            text = reason_of(error, 300)
            if not isinstance(error, PurpleError):
                text = f"{type(error).__name__}: {text}"[:300]
            outcome = Outcome(passed=False, message=text)
            verdict = "skipped" if isinstance(error, Absent) else "error"
        if not control["failed_as_required"]:
            verdict = "broken"
    return CheckResult(
        check=check.id,
        proves=check.proves,
        verdict=verdict,
        measured=outcome.measured,
        threshold=outcome.threshold,
        message=outcome.message,
        inputs=outcome.inputs,
        negative_control=control,
        cost={} if missing else {"seconds": round(time.perf_counter() - started, 4)},
    )
