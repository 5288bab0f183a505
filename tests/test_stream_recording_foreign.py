"""Foreign recordings: a small file cannot fill the memory, and impossible content is refused."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from recording_support import MB, a_block, a_file

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame
from quantai_tui.stream.failures import Phase
from quantai_tui.stream.recorded import Recording
from quantai_tui.stream.recording import Recorder
from quantai_tui.stream.recording_events import Pinged
from quantai_tui.stream.recording_file import RecordingError, RecordingReader

NAN, INF = math.nan, math.inf


def trade_frame(symbol: str) -> bytes:
    return agg_trade_frame(AggTrade(5, "1", "1", 5, 5, 1_700_000_000_000, True, symbol), 1_700_000_000_000, False)


def foreign(path: Path, *blocks: tuple[list[Any], int], symbols: Any = ("ETHUSDT",)) -> Path:
    """A complete recording with one connection to `symbols`, then each block of events repeated as given."""
    repeated = [block for events, times in blocks for block in [a_block(*events)] * times]
    return a_file(path, a_block(["dial", 0.0, 1, {"symbols": symbols}]), *repeated)


@pytest.mark.parametrize(
    "event",
    [
        ["ping", 1.0, 1, 1],
        ["phase", 1.0, 1, "tcp"],
        ["sent", 1.0, 1, b'{"method":"SUBSCRIBE","id":1}'],
        ["ask", 1.0, 1, "aggTrades", "ETHUSDT", 5, 1],
    ],
    ids=lambda event: event[0],
)
def test_a_small_file_that_repeats_an_event_is_refused(tmp_path: Path, event: list[Any]) -> None:
    path = foreign(tmp_path / "small.qrec", ([event] * 20_000, 40))
    assert path.stat().st_size < 200_000
    with pytest.raises(RecordingError, match="unpacks to far more than a real recording of its size"):
        Recording.open(path)


def test_small_file_of_many_large_connections_is_refused(tmp_path: Path) -> None:
    fat = [["dial", 1.0, number, {f"{key}": "x" * 100 for key in range(100)}] for number in range(2, 900)]
    with pytest.raises(RecordingError, match="unpacks to far more"):
        Recording.open(foreign(tmp_path / "fat.qrec", (fat, 5)))


def test_a_small_file_of_many_symbols_is_refused(tmp_path: Path) -> None:
    blocks = [([["msg", 1.0, 1, trade_frame(f"S{block}X{number}")] for number in range(20_000)], 1) for block in range(4)]
    with pytest.raises(RecordingError, match="unpacks to far more"):
        Recording.open(foreign(tmp_path / "symbols.qrec", *blocks))


def test_a_small_file_of_long_looked_up_symbols_is_refused(tmp_path: Path) -> None:
    looks: list[Any] = []
    for start in range(3_000):
        looks += [["ask", 1.0, start, "aggTrades", "E", start, 1], ["trades", 1.0, start, "S" * 2_000, []]]
    blocks = [
        ([[*event[:5], block * 3_000 + event[5], 1] if event[0] == "ask" else event for event in looks], 1) for block in range(5)
    ]
    with pytest.raises(RecordingError, match="unpacks to far more"):
        Recording.open(foreign(tmp_path / "looks.qrec", *blocks))


def test_what_is_kept_of_a_connection_does_not_keep_its_block(tmp_path: Path) -> None:
    failure = {"kind": "reset", "phase": "tcp", "message": "reset", "errors": []}
    blocks = [
        ([["dial", 1.0, link, {"symbols": ["ETHUSDT"]}], ["end", 1.0, link, failure], ["msg", 1.0, link, b" " * 4_000_000]], 1)
        for link in range(2, 12)
    ]
    path = foreign(tmp_path / "fat.qrec", *blocks)
    tracemalloc.start()
    try:
        recording = Recording.open(path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(recording.links) == 11
    assert kept < 2_000_000
    recording.close()


@pytest.mark.parametrize(
    "event", [["msg", NAN, 1, b"{}"], ["dial", INF, 2, {}], ["pong", 1.0, 1, 1, NAN]], ids=lambda event: event[0]
)
def test_a_time_that_is_no_number_ends_the_recording_there(tmp_path: Path, event: list[Any]) -> None:
    recording = Recording.open(foreign(tmp_path / "odd.qrec", ([["ping", 1.0, 1, 1]], 1), ([event], 1)))
    assert "are no whole block" in recording.damage
    assert recording.seconds == 1.0
    recording.close()


@pytest.mark.parametrize(
    "events",
    [[["ping", 1.0, 1, 1]] * 20_001, [["phase", 1.0, 1, "x" * 2001]], [["open", 1.0, 1, "x" * 3_000_000, None]]],
    ids=["too many events", "a long text", "a very long text"],
)
def test_a_block_that_no_recorder_writes_ends_the_recording_there(tmp_path: Path, events: list[Any]) -> None:
    recording = Recording.open(foreign(tmp_path / "odd.qrec", ([["phase", 1.0, 1, Phase.CONNECT.value]], 1), (events, 1)))
    assert len(recording.links[0].phases) == 1
    assert "are no whole block" in recording.damage
    recording.close()


@pytest.mark.parametrize("symbols", [["ETH\x1b]0;x\x07"], ["ETH USDT"], "ETHUSDT", [1]])
def test_a_recorded_configuration_without_symbols_is_refused(tmp_path: Path, symbols: Any) -> None:
    recording = Recording.open(foreign(tmp_path / "odd.qrec", symbols=symbols))
    with pytest.raises(RecordingError, match="the configuration in the recording cannot be used"):
        recording.config  # noqa: B018 - a property that raises
    recording.close()


async def test_more_events_than_a_block_takes_make_another_block(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.start(tmp_path / "pings.qrec", MB)
    for number in range(25_000):
        recorder.put(Pinged(recorder.now(), 1, number))
    await recorder.stop()
    with RecordingReader(tmp_path / "pings.qrec") as reader:
        blocks = [block for _, block in reader]
    assert reader.damage == ""
    assert sum(isinstance(event, Pinged) for block in blocks for event in block.events) == 25_000
