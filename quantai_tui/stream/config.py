"""What the stream needs to know, as one frozen value. It knows no settings file: the names below are all it asks of settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, get_args
from urllib.parse import urlsplit

from ..arguments import check_choice, check_number, check_whole, normalise_fields, path_from, shown
from ..symbols import SYMBOL_RULE, is_symbol

BackfillStart = str | int  # "now", "earliest", or the aggregate id to begin at
Order = Literal["id", "arrival"]

TRANSPORTS = ("auto", "websockets", "picows")

_MOST_SYMBOLS = 1024  # Binance's limit of streams per connection
_ID = re.compile(r"[0-9]{1,18}")  # as for the setting BACKFILL_START
_HIGHEST_START = 10**18 - 1
# Rules for the numbers of `StreamConfig`, except those of the backoff.
_ABOVE_ZERO = (
    *("ping_interval", "pong_timeout", "ssl_timeout", "connect_timeout", "subscribe_timeout", "message_timeout"),
    *("message_warning_timeout", "rotate_after", "overload_after", "backfill_max_age_h"),
)
_AT_LEAST_ZERO = ("cooldown", "stable_after", "reorder_trades", "reorder_s")


def public_address(url: str) -> str:
    """An address as it may be shown and put down: without user, password and query. Empty for what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    # Everything up to the last @ counts as user and password, even if an unescaped / or # ends the authority earlier.
    rest = url.partition("://")[2].rpartition("@")[2]
    return f"{parts.scheme}://{re.split('[?#]', rest, maxsplit=1)[0]}"


