"""The startup report of an engine reaches its starter, whatever its length and bytes."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest
from e2e_support import LINUX_ONLY, Stage, stage

from quantai_tui.engine.exchange_child import ExchangeChild, ExchangeFailed
from quantai_tui.engine.launch import EngineProcess, Report, _read_report
from quantai_tui.engine.places import EngineFolder, PlaceError
from quantai_tui.engine.source import replay
from quantai_tui.engine.stopping import stop_engine
from quantai_tui.link import EngineUnavailable
from quantai_tui.telemetry import SYSTEM_CLOCK

__all__ = ["stage"]  # a fixture

_PIPE_BYTES = 65_536


async def refusal(*arguments: str) -> EngineUnavailable:
    process = EngineProcess([*arguments, "demo"])
    try:
        with pytest.raises(EngineUnavailable) as refused:
            await asyncio.wait_for(process.find(), 60)
    finally:
        process.forget()
    return refused.value


@pytest.mark.parametrize(
    ("value", "said"),
    [("x" * 100_000, "SYMBOLS = xxxxx"), ("\udcff\udcfe", r"SYMBOLS = \udcff\udcfe: must be UTF-8 text")],
    ids=["long", "not UTF-8"],
)
async def test_startup_error_of_any_length_and_bytes_reaches_the_starter(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("SYMBOLS", value)
    refused = await refusal()
    assert refused.exit_code == 2
    assert refused.detail.startswith(said)
    assert len(refused.detail) < 1000


@pytest.mark.parametrize("letter", ["x", "\n", "é", "\udcff", "\U0001f600"])
def test_startup_report_never_exceeds_a_pipe(letter: str) -> None:
    line = Report(error=letter * 200_000, exit_code=2).encode()
    assert len(line) <= _PIPE_BYTES
    report = msgspec.json.decode(line, type=Report)
    assert report.exit_code == 2
    assert "shortened" in report.error


@pytest.mark.parametrize("size", [10, 2 * _PIPE_BYTES])
async def test_a_line_longer_than_a_pipe_is_read_to_its_end(size: int) -> None:
    line = b"x" * size + b"\n"
    assert await _read_from_pipe(line) == line


async def test_endless_report_line_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="more than 1048576 bytes"):
        await _read_from_pipe(b"x" * (2**20 + 1))


async def _read_from_pipe(content: bytes) -> bytes:
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb"))

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(content)

    writing = asyncio.create_task(asyncio.to_thread(write))
    try:
        return await asyncio.wait_for(_read_report(reader), 10)
    finally:
        transport.close()
        await asyncio.gather(writing, return_exceptions=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("'x' * 300_000", "printed a line that is too long"),
        ("'[1, 2]'", "did not start"),
        ("'{\"ws_url\": 1}'", "did not start"),
        ("'{\"error\": 1}'", "did not start"),
        ("'[' * 100_000", "did not start"),
        ('\'{"error": "no market", "remedy": "name one"}\'', "no market; name one"),
    ],
)
async def test_invalid_exchange_report_is_a_failed_start(tmp_path: Path, words: str, said: str) -> None:
    child = ExchangeChild([sys.executable, "-c", f"print({words}, flush=True)"], tmp_path / "exchange.log", SYSTEM_CLOCK)
    try:
        with pytest.raises(ExchangeFailed, match=said):
            await asyncio.wait_for(child.start(), 30)
        assert child.pid is None
    finally:
        await child.stop()


def test_data_folder_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(PlaceError, match=r"the name of /srv/\\udcff/demo is not UTF-8 text. .* another DATA_DIR"):
        EngineFolder(Path("/srv/\udcff/demo")).prepare()


async def test_replay_note_escapes_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "\udcff.csv"
    file.write_text("1,0.5,1.0,1,1,1570752011620,True,True\n")
    command = [sys.executable, "-m", "quantai_tui.exchange", "--folder", str(tmp_path / "x"), "--file", str(file)]
    child = ExchangeChild(command, tmp_path / "exchange.log", SYSTEM_CLOCK)
    with pytest.raises(ExchangeFailed, match=r"\\udcff.csv"):
        await asyncio.wait_for(child.start(), 30)
    note = replay(file.name, "", "max", lambda folder, symbols: []).note
    assert note == r"replay of \udcff.csv at max"
    msgspec.msgpack.encode(note)


@LINUX_ONLY
async def test_overrides_reach_the_engine_without_a_command_line(stage: Stage, tmp_path: Path) -> None:
    secret = "http://joe:s3cret@h:1"
    overrides = (f"PROXY_URL={secret}", "TRAIN_AUTOSTART=False", f"DATA_DIR={tmp_path / 'else'}")
    # More than the capacity of a pipe.
    process = EngineProcess(["demo"], overrides=("LOG_LEVEL=INFO",) * 8_000 + overrides)
    try:
        await process.find()
        assert process.entry is not None
        assert Path(process.entry.folder).parent == tmp_path / "else"
        seen = stage.processes()
        assert {one.role for one in seen} == {"engine", "exchange"}
        for one in seen:
            told = Path(f"/proc/{one.pid}/cmdline").read_bytes() + Path(f"/proc/{one.pid}/environ").read_bytes()
            assert b"s3cret" not in told, one
            assert b"LOG_LEVEL" not in told, one
    finally:
        if process.entry is not None:
            assert await stop_engine(process.entry) == ""
        process.forget()
    everything = b"".join(path.read_bytes() for path in stage.home.rglob("*") if path.is_file())
    assert b"s3cret" not in everything
