"""The kinds of fault that happen on the line, in the byte proxy before the exchange's ports, and in its certificates."""

from __future__ import annotations

from .fault import FaultKind, Parameter

_PORT = Parameter("port", "which port", "ws", choices=("ws", "rest", "both"))
_CONNECTIONS = Parameter("connections", "which connections", "all", choices=("all", "open", "new"))
_LINE = (_PORT, _CONNECTIONS)
_OLDEST_DAYS = 3650.0

_WOUNDS = (
    FaultKind("reset", "half of a TLS record, then RST; with `for`, on each connection that comes too", "line", 0.0, _LINE),
    FaultKind(
        "half-close",
        "TCP ends (FIN) after a whole TLS record, without close frame or close_notify; with `for`, for all that come too",
        "line",
        0.0,
        _LINE,
    ),
    FaultKind(
        "truncate-record", "half of a TLS record, then FIN; with `for`, on each connection that comes too", "line", 0.0, _LINE
    ),
    FaultKind(
        "flip-byte",
        "one bit of the next TLS record of data is turned over; with `for`, on each connection that comes too",
        "line",
        0.0,
        _LINE,
    ),
)

_CONDITIONS = (
    FaultKind(
        "black-hole",
        "half-open: bytes of both directions vanish, nothing is closed, and connections that are met stay dead",
        "line",
        30.0,
        (*_LINE, Parameter("how", "what becomes of dials", "accept", choices=("accept", "refuse"))),
    ),
    FaultKind("stall-tls", "connections are accepted, and nothing is answered until it is over", "line", 30.0, (_PORT,)),
    FaultKind(
        "stall-upgrade-bytes",
        "the TLS handshake passes, and what the client then says is held until it is over",
        "line",
        30.0,
        (_PORT,),
    ),
    FaultKind("refuse", "the port refuses dials; open connections go on", "line", 10.0, (_PORT,)),
    FaultKind(
        "connection-cap",
        "connections beyond so many are reset at once",
        "line",
        30.0,
        (_PORT, Parameter("count", "how many may be open", 1, "connections", 1, 1000)),
    ),
    FaultKind(
        "latency",
        "bytes arrive later, in order",
        "line",
        30.0,
        (
            *_LINE,
            Parameter("delay_ms", "each way", 300.0, "ms", 1.0, 60_000.0),
            Parameter("jitter_ms", "uniform, plus or minus", 100.0, "ms", 0.001, 60_000.0),
        ),
    ),
    FaultKind(
        "stutter",
        "the line freezes again and again; nothing is lost",
        "line",
        30.0,
        (
            *_LINE,
            Parameter("freeze_ms", "how long it is frozen", 2000.0, "ms", 1.0, 3_600_000.0),
            Parameter("every_ms", "from the beginning of one freeze to that of the next", 5000.0, "ms", 2.0, 3_600_000.0),
        ),
    ),
    FaultKind(
        "throttle",
        "a narrow line, shared by all connections",
        "line",
        30.0,
        (*_LINE, Parameter("bytes_per_s", "each way", 2000.0, "bytes/s", 1.0, 1e9)),
    ),
)


def _days(text: str, default: float) -> tuple[Parameter, ...]:
    return (_PORT, Parameter("days", text, default, "days", 0.01, _OLDEST_DAYS))


_CERTIFICATES = (
    FaultKind("cert-expired", "dials meet a certificate that has ended", "tls", 30.0, _days("ended so long ago", 1.0)),
    FaultKind("cert-not-yet-valid", "dials meet a certificate that is not valid yet", "tls", 30.0, _days("until it is", 1.0)),
    FaultKind("cert-expires-soon", "dials meet a good certificate that ends soon", "tls", 30.0, _days("until it ends", 5.0)),
    FaultKind("cert-wrong-host", "dials meet the certificate of another host", "tls", 30.0, (_PORT,)),
    FaultKind("cert-untrusted", "dials meet a certificate of an authority that nobody knows", "tls", 30.0, (_PORT,)),
    FaultKind("tls-1-1", "dials meet a server that knows TLS 1.1 and nothing newer", "tls", 30.0, (_PORT,)),
    FaultKind("tls-rsa-only", "dials meet TLS 1.2 with RSA key exchange: no forward secrecy", "tls", 30.0, (_PORT,)),
)

LINE_FAULTS: tuple[FaultKind, ...] = _WOUNDS + _CONDITIONS + _CERTIFICATES
