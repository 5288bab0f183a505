"""A link whose numbers move as a busy market's do."""

from __future__ import annotations

import random
import time

from ui_support import FakeLink, engine_snapshot, stream_snapshot, training_snapshot

from quantai_tui.telemetry import EngineSnapshot, RttSnapshot, SeriesSnapshot, SymbolSnapshot


class MovingLink(FakeLink):
    """Numbers that move as a busy market's do, a new snapshot four times a second, series sampled once a second."""

    def __init__(self, moving_for_s: float = 1e9, seed: int = 5) -> None:
        self._started_at = time.monotonic()
        self._moving_for_s = moving_for_s
        self._random = random.Random(seed)
        self._step = self._second = -1
        self._series: dict[str, list[float]] = {name: [] for name in ("rtt_ms", "trades_per_s", "scale", "overflows", "loss")}
        self._newest: EngineSnapshot | None = None
        for _ in range(120):
            self._sample()
        super().__init__()

    @property  # type: ignore[override]
    def snapshot(self) -> EngineSnapshot | None:
        elapsed = min(time.monotonic() - self._started_at, self._moving_for_s)
        step = int(elapsed / 0.25)
        if step != self._step:
            while self._second < int(elapsed):
                self._second += 1
                self._sample()
            self._step = step
            self._newest = self._make(step * 0.25)
        return self._newest

    @snapshot.setter
    def snapshot(self, value: EngineSnapshot | None) -> None:
        """The dataclass assigns its default here; this link makes its own."""

    def _sample(self) -> None:
        chance = self._random
        latest = {
            "rtt_ms": chance.gauss(24.0, 4.0),
            "trades_per_s": max(0.0, chance.gauss(18.0, 6.0)),
            "scale": 65_536.0,
            "overflows": 1.0 if chance.random() < 0.05 else 0.0,
            "loss": chance.gauss(0.68, 0.003),
        }
        for name, value in latest.items():
            self._series[name] = [*self._series[name], value][-120:]

    def _make(self, elapsed: float) -> EngineSnapshot:
        chance = self._random
        last_id = 1_823_123_112 + int(18 * elapsed)
        symbol = SymbolSnapshot(
            last_id=last_id,
            complete_through_id=last_id,
            stored=last_id,
            repaired=132,
            gaps=2,
            price=f"{chance.gauss(3512.0, 0.3):.2f}",
            trades_per_s=self._series["trades_per_s"][-1],
        )
        stream = stream_snapshot(
            uptime_s=8_040 + elapsed,
            messages=1_203_112 + int(800 * elapsed),
            messages_per_s=chance.gauss(800.0, 30.0),
            last_message_age_s=chance.random(),
            rtt_ms=RttSnapshot(last=self._series["rtt_ms"][-1], min=21.0, p50=23.8, p95=41.2, ewma=24.9),
            symbols={"ETHUSDT": symbol},
        )
        training = training_snapshot(
            epoch_step=int(340 + 50 * elapsed) % 1_000,
            step=int(11_340 + 50 * elapsed),
            loss=self._series["loss"][-1],
            grad_norm=chance.uniform(1.0, 2.0),
            samples_per_s=chance.gauss(12_345.0, 100.0),
            growth_tracker=int(812 + 50 * elapsed) % 2_000,
        )
        return engine_snapshot(
            uptime_s=273_600 + elapsed,
            stream=stream,
            training=training,
            series={name: SeriesSnapshot(1.0, tuple(values)) for name, values in self._series.items()},
        )
