"""The engine's recent past, sampled: series for the sparklines, alerts that stand whether or not anybody looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ..telemetry import Alert, AlertBook, EngineSnapshot, Series, SeriesSnapshot, StreamState
from .chronicle import Chronicle

PERIOD_S = 0.5
_CAPACITY = 240  # two minutes: as wide as the widest sparkline


class Vitals:
    """Pushes one sample of everything each `PERIOD_S` seconds."""

    def __init__(self, silence_s: Callable[[], float], chronicle: Chronicle) -> None:
        names = ("rtt_ms", "trades_per_s", "scale", "overflows", "loss")
        self._series = {name: Series(_CAPACITY, PERIOD_S) for name in names}
        self._book = AlertBook(silence_s)
        self.chronicle = chronicle
        self.alerts: tuple[Alert, ...] = ()

    def sample(self, snapshot: EngineSnapshot, overflows: int | None) -> tuple[Alert, ...]:
        """Take one sample; `overflows` counts those since the last one, None when training is silent. Returns new alerts."""
        stream, training = snapshot.stream, snapshot.training
        live, told = stream.state is StreamState.LIVE, overflows is not None
        values = {
            "rtt_ms": stream.rtt_ms.last if live else None,
            "trades_per_s": stream.messages_per_s if live else None,
            "missing": float(sum(symbol.missing for symbol in stream.symbols.values())),
            "store_lag_ms": stream.consumer_lag_ms if live else None,
            "loop_lag_ms": stream.loop_lag_ms,
            "scale": training.scale if told else None,
            "overflows": None if overflows is None else float(overflows),
            "loss": training.loss if told else None,
            "grad_norm": training.grad_norm if told else None,
            "samples_per_s": training.samples_per_s if told else None,
            "accuracy": training.accuracy if told else None,
        }
        for name, series in self._series.items():
            series.push(values[name])
        before = {alert.key for alert in self.alerts}
        self.alerts = self._book.evaluate(snapshot)
        self.chronicle.record(msgspec.structs.replace(snapshot, alerts=self.alerts), values)
        return tuple(alert for alert in self.alerts if alert.key not in before)

    def acknowledge(self, key: str) -> int:
        """Mark one standing alert as seen, or all with an empty key; returns how many."""
        seen = self._book.acknowledge(key)
        self.alerts = self._book.standing
        return seen

    def series(self) -> Mapping[str, SeriesSnapshot]:
        return {name: series.snapshot() for name, series in self._series.items()}


def statistics(snapshot: EngineSnapshot) -> str:
    """The line that the log gets every minute."""
    stream, training = snapshot.stream, snapshot.training
    symbols = " ".join(
        f"{name}: last {s.last_id} whole to {s.complete_through_id} stored {s.stored} missing {s.missing} repaired {s.repaired}"
        for name, s in stream.symbols.items()
    )

    def shown(value: float | None, form: str = ".4g") -> str:
        return "n/a" if value is None else format(value, form)

    return (
        f"stream {stream.state.value} rtt {shown(stream.rtt_ms.last)} ms {shown(stream.messages_per_s)} msg/s "
        f"reconnects {stream.reconnects}; {symbols}; "
        f"training {training.state.value} step {shown(training.step, 'd')} loss {shown(training.loss)} "
        f"scale {shown(training.scale)} overflows {shown(training.overflow_count, 'd')} resets {shown(training.resets, 'd')}; "
        f"alerts {len(snapshot.alerts)}"
    )
