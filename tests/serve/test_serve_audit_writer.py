"""One writer for all workers: what it says is on the disk is there, whoever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from purpleteam.serve.audit.log import encoded
from purpleteam.serve.audit.verify import verify_log
from purpleteam.serve.audit.writer import AuditClient, Writer

WORKER = """
import asyncio, socket, sys
from purpleteam.serve.audit.writer import AuditClient

async def main():
    client = AuditClient(socket.socket(fileno=int(sys.argv[1])))
    for number in range(10**9):
        asked = [client.append({"kind": "predict", "number": number}) for _ in range(50)]
        assert all(await asyncio.gather(*asked))
        print(number, flush=True)

asyncio.run(main())
"""
SUPERVISOR = """
import os, select, subprocess, sys
from pathlib import Path
from purpleteam.serve.audit.writer import Writer

writer = Writer(Path(sys.argv[1]), 0.05, process=True)
for _ in range(2):
    with writer.connect() as end:
        command = [sys.executable, "-c", sys.argv[2], str(end.fileno())]
        worker = subprocess.Popen(command, pass_fds=[end.fileno()], stdout=subprocess.PIPE)
    last = [worker.stdout.readline() for _ in range(20)][-1]
    worker.kill()
    worker.wait()
    worker.stdout.close()
    print(int(last), flush=True)
assert writer.alive()
writer.close()
other = Writer(Path(sys.argv[1] + "-other"), process=True)
os.kill(other.pid, 9)
assert select.select([other], [], [], 10)[0] and not other.alive()
other.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    started = Writer(path)
    yield started
    started.close()


def append(writer: Writer, *records: dict[str, object]) -> list[bool]:
    """Send the records all at once, as one worker."""

    async def send() -> list[bool]:
        client = AuditClient(writer.connect())
        told = await asyncio.gather(*[client.append(record) for record in records])
        client.close()
        return told

    return asyncio.run(send())


def test_what_was_appended_is_there(writer: Writer, path: Path) -> None:
    assert append(writer, {"label": 1}, {"label": 2}) == [True, True]
    told = [json.loads(line).get("label") for line in path.read_text("utf-8").splitlines()]
    assert told == [None, 1, 2]


def test_all_that_wait_are_synced_at_once(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = list[int](), os.fdatasync
    said = "purpleteam.serve.audit.log._sync"
    monkeypatch.setattr(said, lambda file: (synced.append(file), sync(file))[1])
    assert all(append(writer, *[{"label": number} for number in range(500)]))
    assert len(synced) == 1 and path.read_bytes().count(b"\n") == 501


def test_a_batch_larger_than_all_buffers_arrives_whole(writer: Writer, path: Path) -> None:
    assert all(append(writer, *[{"filler": "a" * 1000, "label": at} for at in range(3000)]))
    lines = path.read_text("utf-8").splitlines()[1:]
    assert [json.loads(line)["label"] for line in lines] == [*range(3000)]


def test_many_workers_share_a_log(writer: Writer, path: Path) -> None:
    async def work(number: int) -> bool:
        client = AuditClient(writer.connect())
        done = [await client.append({"worker": number, "turn": turn}) for turn in range(20)]
        client.close()
        return all(done)

    async def main() -> list[bool]:
        return await asyncio.gather(*[work(number) for number in range(8)])

    assert all(asyncio.run(main()))
    writer.close()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for number in range(8):
        assert [line["turn"] for line in lines if line.get("worker") == number] == [*range(20)]
    assert verify_log(path).verdict == "pass"


def test_what_a_killed_worker_sent_half_is_dropped(writer: Writer, path: Path) -> None:
    with writer.connect() as end:
        line = encoded({"label": 1})
        end.sendall(len(line).to_bytes(4, "big") + line[:10])
    assert append(writer, {"label": 2}) == [True]
    assert b'"label":1' not in path.read_bytes()


def test_no_worker_can_write_a_checkpoint_or_half_a_line(writer: Writer, path: Path) -> None:
    size = path.stat().st_size
    for batch in (b'{"checkpoint":"forged"}\n', b'{"label":1}'):
        with writer.connect() as end:
            end.sendall(len(batch).to_bytes(4, "big") + batch)
            assert end.recv(33, socket.MSG_WAITALL)[32:] == b"-" and path.stat().st_size == size


def test_on_a_full_disk_each_append_says_so(writer: Writer, path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limit[1]))
    try:
        assert append(writer, {"label": 1}) == [False]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert append(writer, {"label": 2}) == [True]
    writer.close()
    assert verify_log(path).verdict == "pass" and b'"label":1' not in path.read_bytes()


def test_a_writer_that_knows_nothing_of_its_file_any_more_ends_and_another_goes_on(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: int) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as disk:
        disk.setattr("purpleteam.serve.audit.log._sync", fail)
        assert append(writer, {"label": 1}) == [False]
        while writer.alive():
            pass
    writer.restart()
    assert append(writer, {"label": 2}) == [True]
    writer.close()
    assert verify_log(path).verdict == "pass"


def test_without_its_writer_a_worker_is_told_no() -> None:
    async def main() -> tuple[bool, bool, bool, int]:
        near, far = socket.socketpair()
        far.sendall(bytes(32))
        client = AuditClient(near)
        first = client.append({"label": 1})
        far.close()
        return await first, await client.append({"label": 2}), client.gone, client.failures

    assert asyncio.run(main()) == (False, False, True, 2)


def test_a_digest_cannot_be_guessed_without_the_key(writer: Writer, tmp_path: Path) -> None:
    other = Writer(tmp_path / "other.jsonl")
    one, same, another = (AuditClient(to.connect()) for to in (writer, writer, other))
    assert one.digest(bytes(784)) == same.digest(bytes(784)) != another.digest(bytes(784))
    assert one.digest(bytes(784)) != one.digest(bytes(783) + b"\1")
    for client in (one, same, another):
        client.close()
    other.close()


def test_the_log_outlives_workers_that_are_killed(path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(path), WORKER]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    told = [int(number) for number in ended.stdout.split()]
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    asked = [line["number"] for line in lines if line.get("kind") == "predict"]
    second = asked.index(0, asked.index(1))
    for number, part in zip(told, (asked[:second], asked[second:])):
        assert all(part.count(answered) == 50 for answered in range(number + 1))
    assert verify_log(path).verdict == "pass"
