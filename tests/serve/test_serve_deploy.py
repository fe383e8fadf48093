"""The unit file and the container file: what they allow, and what they start."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from purpleteam.serve.settings import resolve

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNIT, CONTAINER = DEPLOY / "purple.service", DEPLOY / "Containerfile"
SYSTEMD = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def instructions() -> list[tuple[str, str]]:
    """The container file's instructions, comments and line breaks removed."""
    lines = [line for line in CONTAINER.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


@needs_systemd
def test_systemd_says_that_the_unit_is_ok() -> None:
    command = [SYSTEMD, "security", "--offline=true", "--threshold=20", str(UNIT)]
    done = run(*command)
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "Overall exposure level" in line]
    assert " OK" in line


@needs_systemd
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    text = re.sub("(?m)^ExecStart=.*$", "ExecStart=/bin/true", UNIT.read_text())
    (tmp_path / "purple.service").write_text(text)
    command = [SYSTEMD, "verify", "--man=no", str(tmp_path / "purple.service")]
    done = run(*command)
    assert "purple.service" not in done.stderr


def test_the_unit_starts_and_reloads_what_there_is() -> None:
    text = UNIT.read_text()
    (start,) = re.findall("(?m)^ExecStart=/usr/local/purpleteam/bin/purple (.*)$", text)
    assert "--workers" in options_of(shlex.split(start))
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text
    assert "Type=notify\n" in text and "NotifyAccess=main\n" in text


def test_the_example_of_settings_is_read() -> None:
    settings = resolve(DEPLOY / "serve.toml", {"workers": {"count": 2}})
    state, notice = str(settings.audit.file), settings.workers.notice_seconds
    stop = int(re.findall(r"(?m)^TimeoutStopSec=(\d+)$", UNIT.read_text())[0])
    assert (
        state.startswith("/var/lib/purpleteam/") and "StateDirectory=purpleteam" in UNIT.read_text()
    )
    assert notice + settings.workers.drain_seconds < stop


def test_the_app_serves_where_nothing_can_be_written() -> None:
    mount = "mount --make-rprivate / && mount -o remount,bind,ro /"
    alone = ("unshare", "--mount", "sh", "-c")
    if run(*alone, mount).returncode:
        pytest.skip("needs the right to make the file system of one process read-only")
    command = [*alone, f'{mount} && exec "$0" "$@"', sys.executable, "-P", "-m", "purpleteam"]
    command += ["serve", "--json", "--port=0", "--workers=1", "--set=sandbox=require"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(60, process.kill)
        late.start()
        assert httpx.get(f"{json.loads(process.stdout.readline())['url']}/readyz").is_success
        process.terminate()
        assert process.wait() == 0
        late.cancel()


def options_of(arguments: list[str]) -> set[str]:
    """The options of a command line, each of which `purple serve` must know."""
    assert arguments[0] == "serve"
    options = {part for part in arguments if part.startswith("--")}
    known = run(sys.executable, "-m", "purpleteam", "serve", "--help").stdout
    assert options <= set(re.findall(r"--[a-z-]+", known))
    return options


def test_the_container_runs_as_somebody_without_rights() -> None:
    users = [value for name, value in last_stage() if name == "USER"]
    assert len(users) == 1 and int(users[0].split(":")[0]) >= 1000
    assert last_stage()[-1][0] == "CMD"


def test_the_container_copies_named_files_and_fetches_none_itself() -> None:
    names = [name for name, _ in instructions()]
    assert "ADD" not in names and "curl" not in CONTAINER.read_text()
    for _, value in (row for row in instructions() if row[0] == "COPY"):
        assert "." not in value.split()[:-1]  # not the whole folder, with what lies in it


def test_the_last_stage_builds_nothing_and_holds_no_secret() -> None:
    assert {name for name, _ in last_stage()}.isdisjoint({"RUN", "ADD", "VOLUME"})
    assert not re.search("(?i)(password|secret|token|api_?key)", CONTAINER.read_text())


def test_the_container_starts_what_there_is() -> None:
    parts = dict(last_stage())
    program, *arguments = json.loads(parts["ENTRYPOINT"]) + json.loads(parts["CMD"])
    assert program == "/usr/local/purpleteam/bin/purple"
    assert options_of(arguments) >= {"--workers", "--host", "--allow-remote"}