class StreamSettings(Protocol):
    """The settings the stream reads, by the names they have in files and the environment."""

    @property
    def SYMBOLS(self) -> tuple[str, ...]: ...
    @property
    def EXCHANGE_WS_URL(self) -> str: ...
    @property
    def EXCHANGE_REST_URL(self) -> str: ...
    @property
    def EXCHANGE_CA_FILE(self) -> str: ...
    @property
    def PROXY_URL(self) -> str: ...
    @property
    def BACKFILL_START(self) -> str: ...
    @property
    def BACKFILL_MAX_AGE_H(self) -> float: ...
    @property
    def WS_RECONNECT_INITIAL_DELAY(self) -> float: ...
    @property
    def WS_RECONNECT_MAX_DELAY(self) -> float: ...
    @property
    def WS_RECONNECT_BACKOFF_FACTOR(self) -> float: ...
    @property
    def WS_RECONNECT_MAX_RETRIES(self) -> int: ...
    @property
    def WS_RECONNECT_JITTER(self) -> float: ...
    @property
    def WS_RECONNECT_COOLDOWN(self) -> float: ...
    @property
    def WS_PING_INTERVAL(self) -> float: ...
    @property
    def WS_PONG_TIMEOUT(self) -> float: ...
    @property
    def WS_SSL_TIMEOUT(self) -> float: ...
    @property
    def WS_MESSAGE_TIMEOUT(self) -> float: ...
    @property
    def WS_MESSAGE_WARNING_TIMEOUT(self) -> float: ...
    @property
    def WS_ROTATE_AFTER(self) -> float: ...
    @property
    def WS_TRANSPORT(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Where to listen, what for, and how patiently. Durations are seconds unless the name says otherwise.

    `ws_url` and `rest_url` are base addresses without a path. `stable_after` is how long a link must have been up, and have
    delivered data, before the backoff forgets earlier failures. `cooldown` is the pause between single probes once the retries
    are used up (0: stop for good). `overload_after` is how long reading may stay paused before the link is given up: server pings
    queue behind the unread data, and the venue drops a client that does not answer them within 60 s. `rotate_after` is the age at
    which a connection is replaced: the venue ends each after 24 h. `transport` is "auto", "websockets" or "picows".

    The last three apply to iteration; a sink always receives trades as they arrive. With `order` "id" the trades of a
    symbol wait until earlier gaps are filled, until `reorder_trades` wait (all symbols together) or the gap has held
    trades back for `reorder_s`; then it is skipped. "arrival" yields them as a sink receives them.

    Symbols may be in any case and in any iterable, and NumPy numbers are accepted. Raises TypeError or ValueError
    for an invalid value; the text names the field.
    """

    symbols: tuple[str, ...]
    ws_url: str = "wss://stream.binance.com:9443"
    rest_url: str = "https://api.binance.com"
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)  # it may carry a password
    initial_delay: float = 1.0
    max_delay: float = 60.0
    backoff_factor: float = 2.0
    max_retries: int = 10
    jitter: float = 0.1
    cooldown: float = 300.0
    stable_after: float = 10.0
    ping_interval: float = 30.0
    pong_timeout: float = 10.0
    ssl_timeout: float = 30.0
    connect_timeout: float = 15.0
    subscribe_timeout: float = 10.0
    message_timeout: float = 1200.0
    message_warning_timeout: float = 600.0
    rotate_after: float = 84_600.0
    transport: str = "auto"
    overload_after: float = 15.0
    buffer_trades: int = 20_000
    order: Order = "id"
    reorder_trades: int = 100_000
    reorder_s: float = 60.0
    backfill_start: BackfillStart = "now"
    backfill_max_age_h: float = 24.0
    exit_on_failure: bool = False

    def __post_init__(self) -> None:
        proxy = self.proxy or None
        if proxy is not None and not isinstance(proxy, str):  # never shown: it may carry a password
            raise TypeError('proxy must be text such as "http://host:port", or None')
        ca_file = None if self.ca_file in (None, "") else str(path_from("ca_file", self.ca_file))
        values = {"symbols": _symbols(self.symbols), "backfill_start": _start(self.backfill_start), "ca_file": ca_file}
        for name, value in {**values, "proxy": proxy}.items():
            object.__setattr__(self, name, value)
        normalise_fields(self, leave=frozenset({*values, "proxy"}))
        check_choice("order", self.order, get_args(Order))
        check_choice("transport", self.transport, TRANSPORTS)
        for name in ("ws_url", "rest_url"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty; leave it out for the venue's own address")
        check_backoff(self.initial_delay, self.max_delay, self.backoff_factor, self.max_retries, self.jitter)
        for name in _ABOVE_ZERO:
            check_number(name, getattr(self, name), above=0)
        for name in _AT_LEAST_ZERO:
            check_number(name, getattr(self, name), at_least=0)
        check_number("buffer_trades", self.buffer_trades, at_least=1)

    @classmethod
    def from_settings(
        cls,
        settings: StreamSettings,
        *,
        ws_url: str | None = None,
        rest_url: str | None = None,
        ca_file: str | None = None,
        backfill_start: BackfillStart | None = None,
        exit_on_failure: bool = False,
    ) -> Self:
        """The stream's share of the settings; addresses, CA and start given here win (the embedded exchange's are known late)."""
        return cls(
            symbols=settings.SYMBOLS,
            ws_url=ws_url or settings.EXCHANGE_WS_URL,
            rest_url=rest_url or settings.EXCHANGE_REST_URL,
            ca_file=ca_file or settings.EXCHANGE_CA_FILE or None,
            proxy=settings.PROXY_URL or None,
            initial_delay=settings.WS_RECONNECT_INITIAL_DELAY,
            max_delay=settings.WS_RECONNECT_MAX_DELAY,
            backoff_factor=settings.WS_RECONNECT_BACKOFF_FACTOR,
            max_retries=settings.WS_RECONNECT_MAX_RETRIES,
            jitter=settings.WS_RECONNECT_JITTER,
            cooldown=settings.WS_RECONNECT_COOLDOWN,
            ping_interval=settings.WS_PING_INTERVAL,
            pong_timeout=settings.WS_PONG_TIMEOUT,
            ssl_timeout=settings.WS_SSL_TIMEOUT,
            message_timeout=settings.WS_MESSAGE_TIMEOUT,
            message_warning_timeout=settings.WS_MESSAGE_WARNING_TIMEOUT,
            rotate_after=settings.WS_ROTATE_AFTER,
            transport=settings.WS_TRANSPORT,
            backfill_start=settings.BACKFILL_START if backfill_start is None else backfill_start,
            backfill_max_age_h=settings.BACKFILL_MAX_AGE_H,
            exit_on_failure=exit_on_failure,
        )


def check_backoff(initial_delay: float, max_delay: float, backoff_factor: float, max_retries: int, jitter: float) -> None:
    """Raise ValueError or TypeError unless these numbers give growing delays with a bound. `max_retries` 0 is unlimited."""
    check_number("initial_delay", initial_delay, above=0)
    check_number("max_delay", max_delay, at_least=initial_delay)
    check_number("backoff_factor", backoff_factor, above=1)
    check_whole("max_retries", max_retries, at_least=0)
    check_number("jitter", jitter, at_least=0, below=1)


def _symbols(given: Any) -> tuple[str, ...]:
    """Normalise symbols: upper case, stripped, each once."""
    if isinstance(given, (str, bytes)):
        raise TypeError(f"symbols must be a tuple of symbols, got the text {shown(given)}; write symbols=({shown(given)},)")
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise TypeError(f'symbols must be a tuple of symbols such as ("ETHUSDT",), got {shown(given)}')
    names = []
    for one in given:
        if not isinstance(one, str):
            raise TypeError(f'symbols must hold text such as "ETHUSDT", got {shown(one)}')
        name = one.strip().upper()
        if not (one.isascii() and is_symbol(name)):
            raise ValueError(f"symbols has {shown(one)}; a symbol is {SYMBOL_RULE}")
        if name in names:
            raise ValueError(f"symbols has {name} twice; name each symbol once")
        names.append(name)
        if len(names) > _MOST_SYMBOLS:
            raise ValueError(f"symbols has more than {_MOST_SYMBOLS}, the most for one connection; use several streams")
    if not names:
        raise ValueError('symbols is empty: the stream needs at least one (SYMBOLS), for example ("ETHUSDT",)')
    return tuple(names)


def _start(given: Any) -> BackfillStart:
    name = "backfill_start (BACKFILL_START)"
    if isinstance(given, str):
        if given in ("now", "earliest"):
            return str(given)
        if not _ID.fullmatch(given):
            raise ValueError(f"{name} must be now, earliest or an aggregate trade id, got {shown(given)}")
        given = int(given)
    check_whole(f"{name}, where it is an aggregate trade id,", given, at_least=0, at_most=_HIGHEST_START)
    return int(given)
