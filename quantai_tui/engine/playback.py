"""A recording of a stream, played to an engine in place of a venue."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Self

from ..market.times import WITNESSES, believed_us
from ..stream import ResilientStream
from ..stream.recorded import Recording
from ..stream.replaying import MAX_SPEED, Replay
from ..telemetry import Clock
from ..training.config import WorkerConfig

_EVER = math.inf
_BEGINNING_US = 86_400_000_000  # bounds the time between the first trades of a recording


class Playback:
    """Owns an open recording. `transport`, `history` and `clock` of its `replay` are for the engine's stream."""

    def __init__(self, recording: Recording, replay: Replay) -> None:
        self._recording = recording
        self.replay = replay
        self._bars: dict[tuple[str, int], int] = {}

    @classmethod
    async def open(cls, path: Path, speed: str, clock: Clock) -> Self:
        """Raises RecordingError."""
        recording = await asyncio.to_thread(Recording.open, path)
        return cls(recording, Replay(recording, MAX_SPEED if speed == "max" else float(speed), clock))

    async def close(self) -> None:
        self._recording.close()

    @property
    def note(self) -> str:
        """What is to be said of the file; empty when it is whole."""
        return f"the recording was cut off: {self._recording.damage}" if self._recording.damage else ""

    def dictates(self, train_symbol: str) -> dict[str, str]:
        """The settings that the recording decides, `TRAIN_SYMBOL` among them if it does not have the chosen one."""
        config = self._recording.config
        # Begun in the middle, it may show that there is history, and never holds it.
        start = "now" if self._recording.links[0].joined else str(config.backfill_start)
        return {
            "EXCHANGE_WS_URL": config.ws_url,
            "EXCHANGE_REST_URL": config.rest_url,
            "EXCHANGE_CA_FILE": "",
            "PROXY_URL": "",
            "SYMBOLS": ",".join(config.symbols),
            "TRAIN_SYMBOL": train_symbol if train_symbol in config.symbols else "",
            "BACKFILL_START": start,
        }

    def progress(self, stream: ResilientStream) -> float:
        """From 0 to 1; 1 when all of it has been met, taken in, and repaired as far as it can be."""
        if not self.replay.is_settled or stream.queued:
            return min(self.replay.progress, 0.999)
        snapshot = stream.snapshot()
        settled = not snapshot.repairing and not any(symbol.missing for symbol in snapshot.symbols.values())
        return 1.0 if settled else 0.999

    def can_train(self, config: WorkerConfig) -> bool:
        """Whether the trades of its symbol make as many whole bars as training begins with."""
        bars = self._bars.get((config.symbol, config.interval_s))
        if bars is None:
            bars = self._bars[config.symbol, config.interval_s] = self._whole_bars(config.symbol, config.interval_s * 1_000_000)
        return bars >= config.bars_needed

    def _whole_bars(self, symbol: str, width_us: int) -> int:
        first = self._recording.known_trades(symbol, 0, WITNESSES, _EVER)
        last = self._recording.known_trades(symbol, None, WITNESSES, _EVER)
        last_us = believed_us([trade.time_us for trade in last], int(self.replay.clock.time() * 1e6))
        if not first or last_us is None:
            return 0
        # One wrong time must not make the session look like history: the first trades are close in time as well.
        middle_us = sorted(trade.time_us for trade in first)[len(first) // 2]
        first_us = min(trade.time_us for trade in first if trade.time_us >= middle_us - _BEGINNING_US)
        # The first and the last interval may not be covered.
        return max(0, last_us // width_us - first_us // width_us - 1)
