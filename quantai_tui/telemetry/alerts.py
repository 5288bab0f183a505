"""Alert rules over snapshots. Each has two thresholds, to raise and to clear, so that an alert does not flicker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .snapshots import Alert, EngineSnapshot, Severity, StreamState, TrainingState


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers of the rules; the first is to raise, the second to clear."""

    failed_reconnects: tuple[int, int] = (3, 1)  # within 5 minutes
    ssl_share: tuple[float, float] = (0.10, 0.05)  # of all attempts
    overflow_rate: tuple[float, float] = (0.20, 0.15)
    consecutive_overflow: tuple[int, int] = (5, 1)
    cap_share: tuple[float, float] = (1.0, 0.4)  # scale over cap; one overflow at the cap halves it and is no news


@dataclass(frozen=True, slots=True)
class Rule:
    """`check(snapshot, raised)` says in words what is wrong, or None; `raised` tells whether it is raised already."""

    key: str
    severity: Severity
    remedy: str
    check: Callable[[EngineSnapshot, bool], str | None]


def _rules(silence_s: Callable[[], float], limits: Thresholds) -> tuple[Rule, ...]:
    def reconnects(snap: EngineSnapshot, raised: bool) -> str | None:
        failed = snap.stream.failed_last_5min
        return f"{failed} failed reconnects in 5 min" if failed >= limits.failed_reconnects[raised] else None

    def silence(snap: EngineSnapshot, raised: bool) -> str | None:
        age = snap.stream.last_message_age_s
        if snap.stream.state is StreamState.STALLED:
            return snap.stream.cause or "no message"
        if snap.stream.state in {StreamState.IDLE, StreamState.STOPPED} or age is None or snap.finished:
            return None
        return f"no message for {age:.0f} s" if age > silence_s() else None

    def ssl_errors(snap: EngineSnapshot, raised: bool) -> str | None:
        total = snap.stream.attempts_total
        share = snap.stream.ssl_errors / total if total else 0.0
        # One error among a handful of attempts is no share of anything yet.
        if snap.stream.ssl_errors < 2 or share <= limits.ssl_share[raised]:
            return None
        return f"TLS errors in {share:.0%} of connection attempts"

    def at_cap(snap: EngineSnapshot, raised: bool) -> str | None:
        training = snap.training
        if training.scale is None or not training.scale_cap:
            return None
        if training.scale < training.scale_cap * limits.cap_share[raised]:
            return None
        below = training.scale < training.scale_cap
        return f"loss scale was at its cap, {training.scale:g} now" if below else f"loss scale {training.scale:g} is at its cap"

    def overflow_rate(snap: EngineSnapshot, raised: bool) -> str | None:
        rate = snap.training.overflow_rate
        return f"{rate:.0%} of steps overflow" if rate is not None and rate > limits.overflow_rate[raised] else None

    def in_a_row(snap: EngineSnapshot, raised: bool) -> str | None:
        run = snap.training.consecutive_overflow or 0
        return f"{run} overflows in a row" if run >= limits.consecutive_overflow[raised] else None

    def nonfinite(snap: EngineSnapshot, raised: bool) -> str | None:
        count = snap.training.nonfinite_loss
        return f"{count} steps with NaN or Inf in loss or data" if count else None

    def stream_failed(snap: EngineSnapshot, raised: bool) -> str | None:
        if snap.stream.state not in {StreamState.FAILED, StreamState.COOLING_DOWN}:
            return None
        return "the stream has given up" if snap.stream.state is StreamState.FAILED else "the stream cools down between probes"

    def worker_failed(snap: EngineSnapshot, raised: bool) -> str | None:
        return f"training failed: {snap.training.detail}" if snap.training.state is TrainingState.FAILED else None

    warning, critical = Severity.WARNING, Severity.CRITICAL
    return (
        Rule("stream-failed", critical, "read the cause in the connection pane; r dials again", stream_failed),
        Rule("worker-failed", critical, "read the worker's log; space starts it again", worker_failed),
        Rule("reconnects", warning, "check the network and the advice in the backoff pane", reconnects),
        Rule("silence", warning, "check the symbol's spelling; r reconnects", silence),
        Rule("ssl-errors", warning, "look for a proxy or a middlebox that breaks TLS", ssl_errors),
        Rule("scale-at-cap", Severity.INFO, "fine while nothing overflows; GRAD_SCALER_MAX_SCALE is the cap", at_cap),
        Rule("overflow-rate", warning, "lower the learning rate, or reset the scaler with R", overflow_rate),
        Rule("overflow-run", critical, "an automatic reset follows; if it does not help, look for bad data", in_a_row),
        Rule("nonfinite", critical, "look for bad data or a diverged model; the scale is not the cause", nonfinite),
    )


class AlertBook:
    """Evaluates the rules and remembers since when each alert has stood."""

    def __init__(self, silence_s: Callable[[], float], limits: Thresholds | None = None) -> None:
        """`silence_s`: the warning timeout in force, seconds without any message."""
        self._rules = _rules(silence_s, limits or Thresholds())
        self._standing: dict[str, Alert] = {}

    def evaluate(self, snapshot: EngineSnapshot) -> tuple[Alert, ...]:
        """The alerts that stand now, in the order of the rules."""
        standing = []
        for rule in self._rules:
            before = self._standing.get(rule.key)
            text = rule.check(snapshot, before is not None)
            if text is not None:
                since = before.since if before else snapshot.time
                standing.append(Alert(rule.key, rule.severity, text, rule.remedy, since))
        self._standing = {alert.key: alert for alert in standing}
        return tuple(standing)
