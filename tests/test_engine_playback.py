"""An engine on a recording: what the recording decides, and when all is done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from recording_support import MB, Basket, MemoryTransport, a_link, frame
from stream_support import SYMBOL, trade

from quantai_tui.cli.options import Wanted
from quantai_tui.engine.engine import Engine
from quantai_tui.engine.playback import Playback
from quantai_tui.engine.starting import StartError
from quantai_tui.stream import StreamConfig
from quantai_tui.stream.recording import Recorder, RecordingTransport
from quantai_tui.telemetry import SYSTEM_CLOCK, EngineSnapshot, TrainingState
from quantai_tui.training.config import WorkerConfig

MINUTE_MS = 60_000


async def a_recording(
    path: Path, minutes: int, *, joined: bool = False, wrong: dict[int, int] | None = None, **config: object
) -> Path:
    """Record one trade a minute, the first in the middle of a minute, so that `minutes` - 2 minutes are whole.

    `wrong` replaces times (in milliseconds) by the number of the trade.
    """
    recorder, basket = Recorder(), Basket()
    values = StreamConfig(symbols=(SYMBOL, "BTCUSDT"), ws_url="wss://venue.example:9443", **config)
    if joined:
        _, inner = await a_link(recorder, basket, values)
        recorder.start(path, MB)
    else:
        recorder.start(path, MB)
        transport = MemoryTransport()
        await RecordingTransport(transport, recorder).dial(values, basket, lambda phase: None)
        inner = transport.links[0]
    for number in range(minutes):
        at_ms = (wrong or {}).get(number, 1_700_000_010_000 + number * MINUTE_MS)
        inner.deliver(frame(trade(number, time_ms=at_ms)))
    await recorder.stop()
    return path


async def finished(engine: Engine, within_s: float = 20.0) -> EngineSnapshot:
    async with asyncio.timeout(within_s):
        while not (snapshot := engine.snapshot()).finished:
            await asyncio.sleep(0.02)
    return snapshot


async def test_a_recording_decides_what_is_listened_to_and_where_it_begins(tmp_path):
    whole = await Playback.open(await a_recording(tmp_path / "a.qrec", 3, backfill_start=17), "max", SYSTEM_CLOCK)
    late = await Playback.open(await a_recording(tmp_path / "b.qrec", 3, joined=True, backfill_start=17), "2.5", SYSTEM_CLOCK)
    assert whole.dictates("BTCUSDT") == {
        "EXCHANGE_WS_URL": "wss://venue.example:9443",
        "EXCHANGE_REST_URL": "https://api.binance.com",
        "EXCHANGE_CA_FILE": "",
        "PROXY_URL": "",
        "SYMBOLS": f"{SYMBOL},BTCUSDT",
        "TRAIN_SYMBOL": "BTCUSDT",
        "BACKFILL_START": "17",
    }
    assert late.dictates("XRPETH")["TRAIN_SYMBOL"] == ""
    assert late.dictates("")["BACKFILL_START"] == "now"
    assert (whole.replay.at_max, late.replay.at_max, late.replay.clock.rate) == (True, False, 2.5)
    await whole.close()
    await late.close()


@pytest.mark.parametrize(("minutes", "enough"), [(1, False), (81, False), (82, True), (90, True)])
async def test_only_whole_bars_count_towards_what_training_needs(tmp_path, minutes, enough):
    playback = await Playback.open(await a_recording(tmp_path / "bars.qrec", minutes), "max", SYSTEM_CLOCK)
    config = WorkerConfig(store_path="x", symbol=SYMBOL, interval_s=60, window=8, horizon=2, min_bars=80)
    assert config.bars_needed == 80
    assert playback.can_train(config) is enough
    await playback.close()


@pytest.mark.parametrize("wrong", [{0: 0}, {0: 99_999_999_999_999}, {84: 99_999_999_999_999}])
async def test_wrong_time_in_a_recording_does_not_turn_it_into_history(tmp_path, wrong):
    playback = await Playback.open(await a_recording(tmp_path / "wrong.qrec", 85, wrong=wrong), "max", SYSTEM_CLOCK)
    config = WorkerConfig(store_path="x", symbol=SYMBOL, interval_s=60, window=8, horizon=2, min_bars=80)
    assert playback.can_train(config)
    assert not playback.can_train(msgspec.structs.replace(config, min_bars=90))
    await playback.close()


async def test_a_recording_with_a_wrong_time_is_stored_whole_and_ends(tmp_path):
    path = await a_recording(tmp_path / "wrong.qrec", 5, wrong={2: 99_999_999_999_999, 4: 99_999_999_999_999})
    engine = Engine(Wanted("replay", file=str(path)).source())
    await engine.start()
    try:
        snapshot = await finished(engine)
    finally:
        await engine.stop()
    symbol = snapshot.stream.symbols[SYMBOL]
    assert (symbol.stored, symbol.missing, symbol.unrecoverable, snapshot.stream.bad_frames) == (5, 0, 0, 0)
    assert symbol.last_trade_time == 1_700_000_010 + 3 * 60


async def test_a_recording_too_short_to_train_on_is_finished_once_it_is_stored(tmp_path):
    path = await a_recording(tmp_path / "short.qrec", 5)
    for _ in range(2):  # the second time all of it is there already
        engine = Engine(Wanted("replay", file=str(path)).source())
        await engine.start()
        try:
            snapshot = await finished(engine)
        finally:
            await engine.stop()
        symbol = snapshot.stream.symbols[SYMBOL]
        assert (snapshot.replay_progress, symbol.stored, symbol.missing) == (1.0, 5, 0)
    assert snapshot.stream.endpoint == "wss://venue.example:9443"
    assert snapshot.training.epochs_done == 0
    assert "short.qrec at max" in snapshot.note


@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize("epochs", [0, 3])
async def test_replay_of_a_long_recording_ends_after_its_epochs(tmp_path, epochs):
    path = await a_recording(tmp_path / "long.qrec", 150)
    overrides = ("TRAIN_WINDOW=8", "TRAIN_HORIZON=2", "TRAIN_STEPS_PER_S=0", "TRAIN_DEVICE=cpu", f"TRAIN_EPOCHS={epochs}")
    engine = Engine(Wanted("replay", file=str(path)).source(), overrides=overrides)
    await engine.start()
    try:
        snapshot = await finished(engine, 90.0)
    finally:
        await engine.stop()
    assert snapshot.stream.symbols[SYMBOL].stored == 150
    assert snapshot.training.epochs_done >= max(1, epochs)
    assert snapshot.training.state is (TrainingState.STOPPED if epochs else TrainingState.TRAINING)


async def test_a_damaged_recording_is_played_as_far_as_it_goes_and_an_empty_one_is_refused(tmp_path):
    whole = await a_recording(tmp_path / "whole.qrec", 5)
    cut = tmp_path / "cut.qrec"
    cut.write_bytes(whole.read_bytes()[:-3])
    engine = Engine(Wanted("replay", file=str(cut)).source(), overrides=("TRAIN_AUTOSTART=False",))
    await engine.start()
    try:
        snapshot = await finished(engine)
    finally:
        await engine.stop()
    assert snapshot.stream.symbols[SYMBOL].stored == 5
    assert "cut off" in snapshot.note

    recorder = Recorder()
    recorder.start(tmp_path / "empty.qrec", MB)
    await recorder.stop()
    with pytest.raises(StartError, match="the recording is empty"):
        await Engine(Wanted("replay", file=str(tmp_path / "empty.qrec")).source()).start()
