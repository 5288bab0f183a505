"""Alert rules over snapshots. Each has two thresholds, to raise and to clear, so that an alert does not flicker."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from .snapshots import Alert, EngineSnapshot, Severity, StreamState, TrainingState

_NEWS_S = 600.0  # what has happened once, and is over, stays on the screen for so long
_STOPPED = "stopped"  # how a recording ends that was asked to


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers of the rules; the first is to raise, the second to clear."""

    failed_reconnects: tuple[int, int] = (3, 1)  # within 5 minutes
    ssl_share: tuple[float, float] = (0.10, 0.05)  # of all attempts
    overflow_rate: tuple[float, float] = (0.20, 0.15)
    consecutive_overflow: tuple[int, int] = (5, 1)
    cap_share: tuple[float, float] = (1.0, 0.4)  # scale over cap; one overflow at the cap halves it and is no news
    certificate_days: tuple[float, float] = (14.0, 15.0)  # left until it expires


@dataclass(frozen=True, slots=True)
class Rule:
    """`check(snapshot, stands)` says in words what is wrong, or None; `stands` is what it said last while raised, else empty."""

    key: str
    severity: Severity
    remedy: str
    check: Callable[[EngineSnapshot, str], str | None]


class _News:
    """Something that happened at a moment, told for ten minutes by the engine's uptime, which no suspend sets forward."""

    def __init__(self, before: Hashable) -> None:
        self._mark = before
        self._until = 0.0

    def is_fresh(self, mark: Hashable, uptime_s: float) -> bool:
        """`mark` changes whenever it happens again."""
        if mark != self._mark:
            self._mark = mark
            self._until = uptime_s + _NEWS_S
        return uptime_s < self._until


def _about(seconds: float) -> str:
    """Time left in words that change once a minute at most. Rounded up."""
    minutes = math.ceil(seconds / 60)
    if minutes >= 120:
        return f"about {math.ceil(minutes / 60)} h"
    return f"about {minutes} min" if minutes > 1 else "less than a minute"


def _link_rules(silence_s: Callable[[], float], limits: Thresholds) -> tuple[Rule, ...]:
    """Whether there is a link, and whether it brings anything."""

    def stream_failed(snap: EngineSnapshot, stands: str) -> str | None:
        if snap.stream.state not in {StreamState.FAILED, StreamState.COOLING_DOWN}:
            return None
        return "the stream has given up" if snap.stream.state is StreamState.FAILED else "the stream cools down between probes"

    def banned(snap: EngineSnapshot, stands: str) -> str | None:
        left = snap.stream.banned_for_s
        return f"banned by the venue for {_about(left)}: {snap.stream.ban_reason}" if left > 0 else None

    def reconnects(snap: EngineSnapshot, stands: str) -> str | None:
        failed = snap.stream.failed_last_5min
        return f"{failed} failed reconnects in 5 min" if failed >= limits.failed_reconnects[bool(stands)] else None

    def silence(snap: EngineSnapshot, stands: str) -> str | None:
        age = snap.stream.last_message_age_s
        if snap.stream.state is StreamState.STALLED:
            return snap.stream.cause or "no message"
        if snap.stream.state in {StreamState.IDLE, StreamState.STOPPED} or age is None or snap.finished:
            return None
        return f"no message for {age:.0f} s" if age > silence_s() else None

    def ssl_errors(snap: EngineSnapshot, stands: str) -> str | None:
        total = snap.stream.attempts_total
        share = snap.stream.ssl_errors / total if total else 0.0
        # One error among a handful of attempts is no share of anything yet.
        if snap.stream.ssl_errors < 2 or share <= limits.ssl_share[bool(stands)]:
            return None
        return f"TLS errors in {share:.0%} of connection attempts"

    def certificate(snap: EngineSnapshot, stands: str) -> str | None:
        left = snap.stream.certificate_days
        if left is None:  # between two connections nothing new is known
            return stands or None
        if left >= limits.certificate_days[bool(stands)]:
            return None
        return (
            f"the venue's certificate expires in {max(0, int(left))} days" if left >= 0 else "the venue's certificate has expired"
        )

    warning, critical = Severity.WARNING, Severity.CRITICAL
    return (
        Rule("stream-failed", critical, "read the cause in the connection pane; r dials again", stream_failed),
        Rule("banned", critical, "nothing is sent until it is over; dial less from this address", banned),
        Rule("reconnects", warning, "check the network and the advice in the backoff pane", reconnects),
        Rule("silence", warning, "check the symbol's spelling; r reconnects", silence),
        Rule("ssl-errors", warning, "look for a proxy or a middlebox that breaks TLS", ssl_errors),
        Rule("certificate", warning, "the venue renews it, or whoever runs a proxy in between", certificate),
    )


