"""What the stream needs to know, as one frozen value. It knows no settings file: the names below are all it asks of settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self
from urllib.parse import urlsplit

BackfillStart = str | int  # "now", "earliest", or the aggregate id to begin at


def public_address(url: str) -> str:
    """An address as it may be shown and put down: without user, password and query. Empty for what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    # All up to the last @ counts as user and password, even where an unescaped / or # in them ends the authority before it.
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

    The last three are for iterating over the stream; a sink always gets trades as they arrive. With `order` "id" the trades of a
    symbol wait for those that fill a gap before them, until `reorder_trades` wait (of all symbols together) or the gap has held
    some back for `reorder_s`: then it is passed over. "arrival" hands them out as a sink gets them.
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
    order: Literal["id", "arrival"] = "id"
    reorder_trades: int = 100_000
    reorder_s: float = 60.0
    backfill_start: BackfillStart = "now"
    backfill_max_age_h: float = 24.0
    exit_on_failure: bool = False

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ValueError("the stream needs at least one symbol; set SYMBOLS, for example SYMBOLS=ETHUSDT")
        if isinstance(self.backfill_start, str) and self.backfill_start not in ("now", "earliest"):
            raise ValueError(f"BACKFILL_START is {self.backfill_start!r}; it must be now, earliest or an aggregate trade id")

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
        start: BackfillStart = settings.BACKFILL_START if backfill_start is None else backfill_start
        if isinstance(start, str) and start.isdecimal():
            start = int(start)
        return cls(
            symbols=tuple(symbol.upper() for symbol in settings.SYMBOLS),
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
            backfill_start=start,
            backfill_max_age_h=settings.BACKFILL_MAX_AGE_H,
            exit_on_failure=exit_on_failure,
        )
