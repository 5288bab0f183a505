"""What there is to say when one snapshot follows another: lines of plain words, for ears and logs. Pure, and free of Textual."""

from __future__ import annotations

from collections.abc import Iterator

from ..telemetry import (
    Alert,
    EngineSnapshot,
    StateChangeSnapshot,
    StreamSnapshot,
    StreamState,
    SymbolSnapshot,
    TrainingSnapshot,
    TrainingState,
)
from .format import clean, count, decimal, duration, milliseconds, percent, price, quantity, wall_clock, words

_Said = tuple[float, str]  # Unix time, words


def changes(before: EngineSnapshot | None, after: EngineSnapshot) -> list[str]:
    """The lines that are new in `after`, in order of time. Without a `before`: where everything stands."""
    if before is None:
        return [_line(after.time, text) for text in [_greeting(after), *summary(after), *map(_raised, after.alerts)]]
    said = [
        *_stream(before.stream, after.stream, after.time),
        *_symbols(before.stream.symbols, after.stream.symbols, after.time),
        *_training(before.training, after.training, after.time),
        *_alerts(before.alerts, after.alerts, after.time),
        *_settings(before, after),
    ]
    if after.finished and not before.finished:
        said.append((after.time, "replay finished: all of it is played, stored and trained on"))
    return [_line(when, text) for when, text in sorted(said, key=lambda item: item[0])]


def summary(snapshot: EngineSnapshot) -> list[str]:
    """Where everything stands, in three sentences or four."""
    stream, training = snapshot.stream, snapshot.training
    head = f"stream {words(stream.state.value)}"
    if stream.state is StreamState.LIVE:
        head += f", {decimal(stream.messages_per_s, 3)} messages per second, round trip {milliseconds(stream.rtt_ms.last)} ms"
    elif stream.cause:
        head += f": {clean(stream.cause)}"
    lines = [head]
    lines += [f"{clean(name)} {price(symbol.price)}, {_wholeness(symbol)}" for name, symbol in stream.symbols.items()]
    work = f"training {_doing(training.state)}"
    if training.step is not None:
        work += f", epoch {count(training.epoch)}, step {count(training.step)}, loss {decimal(training.loss)}"
    if training.scale is not None:
        work += f", scale {quantity(training.scale)}, overflow in {percent(training.overflow_rate)} of steps"
    lines.append(work)
    standing = len(snapshot.alerts)
    lines.append("no alerts" if not standing else "1 alert stands" if standing == 1 else f"{standing} alerts stand")
    return lines


def _line(when: float, text: str) -> str:
    return f"{wall_clock(when)} {text}"


def _greeting(snapshot: EngineSnapshot) -> str:
    note = f"; {clean(snapshot.note)}" if snapshot.note else ""
    return f"engine {clean(snapshot.name)}, {snapshot.mode.value}, up {duration(snapshot.uptime_s)}{note}"


def _stream(before: StreamSnapshot, after: StreamSnapshot, now: float) -> Iterator[_Said]:
    """Each change of state, those between two snapshots among them."""
    fresh = _appended([(c.state, c.cause) for c in before.changes], after.changes)
    yield from ((change.time, _state(change, after if change is fresh[-1] else None)) for change in fresh)
    if not fresh and after.state is not before.state:
        yield now, _state(StateChangeSnapshot(now, after.state, after.cause), after)
    if after.rotations > before.rotations:
        yield now, "stream: a fresh connection has taken over, without a break"
    if after.banned_for_s > 0 and before.banned_for_s <= 0:
        yield now, f"stream: banned for {duration(after.banned_for_s)}: {clean(after.ban_reason)}"


def _appended(known: list[tuple[StreamState, str]], changes: tuple[StateChangeSnapshot, ...]) -> list[StateChangeSnapshot]:
    """What has come to the end of a list that drops its oldest. Their times are no help: made from ages, they tremble."""
    now = [(change.state, change.cause) for change in changes]
    start = next(i for i in range(len(known) + 1) if known[i:] == now[: len(known) - i])
    return list(changes[len(known) - start :])


