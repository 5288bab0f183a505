"""Every kind of failure with its public type, whether trying again can help, and one line of advice for the operator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WebSocketErrorType(StrEnum):
    """The coarse types that statistics and alerts count by."""

    SSL_ERROR = "ssl_error"
    NETWORK_ERROR = "network_error"
    TIMEOUT_ERROR = "timeout_error"
    PROTOCOL_ERROR = "protocol_error"
    UNKNOWN_ERROR = "unknown_error"


class FailureKind(StrEnum):
    """What went wrong, as finely as the operator's next step depends on it."""

    DNS = "dns"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS_TIMEOUT = "tls_timeout"
    TLS_UNTRUSTED = "tls_untrusted"
    TLS_NO_CA = "tls_no_ca"
    TLS_UNSOUND = "tls_unsound"
    TLS_HOSTNAME = "tls_hostname"
    TLS_DATE = "tls_date"
    TLS_VERSION = "tls_version"
    TLS_SUITE = "tls_suite"
    TLS_BROKEN = "tls_broken"
    TLS_CUT = "tls_cut"
    TLS_OTHER = "tls_other"
    NOT_TLS = "not_tls"
    UPGRADE_TIMEOUT = "upgrade_timeout"
    FORBIDDEN = "forbidden"
    BANNED = "banned"
    RATE_LIMITED = "rate_limited"
    LOCATION = "location"
    SERVER_ERROR = "server_error"
    BAD_STATUS = "bad_status"
    SUBSCRIBE_REJECTED = "subscribe_rejected"
    SUBSCRIBE_TIMEOUT = "subscribe_timeout"
    PONG_TIMEOUT = "pong_timeout"
    DATA_STALL = "data_stall"
    OVERLOAD = "overload"
    CLOSED = "closed"
    SERVER_SHUTDOWN = "server_shutdown"
    PROTOCOL = "protocol"
    POLICY = "policy"
    OVERSIZED = "oversized"
    BAD_SYMBOL = "bad_symbol"
    REST_TIMEOUT = "rest_timeout"
    REST_BEHIND = "rest_behind"
    PROXY = "proxy"
    CONFIG = "config"
    RESOURCES = "resources"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a kind is counted, whether it is retried, and what the operator can do about it."""

    type: WebSocketErrorType
    advice: str
    fatal: bool = False


_SSL = WebSocketErrorType.SSL_ERROR
_NET = WebSocketErrorType.NETWORK_ERROR
_TIME = WebSocketErrorType.TIMEOUT_ERROR
_PROTO = WebSocketErrorType.PROTOCOL_ERROR

RULES: dict[FailureKind, Rule] = {
    FailureKind.DNS: Rule(_NET, "The host's name was not found: check the network, the resolver and EXCHANGE_WS_URL."),
    FailureKind.REFUSED: Rule(_NET, "Nothing listens there: check host and port of EXCHANGE_WS_URL; retrying."),
    FailureKind.UNREACHABLE: Rule(_NET, "No route to the host: check this machine's network; retrying."),
    FailureKind.RESET: Rule(_NET, "The connection was cut on the way: retrying, and missed trades will be fetched."),
    FailureKind.CONNECT_TIMEOUT: Rule(_TIME, "The host does not answer: check firewall and route; retrying."),
    FailureKind.TLS_TIMEOUT: Rule(
        _TIME, "TLS did not finish within WS_SSL_TIMEOUT: a slow line, or a filter in between; retrying."
    ),
    FailureKind.TLS_UNTRUSTED: Rule(
        _SSL,
        "The certificate's authority is not trusted: if it is yours, name it in EXCHANGE_CA_FILE; else somebody is in between.",
        fatal=True,
    ),
    FailureKind.TLS_NO_CA: Rule(
        _SSL,
        "This machine has no certificate authorities: install ca-certificates, or name a PEM file in EXCHANGE_CA_FILE.",
        fatal=True,
    ),
    FailureKind.TLS_UNSOUND: Rule(
        _SSL,
        "The certificate breaks a rule that Python enforces (stricter since 3.13): have it reissued without that fault.",
        fatal=True,
    ),
    FailureKind.TLS_HOSTNAME: Rule(
        _SSL, "The certificate is for another host: check EXCHANGE_WS_URL, or somebody is in between.", fatal=True
    ),
    FailureKind.TLS_DATE: Rule(_SSL, "The certificate is not valid today: check this machine's clock first.", fatal=True),
    FailureKind.TLS_VERSION: Rule(
        _SSL, "The server offers no TLS 1.2 or newer: it, or a proxy before it, is too old.", fatal=True
    ),
    FailureKind.TLS_SUITE: Rule(
        _SSL, "No cipher with forward secrecy in common: the server, or a proxy before it, is too old.", fatal=True
    ),
    FailureKind.TLS_BROKEN: Rule(_SSL, "A TLS record was damaged on the way: a faulty middlebox or network card; retrying."),
    FailureKind.TLS_CUT: Rule(_SSL, "The connection was cut inside TLS: often a filter that blocks the host name; retrying."),
    FailureKind.TLS_OTHER: Rule(_SSL, "TLS failed: see the log for the library's reason; retrying."),
    FailureKind.NOT_TLS: Rule(
        _SSL, "The other side does not speak TLS: wrong port, or a captive portal; check EXCHANGE_WS_URL.", fatal=True
    ),
    FailureKind.UPGRADE_TIMEOUT: Rule(_TIME, "The server accepted and then did not answer the upgrade; retrying."),
    FailureKind.FORBIDDEN: Rule(_PROTO, "The venue's firewall refuses this address (403): dial less often; retrying later."),
    FailureKind.BANNED: Rule(_PROTO, "This address is banned for a while (418): nothing is sent until the ban is over."),
    FailureKind.RATE_LIMITED: Rule(_PROTO, "Over the venue's limit (429): waiting as long as it asks."),
    FailureKind.LOCATION: Rule(
        _PROTO,
        "The venue does not serve this location (451): use another endpoint, such as data-stream.binance.vision.",
        fatal=True,
    ),
    FailureKind.SERVER_ERROR: Rule(_NET, "The venue has a fault of its own: nothing to do here; retrying."),
    FailureKind.BAD_STATUS: Rule(_PROTO, "Not the answer of a market-data server: check EXCHANGE_WS_URL and EXCHANGE_REST_URL."),
    FailureKind.SUBSCRIBE_REJECTED: Rule(_PROTO, "The venue refuses the subscription: check SYMBOLS.", fatal=True),
    FailureKind.SUBSCRIBE_TIMEOUT: Rule(_TIME, "The subscription was not acknowledged; retrying."),
    FailureKind.PONG_TIMEOUT: Rule(
        _TIME, "The link is dead although nobody closed it: retrying, and missed trades will be fetched."
    ),
    FailureKind.DATA_STALL: Rule(
        _TIME, "The link is up and no data came for WS_MESSAGE_TIMEOUT: reconnecting; check that the symbols still trade."
    ),
    FailureKind.OVERLOAD: Rule(_TIME, "This machine was too slow to read (disk or CPU): what was cut off will be fetched."),
    FailureKind.CLOSED: Rule(_NET, "The venue ended the connection in good order: retrying."),
    FailureKind.SERVER_SHUTDOWN: Rule(_NET, "The venue announced a restart of this server: moving to another."),
    FailureKind.PROTOCOL: Rule(
        _PROTO, "The other side broke the websocket protocol: a proxy in between, or a wrong address; retrying."
    ),
    FailureKind.POLICY: Rule(_PROTO, "The venue closed for breach of a rule (1008), such as sending too often; retrying."),
    FailureKind.OVERSIZED: Rule(
        _PROTO, "A frame was larger than any the venue documents: reconnecting, missed trades will be fetched."
    ),
    FailureKind.REST_TIMEOUT: Rule(_TIME, "The REST host does not answer: the repair is tried again; live data goes on."),
    FailureKind.REST_BEHIND: Rule(
        _TIME, "REST does not have yet what the stream has sent: the repair is tried again; nothing is given up."
    ),
    FailureKind.BAD_SYMBOL: Rule(_PROTO, "The venue knows no such symbol: correct SYMBOLS, then start again.", fatal=True),
    FailureKind.PROXY: Rule(_NET, "The proxy did not let us through: check PROXY_URL and the environment's proxies; retrying."),
    FailureKind.CONFIG: Rule(
        _PROTO, "An address or file in the settings cannot be used: the message names the setting to correct.", fatal=True
    ),
    FailureKind.RESOURCES: Rule(_NET, "This machine is out of file handles or memory: check `ulimit -n`; retrying."),
    FailureKind.UNKNOWN: Rule(WebSocketErrorType.UNKNOWN_ERROR, "Not a failure this program knows: see the log; retrying."),
}
