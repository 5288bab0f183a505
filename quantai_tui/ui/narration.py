"""The dashboard in words: lines for ears and logs. Pure, and free of Textual."""

from __future__ import annotations

from ..telemetry import EngineSnapshot, StreamState
from ..telemetry.happenings import doing, happenings, raised, wholeness
from .format import clean, count, decimal, duration, milliseconds, percent, price, quantity, wall_clock, words


def changes(before: EngineSnapshot | None, after: EngineSnapshot) -> list[str]:
    """The lines that are new in `after`, in order of time. Without a `before`: where everything stands."""
    if before is None:
        standing = [clean(raised(alert, alert.since).text) for alert in after.alerts]
        return [f"{wall_clock(after.time)} {text}" for text in [_greeting(after), *summary(after), *standing]]
    return [f"{wall_clock(item.time)} {clean(item.text)}" for item in happenings(before, after)]


def summary(snapshot: EngineSnapshot) -> list[str]:
    """Where everything stands, in three sentences or four."""
    stream, training = snapshot.stream, snapshot.training
    head = f"stream {words(stream.state.value)}"
    if stream.state is StreamState.LIVE:
        head += f", {decimal(stream.messages_per_s, 3)} messages per second, round trip {milliseconds(stream.rtt_ms.last)} ms"
    elif stream.cause:
        head += f": {clean(stream.cause)}"
    lines = [head]
    lines += [f"{clean(name)} {price(symbol.price)}, {wholeness(symbol)}" for name, symbol in stream.symbols.items()]
    work = f"training {doing(training.state)}"
    if training.step is not None:
        work += f", epoch {count(training.epoch)}, step {count(training.step)}, loss {decimal(training.loss)}"
    if training.scale is not None:
        work += f", scale {quantity(training.scale)}, overflow in {percent(training.overflow_rate)} of steps"
    lines.append(work)
    standing = len(snapshot.alerts)
    lines.append("no alerts" if not standing else "1 alert stands" if standing == 1 else f"{standing} alerts stand")
    return lines


def _greeting(snapshot: EngineSnapshot) -> str:
    note = f"; {clean(snapshot.note)}" if snapshot.note else ""
    return f"engine {clean(snapshot.name)}, {snapshot.mode.value}, up {duration(snapshot.uptime_s)}{note}"
