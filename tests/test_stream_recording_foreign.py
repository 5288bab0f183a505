"""Foreign recordings: a small file cannot fill the memory, and impossible content is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recording_support import MB, a_block, a_file

from quantai_tui.stream.failures import Phase
from quantai_tui.stream.recorded import Recording
from quantai_tui.stream.recording import Recorder
from quantai_tui.stream.recording_events import Pinged
from quantai_tui.stream.recording_file import RecordingError, RecordingReader


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
