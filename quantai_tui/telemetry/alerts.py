"""Alert rules over snapshots. Each has two thresholds, to raise and to clear, so that an alert does not flicker."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter

import msgspec

from .rules import News, Rule, Thresholds
from .snapshots import Alert, EngineSnapshot, Severity, StreamState, SymbolSnapshot
from .training_alerts import machine_rules, training_rules

_STOPPED = "stopped"  # how a recording ends that was asked to


def _about(seconds: float) -> str:
    """Time left in words that change once a minute at most. Rounded up."""
    minutes = math.ceil(seconds / 60)
    if minutes >= 120:
        return f"about {math.ceil(minutes / 60)} h"
    return f"about {minutes} min" if minutes > 1 else "less than a minute"


def _by_name(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} of {name}" for name, count in counts.items())


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
    recording_news, suspend_news = News(None), News(0)

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
        Rule(
            "unrecoverable",
            Severity.WARNING,
            "the market pane says why; BACKFILL_MAX_AGE_H limits how old an outage is fetched",
            unrecoverable,
        ),
        Rule(
            "recording-ended",
            Severity.WARNING,
            "WS_RECORD_MAX_MB is its limit; 'quantai-tui record' begins another",
            recording_ended,
        ),
        Rule("suspended", Severity.INFO, "nothing to do: the link is asked, and what was missed is fetched", suspended),
    )


def _quarantine_rules() -> tuple[Rule, ...]:
    """Whether the venue sends trades that contradict its clock or its other trades."""

    def counted(key: str, count_of: Callable[[SymbolSnapshot], int], text: str, remedy: str) -> Rule:
        news = News(())

        def check(snap: EngineSnapshot, stands: str) -> str | None:
            counts = {name: count for name, symbol in snap.stream.symbols.items() if (count := count_of(symbol))}
            fresh = news.is_fresh(tuple(counts.items()), snap.uptime_s) and counts
            return f"{text}: {_by_name(counts)}" if fresh else None

        return Rule(key, Severity.WARNING, remedy, check)

    return (
        counted(
            "wrong-times",
            attrgetter("wrong_times"),
            "trades in quarantine because of impossible times",
            "the connection pane shows them; each is fetched again over REST",
        ),
        counted(
            "implausible-ids",
            attrgetter("implausible"),
            "trades in quarantine because of implausible ids",
            "the connection pane shows them; nothing has confirmed their ids",
        ),
        counted(
            "conflicts",
            attrgetter("conflicts"),
            "trades with the same id but different content",
            "the first is kept; the connection pane shows both; check EXCHANGE_WS_URL and EXCHANGE_REST_URL",
        ),
    )


def _store_rules() -> tuple[Rule, ...]:
    """Whether the store takes what comes in, and keeps what it should."""

    def store_held(snap: EngineSnapshot, stands: str) -> str | None:
        return f"the store is held by {snap.store.held_by}" if snap.store.held_by else None

    def prune_refused(snap: EngineSnapshot, stands: str) -> str | None:
        return snap.store.prune_refused or None

    return (
        Rule(
            "store-held",
            Severity.CRITICAL,
            "close it there, or end its transaction; no trade is lost: trades wait, and the socket is read more slowly",
            store_held,
        ),
        Rule(
            "prune-refused",
            Severity.WARNING,
            "nothing was deleted; check the times of the newest trades, or change STORE_RETENTION_DAYS to delete them",
            prune_refused,
        ),
    )


class AlertBook:
    """Evaluates the rules and remembers since when each alert has stood."""

    def __init__(self, silence_s: Callable[[], float], limits: Thresholds | None = None) -> None:
        """`silence_s`: the warning timeout in force, seconds without any message."""
        limits = limits or Thresholds()
        self._rules = (
            _link_rules(silence_s, limits)
            + _record_rules()
            + _quarantine_rules()
            + _store_rules()
            + training_rules(limits)
            + machine_rules(limits)
        )
        self._standing: dict[str, Alert] = {}

    def evaluate(self, snapshot: EngineSnapshot) -> tuple[Alert, ...]:
        """The alerts that stand now, in the order of the rules."""
        standing = []
        for rule in self._rules:
            before = self._standing.get(rule.key)
            text = rule.check(snapshot, before.text if before else "")
            if text is not None:
                since = before.since if before else snapshot.time
                seen = before is not None and before.acknowledged
                standing.append(Alert(rule.key, rule.severity, text, rule.remedy, since, seen))
        self._standing = {alert.key: alert for alert in standing}
        return tuple(standing)

    @property
    def standing(self) -> tuple[Alert, ...]:
        return tuple(self._standing.values())

    def acknowledge(self, key: str) -> int:
        """Mark one standing alert as seen, or all with an empty key, until it is over; returns how many were not seen yet."""
        fresh = [alert for alert in self._standing.values() if not alert.acknowledged and key in {"", alert.key}]
        for alert in fresh:
            self._standing[alert.key] = msgspec.structs.replace(alert, acknowledged=True)
        return len(fresh)
