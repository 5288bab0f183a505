"""Exponential backoff with a memory: how long to wait before the next dial, and what became of the dials before it."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..arguments import check_number
from ..telemetry import SYSTEM_CLOCK, Clock
from .config import check_backoff
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

    The delay runs from the start of an attempt, or from the end of the link that came of it (`wait_left`): an attempt that took
    30 s to time out has done its waiting. An accepted handshake alone does not make the waiting short again: against a server
    that accepts and drops, that would mean hundreds of dials a second. Delays start over once a link has been up for
    `stable_after` seconds and has delivered data (`on_data`), or by `reset()`.

    Retries are counted separately: an attempt whose link delivered any data did not fail. Links
    that deliver data and then break make the delays longer, but never use up the retries.
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
        check_number("stable_after", stable_after, at_least=0.0)
        self.stable_after = stable_after
        self._rng = rng or random.Random()
        self._clock = clock
        self._attempt = 0  # consecutive attempts since the last stable link; decides the delay
        self._in_vain = 0  # consecutive attempts since the last link that delivered; compared with max_retries
        self._open = False  # an attempt was begun and its outcome is not known yet
        self._delay = 0.0  # before the attempt that was begun last
        self._planned: float | None = None  # before the next attempt, as last calculated
        self._counts_from: float | None = None  # monotonic: start of the last attempt, or end of the link that came of it
        self._up_since: float | None = None
        self._has_data = False
        self._last_duration: float | None = None
        self._total = 0
        self._first_dials = 0
        self._successes = 0
        self._failed = 0
        self._abandoned = 0
        self.second_failures = 0
        """Second connections that came to nothing: no reconnects, but errors all the same."""
        self._delay_sum = 0.0
        self._errors: Counter[str] = Counter()
        self._history: deque[ReconnectRecord] = deque(maxlen=HISTORY)
        self._failures: deque[float] = deque(maxlen=_RECENT_FAILURES)

    def configure(
        self, initial_delay: float, max_delay: float, backoff_factor: float, max_retries: int, *, jitter: float = 0.0
    ) -> None:
        """Take other numbers from now on; attempts, statistics and history stay."""
        check_backoff(initial_delay, max_delay, backoff_factor, max_retries, jitter)
        self.initial_delay = initial_delay
        self.max_delay = max_delay
        self.backoff_factor = backoff_factor
        self.max_retries = max_retries
        self.jitter = jitter

    @property
    def attempt(self) -> int:
        """Consecutive attempts since the last link that delivered data; these count towards `max_retries`."""
        return self._in_vain

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
        """Seconds between this attempt and the next, jitter included; never above `max_delay`. Asking counts as nothing.

        What is left to wait of it is `wait_left()`.
        """
        self._settle()
        delay = self._nominal(self._attempt)
        if self.jitter:
            delay = min(delay * (1 + self.jitter * self._rng.uniform(-1, 1)), self.max_delay)
        self._planned = delay
        return delay

    def schedule(self) -> tuple[float, ...]:
        """The waits to come if every dial from now on failed, in seconds, without jitter: as many as retries, 12 at most."""
        self._settle()
        most = min(12, max(0, self.max_retries - self._in_vain)) if self.max_retries else 12
        return tuple(self._nominal(self._attempt + ahead) for ahead in range(most))

    def _nominal(self, attempt: int) -> float:
        try:
            return min(self.initial_delay * self.backoff_factor**attempt, self.max_delay)
        except OverflowError:
            return self.max_delay

    def wait_left(self, delay: float | None = None) -> float:
        """Seconds until the next attempt may begin: what is left of `delay` (None: of the one last calculated).

        It counts from the start of the last attempt, or from the end of the link that came of it; from now before either.
        """
        if delay is None:
            delay = self.calculate_next_delay() if self._planned is None else self._planned
        if self._counts_from is None:
            return delay
        return max(0.0, self._counts_from + delay - self._clock.monotonic())

    def should_retry(self) -> bool:
        """Whether another attempt is allowed, rather than single probes; with `max_retries` 0 it always is."""
        return self.max_retries == 0 or self._in_vain < self.max_retries

    def on_reconnect_attempt(self, waited: float | None = None) -> None:
        """A dial begins, after waiting `waited` seconds (None: as last calculated). One whose outcome never came is given up."""
        self.on_reconnect_abandoned()
        self._delay = waited if waited is not None else self._planned or 0.0
        self._planned = None
        self._attempt += 1
        self._in_vain += 1
        self._total += 1
        self._delay_sum += self._delay
        self._open = True
        self._counts_from = self._clock.monotonic()

    def on_reconnect_abandoned(self) -> None:
        """The dial that was begun is given up before its outcome is known: a command came in between. Else does nothing."""
        if self._open:
            self._open = False
            self._abandoned += 1

    def on_reconnect_success(self) -> None:
        """The dial that was begun has led to a subscribed link. The first dial of all is no reconnect, and never announced."""
        if not self._open and not self.dials:
            self._first_dials = 1
        else:
            if not self._open:
                self.on_reconnect_attempt()
            self._successes += 1
            self._open = False
        self._record(None)

    def on_reconnect_failure(self, error: BaseException | Failure) -> None:
        """A dial has failed; one that was not announced by `on_reconnect_attempt` counts as an attempt."""
        if not self._open:
            self.on_reconnect_attempt()
        self._open = False
        self._failed += 1
        self._fail(error)

    def on_first_attempt(self) -> None:
        """The first dial of all begins: no reconnect, but the delay after it counts from here."""
        self._counts_from = self._clock.monotonic()

    def on_first_failure(self, error: BaseException | Failure) -> None:
        """The first dial of all has failed: it goes on record, as attempt 0, but is no retry."""
        if self.dials:
            self.on_reconnect_failure(error)
            return
        self._first_dials = 1
        self._fail(error)

    def on_second_failure(self, failure: Failure) -> None:
        """A second connection, beside one that is live, has failed: counted by its type, and nothing is to be waited for."""
        self.second_failures += 1
        self._errors[failure.type.value] += 1

    def on_link_up(self) -> None:
        """A link is subscribed; from now on it may prove stable."""
        self._settle()
        self._up_since = self._clock.monotonic()
        self._has_data = False

    def on_data(self) -> None:
        """The link has delivered data: earlier attempts no longer count as failed; once it is old enough, delays start over."""
        self._has_data = True
        self._in_vain = 0
        self._settle()

    def on_link_down(self, failure: Failure | None = None) -> float | None:
        """The link is gone, by `failure` or on request. Returns how long it was up, None where it never was."""
        if self._up_since is None:
            return None
        if failure is not None:
            self._errors[failure.type.value] += 1
        self._settle()
        self._counts_from = self._clock.monotonic()
        self._last_duration = self._counts_from - self._up_since
        self._up_since = None
        return self._last_duration

    def reset(self) -> None:
        """Forget the attempts in a row; statistics and history stay."""
        self._attempt = self._in_vain = 0
        self._planned = None

    def failed_within(self, seconds: float) -> int:
        """Failed dials in the last `seconds` (at most 256 are remembered)."""
        since = self._clock.monotonic() - seconds
        return sum(1 for at in self._failures if at >= since)

    def get_statistics(self) -> dict[str, Any]:
        """What became of all reconnects, as plain values, and the last 10 records.

        `total_attempts` is `successes` + `failures` + `abandoned`, and one more while one is under way. `success_rate` (0 to 1,
        of those whose outcome is known) and `avg_delay` (seconds) are None until there is something to say.
        """
        known = self._successes + self._failed
        return {
            "total_attempts": self._total,
            "successes": self._successes,
            "failures": self._failed,
            "abandoned": self._abandoned,
            "success_rate": self._successes / known if known else None,
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
                attempt_number=self._in_vain,
                success=failure is None,
                error_type=error_type.value if error_type else None,
                error_message=failure.message if failure else None,
                delay_seconds=self._delay,
                connection_duration_before_failure=self._last_duration,
            )
        )
        self._last_duration = None
