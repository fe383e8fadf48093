"""The sandbox: what a confined process is denied, and what goes on working."""

from __future__ import annotations

import errno
import json
import platform
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from purpleteam.serve import seccomp
from purpleteam.serve.sandbox import PARTLY, Confinement
from purpleteam.serve.seccomp import ALLOW, KILL, REFUSE, UNKNOWN, Where

START = """
import json, os, resource, signal, socket, sys, threading
from purpleteam.serve import sandbox
from purpleteam.serve.sandbox import confine, outcome, temptations
"""
FOUR = ("reading a file", "writing a file", "executing a program", "connecting")


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def told(program: str, *arguments: object) -> dict[str, str | None]:
    """Run a program that ends with the trials; return what came of each."""
    tried = "\n    print(json.dumps({name: outcome(trial) for name, trial in trials.items()}))"
    done = run(f"with temptations() as trials:\n    {program}{tried}", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def mechanisms() -> set[str]:
    """The names of what this kernel confines with."""
    return set(json.loads(run("print(json.dumps(confine().mechanisms))").stdout))


@pytest.fixture
def landlock(mechanisms: set[str]) -> int:
    for name in mechanisms:
        if name.startswith("Landlock ABI "):
            return int(name.split()[2])
    pytest.skip("this kernel has no Landlock")


@pytest.fixture
def filtered(mechanisms: set[str]) -> None:
    if "seccomp" not in mechanisms:
        pytest.skip("this kernel has no seccomp")


confined = pytest.mark.usefixtures("filtered")


def test_every_temptation_works_in_a_process_that_nothing_confines() -> None:
    assert set(told("pass").values()) == {"done"}


@confined
def test_a_confined_process_is_denied_every_one() -> None:
    assert set(told("confine()").values()) == {None}


@confined
def test_the_kernel_refuses_every_call_that_is_refused() -> None:
    done = run(
        """
from purpleteam.serve import seccomp
told = {}
numbers = [(name, number) for name, number in seccomp.calls().items() if name not in sandbox.PARTLY]
confine()
for name, number in numbers + [("execve of x32", 0x40000208), ("new", seccomp.NEWEST + 1)]:
    try:
        told[name] = seccomp.call(number, *[0] * 6)
    except OSError as error:
        told[name] = error.errno
print(json.dumps(told))
"""
    )
    told = json.loads(done.stdout)
    assert len(told) > 140
    missing = {name for name, number in told.items() if number == errno.ENOSYS}
    assert missing <= {"clone3", "openat2", "execve of x32", "new"}
    assert {number for name, number in told.items() if name not in missing} == {errno.EPERM}


@confined
def test_seccomp_alone_denies_every_one() -> None:
    assert set(told("sandbox._seccomp(())").values()) == {None}


def test_landlock_alone_denies_the_four(landlock: int) -> None:
    tried = told("sandbox._gain_none(), sandbox._landlock(())")
    assert [name for name in FOUR if tried[name]] == ([] if landlock >= 4 else ["connecting"])
    assert tried["sending datagrams"] == "done"  # so it is said where seccomp is missing


@confined
def test_what_is_open_goes_on_working(tmp_path: Path) -> None:
    done = run(
        """
log, listener = open(sys.argv[1], "a"), socket.create_server(("127.0.0.1", 0))
out = socket.create_connection(listener.getsockname())
confine()
signal.signal(signal.SIGUSR1, lambda *_: print("signalled", file=log))
os.kill(os.getpid(), signal.SIGUSR1)
thread = threading.Thread(target=lambda: print("threaded", file=log))
thread.start()
thread.join()
out.send(b"accepted")
print(listener.accept()[0].recv(8).decode(), file=log)
""",
        tmp_path / "log",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "log").read_text().split() == ["signalled", "threaded", "accepted"]


@confined
def test_a_port_that_is_allowed_is_reached_and_no_other(landlock: int) -> None:
    if landlock < 4:
        pytest.skip("the Landlock of this kernel knows no ports")
    program = """
listener = socket.create_server(("127.0.0.1", 0))
print(confine(connect=[listener.getsockname()[1]]).undenied)
socket.create_connection(listener.getsockname()).send(b"0")
"""
    done = run(program)
    assert (done.stdout, done.stderr) == ("()\n", "")


@confined
def test_memory_and_cores_are_bounded() -> None:
    done = run(
        """
confine()
print(resource.getrlimit(resource.RLIMIT_CORE))
bytearray(1 << 30)
"""
    )
    assert done.stdout == "(0, 0)\n" and done.stderr.endswith("MemoryError\n")


@confined
def test_a_failure_inside_still_says_where() -> None:
    done = run("confine()\nraise ValueError('wrong')")
    assert done.returncode == 1 and done.stderr.endswith("ValueError: wrong\n")


def test_a_kernel_without_either_is_told_loudly() -> None:
    done = run(
        """
def missing(_):
    raise OSError(38, "Function not implemented")
sandbox._seccomp = sandbox._landlock = missing
print(confine())
"""
    )
    assert done.stdout.startswith("NOT DENIED: ") and all(name in done.stdout for name in FOUR)
    assert "no Landlock: the kernel has none; no seccomp: the kernel has none" in done.stdout


def test_what_cannot_be_tried_is_not_denied() -> None:
    done = run(
        """
def none(*_):
    raise OSError(97, "none here")
socket.create_server, os.memfd_create = none, none
print(confine().undenied)
"""
    )
    assert done.stdout.count("it could not be tried") == 2


def test_nothing_tried_is_nothing_denied() -> None:
    assert not Confinement(mechanisms=("seccomp",), lacking=(), denied=(), undenied=()).holds


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("openat", (), REFUSE),
        ("clone3", (), UNKNOWN),
        ("clone", (0x3D0F00,), ALLOW),  # as pthread_create does
        ("clone", (0x1200011,), REFUSE),  # as fork does
        ("socketpair", (1, 0x80801), ALLOW),
        ("socketpair", (1, 2), REFUSE),
        ("socketpair", (2, 1), REFUSE),
        ("mmap", (0, 4096, 3), ALLOW),
        ("mmap", (0, 4096, 5), REFUSE),
        ("ioctl", (0, 0x5421), ALLOW),
        ("ioctl", (0, 0x5412), REFUSE),
        ("kill", (7,), ALLOW),
        ("kill", (8,), REFUSE),
    ],
)
def test_the_filter_gives_the_verdict(
    monkeypatch: pytest.MonkeyPatch, machine: str, name: str, arguments: tuple, verdict: int
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    allowed = {**PARTLY, "kill": (Where(0, (7,)),)}
    numbers = seccomp.calls()
    rules = seccomp.program([call for call in numbers if call not in allowed], allowed)
    ours = seccomp.MACHINES[machine][0]
    assert interpret(rules, ours, numbers[name], *arguments) == verdict
    assert interpret(rules, ours, 232) == ALLOW  # one that it does not know
    assert interpret(rules, ours, seccomp.NEWEST + 1) == UNKNOWN
    assert interpret(rules, ours + 1, numbers[name]) == KILL


def interpret(rules: bytes, machine: int, number: int, *arguments: int) -> int:
    """Return what a filter says, as the kernel runs it."""
    data = struct.pack("IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    program, at, held = list(struct.iter_unpack("HBBI", rules)), 0, 0
    while True:
        code, then, otherwise, value = program[at]
        at += 1
        if code == seccomp.RETURN:
            return value
        if code == seccomp.LOAD:
            held = struct.unpack_from("I", data, value)[0]
        elif code == seccomp.AND:
            held &= value
        elif code == seccomp.JUMP:
            at += value
        else:
            at += then if (held == value if code == seccomp.EQUAL else held > value) else otherwise


def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if platform.machine() != "x86_64" or not header.is_file():
        pytest.skip(f"there is no {header}")
    known = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    ours = seccomp.calls()
    assert len(ours) > 150
    assert {name: number for name, number in ours.items() if str(number) != known.get(name)} == {
        name: ours[name] for name in ours.keys() - known.keys()
    }
