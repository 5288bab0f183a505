"""What has happened between two snapshots, in words: events for the time axis and for everybody who follows without a screen."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from .snapshots import (
    Alert,
    EngineSnapshot,
    StateChangeSnapshot,
    StreamSnapshot,
    StreamState,
    SymbolSnapshot,
    TrainingSnapshot,
    TrainingState,
)

_BAD_STATES = frozenset({StreamState.BACKOFF, StreamState.COOLING_DOWN, StreamState.FAILED})


class Kind(StrEnum):
    STREAM = "stream"
    TRADES = "trades"
    TRAINING = "training"
    OVERFLOW = "overflow"
    RESET = "reset"
    CHECKPOINT = "checkpoint"
    ALERT = "alert"
    SETTINGS = "settings"


class Happening(msgspec.Struct, frozen=True):
    """Something that happened, for the time axis. The text comes from outside in part: clean it before it is shown."""

    time: float  # Unix seconds
    kind: Kind
    text: str


def happenings(before: EngineSnapshot, after: EngineSnapshot) -> list[Happening]:
    """What is new in `after`, in order of time."""
    now = after.time
    found = [
        *_stream(before.stream, after.stream, now),
        *_symbols(before.stream.symbols, after.stream.symbols, now),
        *_training(before.training, after.training, now),
        *_alerts(before.alerts, after.alerts, now),
        *_settings(before, after),
    ]
    if after.finished and not before.finished:
        found.append(Happening(now, Kind.TRADES, "replay finished: all of it is played, stored and trained on"))
    return sorted(found, key=lambda item: item.time)


def raised(alert: Alert, when: float) -> Happening:
    return Happening(when, Kind.ALERT, f"alert, {alert.severity.value}: {alert.text}; {alert.remedy}")


def doing(state: TrainingState) -> str:
    return "under way" if state is TrainingState.TRAINING else state.value


def wholeness(symbol: SymbolSnapshot) -> str:
    if symbol.missing:
        return f"{symbol.missing:,} trades missing"
    return f"whole to {symbol.complete_through_id}" if symbol.complete_through_id is not None else "nothing received yet"


def _stream(before: StreamSnapshot, after: StreamSnapshot, now: float) -> Iterator[Happening]:
    """Each change of state, those between two snapshots among them."""
    fresh = _appended([(change.state, change.cause) for change in before.changes], after.changes)
    for change in fresh:
        yield Happening(change.time, Kind.STREAM, _state(change, after if change is fresh[-1] else None))
    if not fresh and after.state is not before.state:
        yield Happening(now, Kind.STREAM, _state(StateChangeSnapshot(now, after.state, after.cause), after))
    if after.rotations > before.rotations:
        yield Happening(now, Kind.STREAM, "stream: a fresh connection has taken over, without a break")
    if after.banned_for_s > 0 and before.banned_for_s <= 0:
        yield Happening(now, Kind.STREAM, f"stream: banned for {after.banned_for_s:.0f} s: {after.ban_reason}")


def _appended(known: list[tuple[StreamState, str]], changes: tuple[StateChangeSnapshot, ...]) -> list[StateChangeSnapshot]:
    """What has come to the end of a list that drops its oldest. Their times are no help: made from ages, they tremble."""
    now = [(change.state, change.cause) for change in changes]
    start = next(i for i in range(len(known) + 1) if known[i:] == now[: len(known) - i])
    return list(changes[len(known) - start :])


def _state(change: StateChangeSnapshot, now: StreamSnapshot | None) -> str:
    text = f"stream: {change.state.value.replace('_', ' ')}"
    if now is not None and change.state is StreamState.BACKOFF:
        limit = f" of {now.max_attempts}" if now.max_attempts else ""
        text += f", attempt {now.attempt}{limit}, next in {now.backoff_remaining_s:.0f} s"
    if change.cause:
        text += f", {change.cause}"
    if now is not None and change.state in _BAD_STATES and now.last_error is not None and now.last_error.advice:
        text += f". {now.last_error.advice}"
    return text


def _symbols(before: dict[str, SymbolSnapshot], after: dict[str, SymbolSnapshot], now: float) -> Iterator[Happening]:
    for name, symbol in after.items():
        was = before.get(name, SymbolSnapshot())
        if symbol.missing > was.missing == 0:
            yield Happening(now, Kind.TRADES, f"{name}: {symbol.missing:,} trades missing, they are fetched again")
        elif symbol.missing == 0 < was.missing:
            note = f": {symbol.gap_note}" if symbol.gap_note else ""
            yield Happening(now, Kind.TRADES, f"{name}: {wholeness(symbol)}{note}")
        if symbol.unrecoverable > was.unrecoverable:
            yield Happening(now, Kind.TRADES, f"{name}: {symbol.unrecoverable - was.unrecoverable:,} trades lost for good")
        if symbol.subscription != was.subscription and symbol.subscription_note:
            yield Happening(now, Kind.TRADES, f"{name}: {symbol.subscription_note}")


def _training(before: TrainingSnapshot, after: TrainingSnapshot, now: float) -> Iterator[Happening]:
    if after.state is not before.state or after.paused_because != before.paused_because:
        why = after.paused_because or (after.detail if after.state is not TrainingState.TRAINING else "")
        yield Happening(now, Kind.TRAINING, f"training: {doing(after.state)}" + (f", {why}" if why else ""))
    if after.last_overflow is not None and after.last_overflow != before.last_overflow:
        overflow = after.last_overflow
        culprits = f"; first in {overflow.culprits[0]}" if overflow.culprits else ""
        told = f"training: overflow at step {overflow.step:,}: {overflow.text or overflow.cause}{culprits}"
        yield Happening(overflow.time, Kind.OVERFLOW, told)
    elif (after.overflow_count or 0) > (before.overflow_count or 0) and after.last_overflow is None:
        yield Happening(now, Kind.OVERFLOW, f"training: overflow, {after.overflow_count:,} so far")
    if (after.resets or 0) > (before.resets or 0):
        scales = f"from {before.scale:,.6g} to {after.scale:,.6g}" if before.scale and after.scale else "done"
        yield Happening(now, Kind.RESET, f"training: scale reset {scales}, {after.resets:,} so far")
    if after.checkpoint is not None and after.checkpoint != before.checkpoint:
        done = "went on from" if after.checkpoint.resumed else "saved"
        yield Happening(now, Kind.CHECKPOINT, f"training: {done} checkpoint of step {after.checkpoint.step:,}")
    if after.last_event and after.last_event != before.last_event:
        yield Happening(now, Kind.TRAINING, f"training: {after.last_event}")


def _alerts(before: tuple[Alert, ...], after: tuple[Alert, ...], now: float) -> Iterator[Happening]:
    stood = {alert.key: alert for alert in before}
    stands = {alert.key for alert in after}
    yield from (raised(alert, now) for alert in after if alert.key not in stood)
    yield from (Happening(now, Kind.ALERT, f"alert over: {alert.text}") for key, alert in stood.items() if key not in stands)


def _settings(before: EngineSnapshot, after: EngineSnapshot) -> Iterator[Happening]:
    was, trial = before.trial, after.trial
    if trial is not None and (was is None or was.id != trial.id):
        names = ", ".join(trial.names)
        yield Happening(after.time, Kind.SETTINGS, f"settings on trial, undone in {trial.left_s:.0f} s unless kept: {names}")
    elif was is not None and trial is None:
        yield Happening(after.time, Kind.SETTINGS, "settings no longer on trial")