def _state(change: StateChangeSnapshot, now: StreamSnapshot | None) -> str:
    text = f"stream: {words(change.state.value)}"
    if now is not None and change.state is StreamState.BACKOFF:
        limit = f" of {now.max_attempts}" if now.max_attempts else ""
        text += f", attempt {now.attempt}{limit}, next in {duration(now.backoff_remaining_s)}"
    if change.cause:
        text += f", {clean(change.cause)}"
    bad = change.state in {StreamState.BACKOFF, StreamState.COOLING_DOWN, StreamState.FAILED}
    if now is not None and bad and now.last_error is not None and now.last_error.advice:
        text += f". {clean(now.last_error.advice)}"
    return text


def _symbols(before: dict[str, SymbolSnapshot], after: dict[str, SymbolSnapshot], now: float) -> Iterator[_Said]:
    for name, symbol in after.items():
        was = before.get(name, SymbolSnapshot())
        label = clean(name)
        if symbol.missing > was.missing == 0:
            yield now, f"{label}: {count(symbol.missing)} trades missing, they are fetched again"
        elif symbol.missing == 0 < was.missing:
            note = f": {clean(symbol.gap_note)}" if symbol.gap_note else ""
            yield now, f"{label}: {_wholeness(symbol)}{note}"
        if symbol.unrecoverable > was.unrecoverable:
            yield now, f"{label}: {count(symbol.unrecoverable - was.unrecoverable)} trades lost for good"
        if symbol.subscription != was.subscription and symbol.subscription_note:
            yield now, f"{label}: {clean(symbol.subscription_note)}"


def _wholeness(symbol: SymbolSnapshot) -> str:
    if symbol.missing:
        return f"{count(symbol.missing)} trades missing"
    return f"whole to {symbol.complete_through_id}" if symbol.complete_through_id is not None else "nothing received yet"


def _training(before: TrainingSnapshot, after: TrainingSnapshot, now: float) -> Iterator[_Said]:
    if after.state is not before.state or after.paused_because != before.paused_because:
        why = after.paused_because or (after.detail if after.state is not TrainingState.TRAINING else "")
        yield now, f"training: {_doing(after.state)}" + (f", {clean(why)}" if why else "")
    if after.last_overflow is not None and after.last_overflow != before.last_overflow:
        overflow = after.last_overflow
        told = clean(overflow.text or overflow.cause)
        culprits = f"; first in {clean(overflow.culprits[0])}" if overflow.culprits else ""
        yield overflow.time, f"training: overflow at step {count(overflow.step)}: {told}{culprits}"
    if (after.resets or 0) > (before.resets or 0):
        yield now, f"training: scale reset from {quantity(before.scale)} to {quantity(after.scale)}, {count(after.resets)} so far"
    if after.checkpoint is not None and after.checkpoint != before.checkpoint:
        done = "went on from" if after.checkpoint.resumed else "saved"
        yield now, f"training: {done} checkpoint of step {count(after.checkpoint.step)}"
    if after.last_event and after.last_event != before.last_event:
        yield now, f"training: {clean(after.last_event)}"


def _doing(state: TrainingState) -> str:
    return "under way" if state is TrainingState.TRAINING else words(state.value)


def _alerts(before: tuple[Alert, ...], after: tuple[Alert, ...], now: float) -> Iterator[_Said]:
    stood = {alert.key: alert for alert in before}
    stands = {alert.key for alert in after}
    yield from ((now, _raised(alert)) for alert in after if alert.key not in stood)
    yield from ((now, f"alert over: {clean(alert.text)}") for key, alert in stood.items() if key not in stands)


def _raised(alert: Alert) -> str:
    return f"alert, {alert.severity.value}: {clean(alert.text)}; {clean(alert.remedy)}"


def _settings(before: EngineSnapshot, after: EngineSnapshot) -> Iterator[_Said]:
    was, trial = before.trial, after.trial
    if trial is not None and (was is None or was.id != trial.id):
        yield after.time, f"settings on trial, undone in {duration(trial.left_s)} unless kept: {', '.join(trial.names)}"
    elif was is not None and trial is None:
        yield after.time, "settings no longer on trial"
