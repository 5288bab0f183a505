"""Plausible times of stored trades: one wrong time must not affect other trades."""

from __future__ import annotations

from collections.abc import Sequence

# How far a trade's time may be ahead of the clock.
AHEAD_US = 60_000_000

WITNESSES = 20  # trades whose times decide the time of the last one


def believed_us(times: Sequence[int], now_us: int) -> int | None:
    """The time of the last of some trades with adjoining ids, in microseconds since 1970; None without a trade.

    This is the latest of their times, ignoring times ahead of this machine's clock, `now_us`. If most are ahead, the
    clock is wrong, and only times ahead of the majority are ignored.
    """
    if not times:
        return None
    middle = sorted(times)[(len(times) - 1) // 2]
    latest = max(now_us, middle) + AHEAD_US
    return max(time_us for time_us in times if time_us <= latest)
