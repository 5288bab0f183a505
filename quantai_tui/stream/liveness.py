"""How long each symbol is usually silent, and which are silent for longer than that.

A symbol's limit is `FACTOR` times the longest silence it is known for, where what is known fades with `HALF_LIFE_S`; at least
`LEAST_S`, at most `longest`. The numbers were chosen by measurement, with batches of 75 ms and `longest` at 600 s. Shown are the
suspicions per day that were wrong, and the seconds until a true stall is suspected (5th percentile, median and 95th of the limit
over the run):

    trades                                       wrong per day    seconds until suspected
    XRPETH on Binance, 59 h, 0.058 a second           1.2            235    479    600
    the same, 20 times faster                         0               27     47     65
    Poisson, 0.1 a second, 20 days                    0.2             96    131    199
    Poisson, 1 a second, 8 days                       0               15     19     26
    Poisson, 20 a second, 12 h                        0                5      5      5
    Poisson, 2,000 a second, 12 h                     0                5      5      5

With a half-life of 600 s the first would be 10.5 and the third 1.3; with a factor of 2 they would be 11 and 3.6. A wrong
suspicion costs a second connection for a moment, and teaches the limit.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..telemetry import SYSTEM_CLOCK, Clock

FACTOR = 3.0  # times the longest usual silence
HALF_LIFE_S = 1800.0  # of observed time, in which the longest usual silence counts for half
LEAST_S = 5.0
# Before so much was observed of a symbol nothing is known of its usual rate.
ENOUGH_SILENCES = 30
ENOUGH_S = 60.0


class _Usual:
    """What was observed of one symbol."""

    __slots__ = ("accused", "excused", "heard", "observed_s", "peak_s", "silences", "since")

    def __init__(self, now: float) -> None:
        self.since = now  # from then on it has been silent, as far as is known
        self.heard = False  # whether a trade came at `since`
        self.excused = now  # silence until then proves nothing against the link
        self.accused = False  # REST has shown that the venue trades it
        self.peak_s = 0.0
        self.observed_s = 0.0
        self.silences = 0

    def add(self, silence_s: float) -> None:
        self.peak_s = max(self.peak_s * 0.5 ** (silence_s / HALF_LIFE_S), silence_s)
        self.observed_s += silence_s
        self.silences += 1


class Liveness:
    """Suspects a symbol whose silence is out of all proportion to its own past.

    Times are seconds. `longest` bounds every symbol's limit, and is the limit where too little is known. Fed per batch; silences
    are those between batches. What was learnt outlives a connection, a silence does not.
    """

    def __init__(self, symbols: Iterable[str], *, longest: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.longest = longest
        now = clock.monotonic()
        self._symbols = {symbol: _Usual(now) for symbol in symbols}
        self._any_since = now

    def on_link(self) -> None:
        """A connection delivers from now on: silence before it says nothing of it."""
        self.hold()
        for usual in self._symbols.values():
            usual.accused = False

    def hold(self) -> None:
        """Reading was paused, or the loop was held up: silence until now proves nothing, and is not learnt from."""
        now = self._any_since = self._clock.monotonic()
        for usual in self._symbols.values():
            usual.since = usual.excused = now
            usual.heard = False

    def heard(self, symbol: str, count: int) -> None:
        """A batch with `count` trades of the symbol came."""
        usual = self._symbols.get(symbol)
        if usual is None or count < 1:
            return
        now = self._any_since = self._clock.monotonic()
        if usual.heard and not usual.accused:  # the silence of one that the venue traded is not usual
            usual.add(now - usual.since)
        usual.since = usual.excused = now
        usual.heard = True
        usual.accused = False

    def accuse(self, symbol: str) -> None:
        """Suspect a symbol that the venue trades and the link does not bring, until it or another connection delivers."""
        if (usual := self._symbols.get(symbol)) is not None:
            usual.accused = True

    def excuse(self, symbol: str) -> None:
        """The market was quiet, not the link: learn from the silence so far, and let the suspicion begin anew."""
        usual = self._symbols.get(symbol)
        if usual is None:
            return
        now = self._clock.monotonic()
        usual.peak_s = max(usual.peak_s, now - usual.since)
        usual.excused = now

    def suspects(self) -> list[str]:
        """Accused symbols, and those silent for their limit or longer since they were last heard or excused."""
        now = self._clock.monotonic()
        return [symbol for symbol, usual in self._symbols.items() if usual.accused or now - usual.excused >= self._limit_s(usual)]

    def silent_s(self, symbol: str) -> float | None:
        """For how long nothing has come of the symbol on this connection; None for one that is not watched."""
        usual = self._symbols.get(symbol)
        return None if usual is None else self._clock.monotonic() - usual.since

    def limit_s(self, symbol: str) -> float | None:
        """The silence at which it is suspected; None for one that is not watched."""
        usual = self._symbols.get(symbol)
        return None if usual is None else self._limit_s(usual)

    def any_silent_s(self) -> float:
        """For how long nothing has come of any symbol."""
        return self._clock.monotonic() - self._any_since

    def _limit_s(self, usual: _Usual) -> float:
        if usual.silences < ENOUGH_SILENCES or usual.observed_s < ENOUGH_S:
            return self.longest
        return min(max(FACTOR * usual.peak_s, LEAST_S), self.longest)
