"""How long a refusing venue asks to wait: `Retry-After`, or the end of a ban named in its answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 3 * 24 * 3600.0  # Binance's longest ban

# Binance: "Way too many requests; IP banned until 1659146400000. Please use the websocket for live updates to avoid bans."
_BAN_END = re.compile(rb"banned until (\d{13})(?!\d)")  # Unix milliseconds
_LOOKED_AT_BYTES = 4096


def wait_asked_for(retry_after: Iterable[str], *, date: str | None = None, body: bytes = b"", now_s: float) -> float | None:
    """Seconds that an answer asks to wait, at most 3 days; None without a plausible time.

    `retry_after` are the values of that header, seconds or HTTP dates; the longest counts. Without one, the end of
    a ban in `body` counts. Times are relative to the answer's own `Date`, the venue's clock; without it to `now_s`, in
    Unix seconds, and then a time more than 3 days away means that this machine's clock is wrong.
    """
    sent_s = _moment(date) if date else None
    waits: list[float] = []
    moments: list[float] = []
    for value in map(str.strip, retry_after):
        if value.isascii() and value.isdecimal():
            waits.append(float(value))
        elif (moment := _moment(value)) is not None:
            moments.append(moment)
    if not waits and not moments and (named := _BAN_END.search(body[:_LOOKED_AT_BYTES])):
        moments.append(int(named[1]) / 1000)
    for moment in moments:
        wait = moment - (now_s if sent_s is None else sent_s)
        if wait > 0 and (sent_s is not None or wait <= LONGEST_WAIT_S):
            waits.append(wait)
    return min(max(waits), LONGEST_WAIT_S) if waits else None


def _moment(text: str) -> float | None:
    """An HTTP date in Unix seconds."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