def _record_rules() -> tuple[Rule, ...]:
    """Whether every trade comes in, and what happened meanwhile that the operator should know of."""
    lost_before: dict[str, int] = {}
    recording_news, suspend_news = _News(None), _News(0)

    def subscriptions(snap: EngineSnapshot, stands: str) -> str | None:
        known = snap.stream.symbols.items()
        words = {"refused": "refused by the venue", "silent": "acknowledged and silent"}
        told = [f"{name} is {words[symbol.subscription]}" for name, symbol in known if symbol.subscription in words]
        return ", ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "") if told else None

    def unrecoverable(snap: EngineSnapshot, stands: str) -> str | None:
        lost = {
            name: symbol.unrecoverable - lost_before.setdefault(name, symbol.unrecoverable)
            for name, symbol in snap.stream.symbols.items()
        }
        names = ", ".join(name for name, count in lost.items() if count > 0)
        return f"{sum(lost.values()):,} trades lost for good since the start: {names}" if names else None

    def recording_ended(snap: EngineSnapshot, stands: str) -> str | None:
        recording = snap.stream.recording
        by_itself = recording is not None and recording.ended not in {"", _STOPPED}
        mark = (recording.path, recording.ended) if recording is not None and by_itself else None
        fresh = recording_news.is_fresh(mark, snap.uptime_s)
        return f"the recording has ended: {mark[1]}" if fresh and mark is not None else None

    def suspended(snap: EngineSnapshot, stands: str) -> str | None:
        fresh = suspend_news.is_fresh(snap.stream.suspends, snap.uptime_s)
        return "this machine slept, or its clock was set" if fresh else None

    return (
        Rule(
            "subscription", Severity.WARNING, "check SYMBOLS and EXCHANGE_WS_URL; the market pane has the details", subscriptions
        ),
        Rule("unrecoverable", Severity.WARNING, "too old to be fetched: BACKFILL_MAX_AGE_H is the limit", unrecoverable),
        Rule(
            "recording-ended",
            Severity.WARNING,
            "WS_RECORD_MAX_MB is its limit; 'quantai-tui record' begins another",
            recording_ended,
        ),
        Rule("suspended", Severity.INFO, "nothing to do: the link is asked, and what was missed is fetched", suspended),
    )


def _training_rules(limits: Thresholds) -> tuple[Rule, ...]:
    def worker_failed(snap: EngineSnapshot, stands: str) -> str | None:
        return f"training failed: {snap.training.detail}" if snap.training.state is TrainingState.FAILED else None

    def at_cap(snap: EngineSnapshot, stands: str) -> str | None:
        training = snap.training
        if training.scale is None or not training.scale_cap:
            return None
        if training.scale < training.scale_cap * limits.cap_share[bool(stands)]:
            return None
        below = training.scale < training.scale_cap
        return f"loss scale was at its cap, {training.scale:g} now" if below else f"loss scale {training.scale:g} is at its cap"

    def overflow_rate(snap: EngineSnapshot, stands: str) -> str | None:
        rate = snap.training.overflow_rate
        return f"{rate:.0%} of steps overflow" if rate is not None and rate > limits.overflow_rate[bool(stands)] else None

    def in_a_row(snap: EngineSnapshot, stands: str) -> str | None:
        run = snap.training.consecutive_overflow or 0
        return f"{run} overflows in a row" if run >= limits.consecutive_overflow[bool(stands)] else None

    def nonfinite(snap: EngineSnapshot, stands: str) -> str | None:
        count = snap.training.nonfinite_loss
        return f"{count} steps with NaN or Inf in loss or data" if count else None

    warning, critical = Severity.WARNING, Severity.CRITICAL
    return (
        Rule("worker-failed", critical, "read the worker's log; space starts it again", worker_failed),
        Rule("scale-at-cap", Severity.INFO, "fine while nothing overflows; GRAD_SCALER_MAX_SCALE is the cap", at_cap),
        Rule("overflow-rate", warning, "lower the learning rate, or reset the scaler with R", overflow_rate),
        Rule("overflow-run", critical, "an automatic reset follows; if it does not help, look for bad data", in_a_row),
        Rule("nonfinite", critical, "look for bad data or a diverged model; the scale is not the cause", nonfinite),
    )


class AlertBook:
    """Evaluates the rules and remembers since when each alert has stood."""

    def __init__(self, silence_s: Callable[[], float], limits: Thresholds | None = None) -> None:
        """`silence_s`: the warning timeout in force, seconds without any message."""
        limits = limits or Thresholds()
        self._rules = _link_rules(silence_s, limits) + _record_rules() + _training_rules(limits)
        self._standing: dict[str, Alert] = {}

    def evaluate(self, snapshot: EngineSnapshot) -> tuple[Alert, ...]:
        """The alerts that stand now, in the order of the rules."""
        standing = []
        for rule in self._rules:
            before = self._standing.get(rule.key)
            text = rule.check(snapshot, before.text if before else "")
            if text is not None:
                since = before.since if before else snapshot.time
                standing.append(Alert(rule.key, rule.severity, text, rule.remedy, since))
        self._standing = {alert.key: alert for alert in standing}
        return tuple(standing)
