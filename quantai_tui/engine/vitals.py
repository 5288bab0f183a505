"""The engine's recent past, sampled: series for the sparklines, alerts that stand whether or not anybody looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..telemetry import Alert, AlertBook, EngineSnapshot, Series, SeriesSnapshot, StreamState

PERIOD_S = 0.5
_CAPACITY = 240  # two minutes: as wide as the widest sparkline


class Vitals:
    """Pushes one sample of everything each `PERIOD_S` seconds."""

    def __init__(self, silence_s: Callable[[], float]) -> None:
        names = ("rtt_ms", "trades_per_s", "scale", "overflows", "loss")
        self._series = {name: Series(_CAPACITY, PERIOD_S) for name in names}
        self._book = AlertBook(silence_s)
        self.alerts: tuple[Alert, ...] = ()

    def sample(self, snapshot: EngineSnapshot, overflows: int | None) -> tuple[Alert, ...]:
        """Take one sample; `overflows` counts those since the last one, None when training is silent. Returns new alerts."""
        stream, training = snapshot.stream, snapshot.training
        live = stream.state is StreamState.LIVE
        self._push("rtt_ms", stream.rtt_ms.last if live else None)
        self._push("trades_per_s", stream.messages_per_s if live else None)
        self._push("scale", training.scale if overflows is not None else None)
        self._push("overflows", None if overflows is None else float(overflows))
        self._push("loss", training.loss if overflows is not None else None)
        before = {alert.key for alert in self.alerts}
        self.alerts = self._book.evaluate(snapshot)
        return tuple(alert for alert in self.alerts if alert.key not in before)

    def _push(self, name: str, value: float | None) -> None:
        self._series[name].push(value)

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
