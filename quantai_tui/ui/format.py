"""Numbers, times and outside text as words of a fixed, short shape. What is not known is `UNKNOWN`, never zero."""

from __future__ import annotations

import math
import time
import unicodedata

from .. import cleaning

UNKNOWN = "–"  # noqa: RUF001 (an en dash is the sign for 'not known' on every pane)


def duration(seconds: float | None) -> str:
    """Two units at most: `45 s`, `2m 05s`, `3h 04m`, `12d 03h`."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}h"


def lasting(seconds: float | None) -> str:
    """Time that goes on, until now: `45 s`, `12 min`, `3h 04m`. Seconds would tell little then, and cost a repaint each."""
    if seconds is not None and 60 <= seconds < 3_600:
        return f"{int(seconds // 60)} min"
    return duration(seconds)


def age(seconds: float | None) -> str:
    """Like `lasting`, but anything below a second is `<1 s`: tenths would only flicker."""
    if seconds is not None and seconds < 1:
        return "<1 s"
    return lasting(seconds)


def rough(seconds: float) -> str:
    """Time left for what is far off: whole hours, or minutes in the last two of them. It changes as seldom as it can."""
    minutes = int(max(0.0, seconds) // 60)
    if minutes >= 120:
        return f"{minutes // 60} h"
    return f"{minutes} min" if minutes else "<1 min"


def whole_days(days: float) -> str:
    """`89 days`; what is left of a day does not count."""
    whole = int(days)
    return "1 day" if whole == 1 else f"{whole} days"


def countdown(seconds: float) -> str:
    """Time left. Rounded up, so that it reads `0 s` only when there is nothing left."""
    return duration(math.ceil(max(0.0, seconds)))


def delay(seconds: float | None) -> str:
    """A short wait: tenths below ten seconds."""
    if seconds is not None and 0 <= seconds < 10:
        return f"{seconds:.1f} s"
    return duration(seconds)


def count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def decimal(number: float | None, digits: int = 4) -> str:
    """`digits` significant places; NaN and infinity are named, they are what the operator looks for."""
    if number is None:
        return UNKNOWN
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Inf" if number > 0 else "-Inf"
    if number == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(number)))
    if magnitude >= digits:
        return f"{number:,.0f}"
    if magnitude < -4:
        return f"{number:.1e}"
    return f"{number:.{max(0, digits - 1 - magnitude)}f}"


def quantity(number: float | None) -> str:
    """A big number that has to stay readable: `65,536`, `1,048,576`, `4.29e+09`."""
    if number is None:
        return UNKNOWN
    if not math.isfinite(number) or abs(number) >= 1e9:
        return decimal(number) if not math.isfinite(number) else f"{number:.2e}"
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else decimal(number, 3)


def short(number: float) -> str:
    """Five cells at most, for axis labels: `950`, `1.2k`, `100k`, `65.5k`, `4.3M`."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            scaled = number / limit
            return f"{scaled:.0f}{suffix}" if scaled >= 100 or scaled == int(scaled) else f"{scaled:.1f}{suffix}"
    return f"{number:.0f}" if number == int(number) else decimal(number, 2)


def brief(number: float) -> str:
    """Four cells at most below a trillion, for axis labels with a unit: `950`, `1.2k`, `66k`, `4.3M`."""
    if not math.isfinite(number):
        return decimal(number)
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit * 0.9995:
            scaled = number / limit
            return f"{scaled:.1f}{suffix}" if abs(scaled) < 9.95 and scaled != int(scaled) else f"{scaled:.0f}{suffix}"
    if number == int(number) or abs(number) >= 99.5:
        return f"{number:.0f}"
    return f"{number:.1f}" if abs(number) >= 0.05 else decimal(number, 1)


def per_second(number: float | None) -> str:
    if number is None:
        return f"{UNKNOWN} /s"
    return f"{number:,.0f} /s" if number >= 100 or number == 0 else f"{number:.1f} /s"


def milliseconds(number: float | None) -> str:
    if number is None:
        return UNKNOWN
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def percent(rate: float | None, digits: int = 1) -> str:
    """A rate of 0 to 1 as `12.4 %`."""
    if rate is None:
        return UNKNOWN
    if 0 < rate < 10 ** -(digits + 2) / 2:
        return f"<{10**-digits:.{digits}f} %"
    return f"{rate * 100:.{digits}f} %"


def size(number: int | None) -> str:
    """Decimal units, as disks are sold: `812 B`, `12.3 MB`."""
    if number is None:
        return UNKNOWN
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def wall_clock(unix_s: float, *, seconds: bool = True) -> str:
    """Local time of day. The zone is shown once, in the header, by `zone`."""
    return time.strftime("%H:%M:%S" if seconds else "%H:%M", time.localtime(unix_s))


def date_and_time(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def zone(unix_s: float) -> str:
    return time.strftime("%Z", time.localtime(unix_s))


def price(text: str | None) -> str:
    """As received, but without the zeros that a venue pads with; two decimals stay."""
    if text is None:
        return UNKNOWN
    whole, point, decimals = clean(text).partition(".")
    return whole + point + decimals.rstrip("0").ljust(min(2, len(decimals)), "0")


def words(identifier: str) -> str:
    """`SSL_ERROR` and `cooling_down` as people say them."""
    return identifier.replace("_", " ").lower()


def clean(text: str) -> str:
    """Make outside text safe to draw: clean, and without characters of zero or unknown width."""
    text = cleaning.clean(text)
    if text.isascii():
        return text
    return "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Co", "Cn", "Mn", "Me"))
