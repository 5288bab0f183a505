"""The link between engine and dashboards, over real Unix sockets."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from quantai_tui.engine.control import ControlServer
from quantai_tui.engine.places import EngineFolder, socket_folder
from quantai_tui.engine.registry import AlreadyRunning, Claim, Entry, control_socket, running
from quantai_tui.link import Ack, Command, CommandName, EngineUnavailable, LinkState, SocketLink
from quantai_tui.link.frames import encode, read_from_engine
from quantai_tui.link.messages import Hello, Refused, Watch, Welcome
from quantai_tui.telemetry import EngineSnapshot


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


class Source:
    """Stands in for an engine: counts the snapshots it was asked for, and answers commands."""

    def __init__(self) -> None:
        self.asked = 0
        self.commands: list[Command] = []
        self.hold: asyncio.Event | None = None

    def snapshot(self) -> EngineSnapshot:
        self.asked += 1
        return EngineSnapshot(name="demo-7", uptime_s=float(self.asked), log=("x" * 200,) * 40)

    async def execute(self, command: Command) -> Ack:
        self.commands.append(command)
        if self.hold is not None:
            await self.hold.wait()
        return Ack(command.id, True, f"{command.name.value} done", dict(command.args))


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return socket_folder() / "test.sock"


@pytest.fixture
async def server(path: Path, source: Source) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, "demo-7", source.snapshot, source.execute)
    await server.start()
    yield server
    await server.stop()


def finder(path: Path) -> Callable[[], Awaitable[Path]]:
    async def find() -> Path:
        return path

    return find


async def test_snapshots_arrive_and_commands_are_answered_by_their_id(server: ControlServer, path: Path, source: Source) -> None:
    link = SocketLink(finder(path), period_s=0.1)
    await link.start()
    try:
        await until(lambda: link.snapshot is not None)
        assert link.state is LinkState.ATTACHED
        assert link.engine_name == "demo-7"
        acks = await asyncio.gather(*(link.command(CommandName.SETTINGS_SAVE, values={"A": str(n)}) for n in range(5)))
        assert [ack.data["values"]["A"] for ack in acks] == ["0", "1", "2", "3", "4"]
        assert all(ack.ok for ack in acks)
        age = link.snapshot_age_s
        assert age is not None
        assert age < 5
    finally:
        await link.close()


async def test_the_socket_is_private_to_the_user(server: ControlServer, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_dashboard_that_stops_reading_holds_up_nobody(server: ControlServer, path: Path, source: Source) -> None:
    _, writer = await asyncio.open_unix_connection(str(path), limit=1)
    writer.write(encode(Hello(1, "stalled")))
    writer.write(encode(Watch(0.1)))
    link = SocketLink(finder(path), period_s=0.1)
    await link.start()
    try:
        await until(lambda: link.snapshot is not None)
        first = link.snapshot
        await until(lambda: link.snapshot is not first)
        assert (await link.command(CommandName.RECONNECT)).ok
    finally:
        await link.close()
        writer.transport.abort()


async def test_another_protocol_version_is_refused_in_words(server: ControlServer, path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(encode(Hello(99, "newer")))
    answer = await read_from_engine(reader)
    assert isinstance(answer, Refused)
    assert "protocol 1" in answer.reason
    assert "99" in answer.reason
    writer.transport.abort()


async def test_rubbish_ends_that_connection_alone(server: ControlServer, path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"\xff\xff\xff\xff rubbish")
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.transport.abort()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(encode(Hello(1, "next")))
    assert isinstance(await read_from_engine(reader), Welcome)
    writer.transport.abort()


async def test_a_link_that_is_lost_says_so_answers_what_waits_and_attaches_again(path: Path, source: Source) -> None:
    source.hold = asyncio.Event()
    server = ControlServer(path, "demo-7", source.snapshot, source.execute)
    await server.start()
    link = SocketLink(finder(path), period_s=0.1)
    await link.start()
    try:
        await until(lambda: link.state is LinkState.ATTACHED)
        waiting = asyncio.create_task(link.command(CommandName.SCALER_RESET))
        await until(lambda: bool(source.commands))
        await server.stop()
        ack = await waiting
        assert not ack.ok
        assert "connection broke" in ack.message
        await until(lambda: link.state is LinkState.LOST)
        assert not (await link.command(CommandName.CONNECT)).ok
        source.hold = None
        server = ControlServer(path, "demo-7", source.snapshot, source.execute)
        await server.start()
        await until(lambda: link.state is LinkState.ATTACHED)
        assert (await link.command(CommandName.CONNECT)).ok
    finally:
        await link.close()
        await server.stop()


async def test_an_engine_that_will_not_come_is_a_state_with_its_reason() -> None:
    async def find() -> Path:
        raise EngineUnavailable("the data folder cannot be written", 2)

    link = SocketLink(find)
    await link.start()
    await until(lambda: link.state is LinkState.FAILED)
    assert (link.detail, link.exit_code) == ("the data folder cannot be written", 2)
    await link.close()


def entry_for(folder: EngineFolder, pid: int = 1) -> Entry:
    return Entry(folder.name, "demo", pid, str(control_socket(folder)), str(folder.path), str(folder.log), 0.0)


def test_one_engine_per_folder_and_the_registry_lists_only_the_living(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "demo-7")
    folder.prepare()
    claim = Claim.take(folder)
    claim.publish(entry_for(folder, pid=4711))
    assert [entry.name for entry in running()] == ["demo-7"]
    with pytest.raises(AlreadyRunning, match="pid 4711") as caught:
        Claim.take(folder)
    assert caught.value.entry is not None
    claim.release()
    assert running() == []
    Claim.take(folder).release()


def test_an_entry_left_by_a_killed_engine_is_swept_away(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "demo-8")
    folder.prepare()
    claim = Claim.take(folder)
    claim.publish(entry_for(folder))
    assert claim._handle is not None
    import os

    os.close(claim._handle)  # what the kernel does when the process dies
    assert running() == []
    next_one = Claim.take(folder)
    assert list(socket_folder().glob("*.json")) == []
    next_one.release()


def test_socket_paths_stay_short_however_long_the_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("deep" * 30)))
    path = control_socket(EngineFolder(tmp_path / "x"))
    assert len(str(path)) < 104
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.rmdir()
