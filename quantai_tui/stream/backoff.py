"""Exponential backoff with a memory: how long to wait before the next dial, and what became of the dials before it."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..telemetry import SYSTEM_CLOCK, Clock
from .failures import Failure, WebSocketErrorType, classify

HISTORY = 10
_RECENT_FAILURES = 256


@dataclass(frozen=True, slots=True)
class ReconnectRecord:
    """What became of one dial. `timestamp` is Unix seconds; attempt 0 is the first dial of all, which is no reconnect."""

    timestamp: float
    attempt_number: int
    success: bool
    error_type: str | None
    error_message: str | None
    delay_seconds: float
    connection_duration_before_failure: float | None


class ExponentialBackoffReconnector:
    """Counts attempts and says how long to wait: min(initial * factor^n, max) seconds after n attempts in a row.

    An accepted handshake alone does not make the waiting short again: against a server that accepts and drops, that would mean
    hundreds of dials a second. The count goes back to zero once a link has been up for `stable_after` seconds and has delivered
    data (`on_data`), or by `reset()`.
    """

    def __init__(
        self,
        initial_delay: float = 1.0,
        max_delay: float = 60.0,
        backoff_factor: float = 2.0,
        max_retries: int = 10,
        *,
        jitter: float = 0.0,
        stable_after: float = 10.0,
        rng: random.Random | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.configure(initial_delay, max_delay, backoff_factor, max_retries, jitter=jitter)
        self.stable_after = stable_after
        self._rng = rng or random.Random()
        self._clock = clock
        self._attempt = 0  # attempts in a row since the last stable link
        self._open = False  # an attempt was begun and its outcome is not known yet
        self._delay = 0.0
        self._up_since: float | None = None
        self._has_data = False
        self._last_duration: float | None = None
        self._total = 0
        self._first_dials = 0
        self._successes = 0
        self._delay_sum = 0.0
        self._errors: Counter[str] = Counter()
        self._history: deque[ReconnectRecord] = deque(maxlen=HISTORY)
        self._failures: deque[float] = deque(maxlen=_RECENT_FAILURES)

    def configure(
        self, initial_delay: float, max_delay: float, backoff_factor: float, max_retries: int, *, jitter: float = 0.0
    ) -> None:
        """Take other numbers from now on; attempts, statistics and history stay."""
        if not initial_delay > 0 or not max_delay >= initial_delay:
            raise ValueError(f"delays need 0 < initial <= max, got {initial_delay} and {max_delay}")
        if not backoff_factor > 1 or max_retries < 0 or not 0 <= jitter < 1:
            raise ValueError(f"need factor > 1, retries >= 0, 0 <= jitter < 1; got {backoff_factor}, {max_retries}, {jitter}")
        self.initial_delay = initial_delay
        self.max_delay = max_delay
        self.backoff_factor = backoff_factor
        self.max_retries = max_retries
        self.jitter = jitter

    @property
    def attempt(self) -> int:
        """Attempts in a row since the last stable link."""
        return self._attempt

    @property
    def total_attempts(self) -> int:
        return self._total

    @property
    def dials(self) -> int:
        """Every dial whose outcome is known, and the attempts under way: the first one too, which is no reconnect."""
        return self._total + self._first_dials

    @property
    def successes(self) -> int:
        return self._successes

    @property
    def error_counts(self) -> Mapping[str, int]:
        return self._errors

    @property
    def history(self) -> tuple[ReconnectRecord, ...]:
        return tuple(self._history)

    def calculate_next_delay(self) -> float:
        """Seconds to wait before the next attempt, jitter included; never above `max_delay`. Asking counts as nothing."""
        try:
            delay = self.initial_delay * self.backoff_factor**self._attempt
        except OverflowError:
            delay = self.max_delay
        delay = min(delay, self.max_delay)
        if self.jitter:
            delay = min(delay * (1 + self.jitter * self._rng.uniform(-1, 1)), self.max_delay)
        self._delay = delay
        return delay

    def should_retry(self) -> bool:
        """Whether another attempt is allowed; with `max_retries` 0 it always is."""
        return self.max_retries == 0 or self._attempt < self.max_retries

    def on_reconnect_attempt(self, waited: float | None = None) -> None:
        """A dial begins, after waiting `waited` seconds (None: as last calculated)."""
        if waited is not None:
            self._delay = waited
        self._attempt += 1
        self._total += 1
        self._delay_sum += self._delay
        self._open = True

    def on_reconnect_success(self) -> None:
        """The dial that was begun has led to a subscribed link."""
        if self._open:
            self._successes += 1
            self._open = False
        else:
            self._first_dials += 1
        self._record(None)

    def on_reconnect_failure(self, error: BaseException | Failure) -> None:
        """A dial has failed; one that was not announced by `on_reconnect_attempt` counts as an attempt."""
        if not self._open:
            self.on_reconnect_attempt()
        self._open = False
        self._fail(error)

    def on_first_failure(self, error: BaseException | Failure) -> None:
        """The first dial of all has failed: it goes on record, as attempt 0, but is no retry."""
        self._first_dials += 1
        self._fail(error)

    def on_link_up(self) -> None:
        """A link is subscribed; from now on it may prove stable."""
        self._up_since = self._clock.monotonic()
        self._has_data = False

    def on_data(self) -> None:
        """The link has delivered data; once it is old enough as well, earlier attempts are forgotten."""
        self._has_data = True
        self._settle()

    def on_link_down(self, failure: Failure | None = None) -> float | None:
        """The link is gone, by `failure` or on request. Returns how long it was up, None where it never was."""
        if self._up_since is None:
            return None
        if failure is not None:
            self._errors[failure.type.value] += 1
        self._settle()
        self._last_duration = self._clock.monotonic() - self._up_since
        self._up_since = None
        return self._last_duration

    def reset(self) -> None:
        """Forget the attempts in a row; statistics and history stay."""
        self._attempt = 0
        self._delay = 0.0

    def failed_within(self, seconds: float) -> int:
        """Failed dials in the last `seconds` (at most 256 are remembered)."""
        since = self._clock.monotonic() - seconds
        return sum(1 for at in self._failures if at >= since)

    def get_statistics(self) -> dict[str, Any]:
        """total_attempts, success_rate and avg_delay (None before the first attempt), error_types, and the last 10 records."""
        return {
            "total_attempts": self._total,
            "success_rate": self._successes / self._total if self._total else None,
            "avg_delay": self._delay_sum / self._total if self._total else None,
            "error_types": dict(self._errors),
            "history": self.history,
        }

    def _settle(self) -> None:
        if self._up_since is None or not self._has_data or not self._attempt:
            return
        if self._clock.monotonic() - self._up_since >= self.stable_after:
            self.reset()

    def _fail(self, error: BaseException | Failure) -> None:
        failure = error if isinstance(error, Failure) else classify(error)
        self._errors[failure.type.value] += 1
        self._failures.append(self._clock.monotonic())
        self._record(failure)

    def _record(self, failure: Failure | None) -> None:
        error_type: WebSocketErrorType | None = failure.type if failure else None
        self._history.append(
            ReconnectRecord(
                timestamp=self._clock.time(),
                attempt_number=self._attempt,
                success=failure is None,
                error_type=error_type.value if error_type else None,
                error_message=failure.message if failure else None,
                delay_seconds=self._delay,
                connection_duration_before_failure=self._last_duration,
            )
        )
        self._last_duration = None
