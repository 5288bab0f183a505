"""Times of stored trades that can be believed: one trade with a wrong time must not date all others."""

from __future__ import annotations

from collections.abc import Sequence

# How far a trade may lie ahead of the clock that it is compared with.
AHEAD_US = 60_000_000

WITNESSES = 20  # trades whose times are looked at to learn when the last of them was


def believed_us(times: Sequence[int], now_us: int) -> int | None:
    """When the last of some trades with adjoining ids was, in microseconds since 1970; None without a trade.

    That is the latest of their times, less those that lie ahead of this machine's clock, `now_us`. Where most of them do, the
    clock is wrong, and only those are left out that lie ahead of the majority.
    """
    if not times:
        return None
    middle = sorted(times)[(len(times) - 1) // 2]
    latest = max(now_us, middle) + AHEAD_US
    return max(time_us for time_us in times if time_us <= latest)
