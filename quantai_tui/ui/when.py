"""Moments as people type them: 03:12, yesterday 23:50, 2026-11-27 03:12, -90m. Local time, as the screen shows it."""

from __future__ import annotations

import re
import time

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DATED = re.compile(r"(\d{4})-(\d{2})-(\d{2})[ t]+(.+)")
_AGO = re.compile(r"-((?:\d+(?:\.\d+)?\s*[dhms]\s*)+)")
_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
FORMS = "03:12, 03:12:30, yesterday 23:50, 2026-11-27 03:12 or -90m"


def parse_moment(text: str, now: float) -> float:
    """Unix seconds of what was typed; a time of day without a day is the last one that is over.

    Raises ValueError with words for the operator: what is wrong, and what would be right.
    """
    wanted = " ".join(text.lower().split())
    if ago := _AGO.fullmatch(wanted):
        return now - sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)\s*([dhms])", ago[1]))
    if dated := _DATED.fullmatch(wanted):
        year, month, day = (int(part) for part in dated.groups()[:3])
        when = _at((year, month, day), dated[4])
    else:
        days_back, clock = (1, wanted.removeprefix("yesterday ")) if wanted.startswith("yesterday ") else (0, wanted)
        today = time.localtime(now)
        when = _at((today.tm_year, today.tm_mon, today.tm_mday - days_back), clock)
        if when > now and not days_back:
            when = _at((today.tm_year, today.tm_mon, today.tm_mday - 1), clock)
    if when > now:
        raise ValueError("that is still to come")
    return when


def _at(day: tuple[int, int, int], clock: str) -> float:
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise ValueError(f"write {FORMS}")
    hour, minute, second = (int(part or 0) for part in match.groups())
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("hours go to 23, minutes and seconds to 59")
    try:
        when = time.mktime((*day, hour, minute, second, 0, 0, -1))
        told = time.localtime(when)
    except (OverflowError, ValueError) as error:
        raise ValueError("there is no such day") from error
    if (told.tm_hour, told.tm_min) != (hour, minute):
        raise ValueError("the clock was put forward over that time")
    if day[2] > 0 and told.tm_mday != day[2]:
        raise ValueError("there is no such day")
    return when
