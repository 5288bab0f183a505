"""What can go wrong on a link, told apart by exception type, code and structured reason; never by the text of a message.

Texts change with the library, the locale and the OpenSSL build. Types, errno, `SSLError.reason`, X.509 verify codes, close
codes and HTTP status do not. `classify` walks the chain of causes, since the telling error is often the cause of the one that
is raised: websockets wraps a broken TLS record in `ConnectionClosedError`, aiohttp a failed lookup in an error of its own.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from ..cleaning import one_line
from ..market.wire import WireError, decode_rest_error
from ..masking import masked
from .advice import RULES, FailureKind, WebSocketErrorType
from .refusals import LONGEST_WAIT_S, wait_asked_for

__all__ = ["Failure", "FailureKind", "HttpStatusError", "LinkFault", "Phase", "WebSocketErrorType", "classify"]

_MAX_CHAIN = 12
# Over REST only a limit or a ban closes the gate for longer: a fault of the venue may be over sooner than it believes.
_LIMITS = frozenset({FailureKind.FORBIDDEN, FailureKind.BANNED, FailureKind.RATE_LIMITED})
_LONGEST_REST_WAIT_S = 5.0
# How long to leave the venue alone when it says "too many" without saying for how long: its windows are minutes.
_DEFAULT_WAIT_S = {429: 60.0, 418: 120.0, 403: 60.0}
_BAD_SYMBOL_CODE = -1121  # Binance's error codes, "BAD_SYMBOL"

# X.509 verify codes, from OpenSSL's x509_vfy.h.
_CERT_NOT_YET_VALID = 9
_CERT_EXPIRED = 10
_CERT_HOSTNAME = frozenset({62, 63, 64})  # hostname, e-mail and IP address mismatch
# Faults of the certificate itself, whoever issued it: wrong purpose, broken constraint, weak keys or digests. From
# 79 on, rules of RFC 5280 for strict verification, which is Python's default since 3.13.
_CERT_UNSOUND = frozenset({25, 26, 32, 34, 37, 41, 47, 48, 66, 67, 68, *range(79, 95)})

# EPERM and EACCES are how this machine's own firewall refuses a connection.
_FORBIDDEN_HERE = frozenset({errno.EPERM, errno.EACCES})
# EAFNOSUPPORT: an IPv6 address, where IPv6 is switched off.
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)
_RESET = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN})
_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})

# OpenSSL reasons of a peer that does not speak TLS at all, or no version that both accept.
_NOT_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)
_VERSION = frozenset(
    {
        "UNSUPPORTED_PROTOCOL",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "VERSION_TOO_LOW",
        "NO_PROTOCOLS_AVAILABLE",
        "INAPPROPRIATE_FALLBACK",
    }
)
# No cipher suite that both accept: ours are forward-secret only.
_SUITE = frozenset(
    {
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "SSL/TLS_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        "NO_SHARED_CIPHER",
        "NO_CIPHERS_AVAILABLE",
        "WRONG_CIPHER_RETURNED",
        "UNKNOWN_CIPHER_RETURNED",
        "DH_KEY_TOO_SMALL",
    }
)
# Seen by us, or told by the peer in an alert.
_BROKEN_RECORD = frozenset(
    {
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "DECRYPTION_FAILED",
        "BAD_DECRYPT",
        "BAD_RECORD_TYPE",
        "BAD_SIGNATURE",
        "BLOCK_CIPHER_PAD_IS_WRONG",
        "DATA_LENGTH_TOO_LONG",
        "DIGEST_CHECK_FAILED",
        "ENCRYPTED_LENGTH_TOO_LONG",
        "UNEXPECTED_MESSAGE",
        "UNEXPECTED_RECORD",
        "SSLV3_ALERT_BAD_RECORD_MAC",
        "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        "TLSV1_ALERT_DECODE_ERROR",
        "TLSV1_ALERT_DECRYPTION_FAILED",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_RECORD_OVERFLOW",
    }
)
_CUT_INSIDE = frozenset({"UNEXPECTED_EOF_WHILE_READING"})


class Phase(StrEnum):
    """How far a dial had come. The same exception means different things at different moments."""

    CONNECT = "connecting"
    TLS = "TLS handshake"
    UPGRADE = "websocket upgrade"
    SUBSCRIBE = "subscribing"
    LIVE = "live"
    REST = "REST"


class LinkFault(Exception):
    """A failure that we found ourselves, with its kind: a pong that did not come, silence, a refused subscription.

    `advice` stands in for the kind's own line where more is known, such as which proxy it was.
    """

    def __init__(self, kind: FailureKind, message: str, *, min_wait_s: float = 0.0, advice: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.min_wait_s = min_wait_s
        self.advice = advice


class HttpStatusError(Exception):
    """An HTTP answer other than success. `code` and `reason` are the venue's own, where the body had them."""

    def __init__(self, status: int, *, retry_after_s: float | None = None, code: int | None = None, reason: str = "") -> None:
        super().__init__(f"HTTP {status}" + (f", code {code}" if code is not None else "") + (f": {reason}" if reason else ""))
        self.status = status
        self.retry_after_s = retry_after_s
        self.code = code

    @classmethod
    def of(cls, status: int, retry_after: Iterable[str], date: str | None, body: bytes, now_s: float) -> Self:
        """Make the error for a refusal; see `wait_asked_for` for the arguments."""
        told = decode_rest_error(body)
        return cls(
            status,
            retry_after_s=wait_asked_for(retry_after, date=date, body=body, now_s=now_s),
            code=told.code if told else None,
            reason=one_line(told.msg) if told else "",
        )

    @classmethod
    def in_answer(cls, head: bytes, body: bytes, now_s: float) -> Self | None:
        """Like `of`, from the raw answer to an upgrade; None if it is not an HTTP refusal."""
        lines = head.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/") or not (status.isascii() and status.isdecimal()) or status == "101":
            return None
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        waits = [value for name, value in headers if name == "retry-after"]
        date = next((value for name, value in headers if name == "date"), None)
        return cls.of(int(status), waits, date, body, now_s)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as the operator and the reconnect policy need it.

    `fatal` means that trying again cannot help before somebody changes something. `min_wait_s` is the least wait before the
    next dial whatever the backoff says: the venue asked for it.
    """

    kind: FailureKind
    type: WebSocketErrorType
    message: str
    advice: str
    fatal: bool = False
    min_wait_s: float = 0.0
    phase: Phase = Phase.LIVE


def classify(exc: BaseException, phase: Phase = Phase.LIVE) -> Failure:
    """The failure behind an exception that was raised in `phase`. Never raises; the unknown is UNKNOWN, and is retried."""
    chain = list(_chain(exc))
    kind, min_wait_s, said_by = FailureKind.UNKNOWN, 0.0, exc
    for link in chain:
        found = _own(link) or _tls(link, phase) or _http(link)
        if found is not None:
            (kind, min_wait_s), said_by = found, link
            break
    else:
        for link in chain:
            plain = _system(link, phase) or _websocket(link) or _aiohttp(link)
            if plain is not None:
                kind, said_by = plain, link
                break
    if phase is Phase.REST and kind not in _LIMITS:
        min_wait_s = min(min_wait_s, _LONGEST_REST_WAIT_S)
    rule = RULES[kind]
    return Failure(
        kind=kind,
        type=rule.type,
        message=_describe(said_by, exc, phase),
        advice=(isinstance(said_by, LinkFault) and said_by.advice) or rule.advice,
        fatal=rule.fatal,
        min_wait_s=min(max(min_wait_s, 0.0), LONGEST_WAIT_S),
        phase=phase,
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen and len(seen) < _MAX_CHAIN:
        seen.add(id(link))
        yield link
        hidden = None if link.__suppress_context__ else link.__context__
        link = link.__cause__ or hidden


def _own(exc: BaseException) -> tuple[FailureKind, float] | None:
    if isinstance(exc, LinkFault):
        return exc.kind, exc.min_wait_s
    if isinstance(exc, HttpStatusError):
        if exc.code == _BAD_SYMBOL_CODE:
            return FailureKind.BAD_SYMBOL, 0.0
        return _status(exc.status, exc.retry_after_s)
    return None


def _tls(exc: BaseException, phase: Phase) -> tuple[FailureKind, float] | None:
    if isinstance(exc, ssl.SSLCertVerificationError):
        code = getattr(exc, "verify_code", None)
        if code is None and exc.__cause__ is not None:
            return None  # aiohttp's wrapper; the error itself is its cause
        if code in _CERT_HOSTNAME:
            return FailureKind.TLS_HOSTNAME, 0.0
        if code in (_CERT_EXPIRED, _CERT_NOT_YET_VALID):
            return FailureKind.TLS_DATE, 0.0
        if code in _CERT_UNSOUND:
            return FailureKind.TLS_UNSOUND, 0.0
        return FailureKind.TLS_UNTRUSTED, 0.0
    if not isinstance(exc, ssl.SSLError):
        return None
    reason = getattr(exc, "reason", None) or ""
    if reason in _NOT_TLS:
        # Once the handshake is through, the same reasons mean damage: the peer did speak TLS.
        late = phase in (Phase.UPGRADE, Phase.SUBSCRIBE, Phase.LIVE)
        return (FailureKind.TLS_BROKEN if late else FailureKind.NOT_TLS), 0.0
    if reason in _VERSION:
        return FailureKind.TLS_VERSION, 0.0
    if reason in _SUITE:
        return FailureKind.TLS_SUITE, 0.0
    if reason in _BROKEN_RECORD:
        return FailureKind.TLS_BROKEN, 0.0
    if reason in _CUT_INSIDE or isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return FailureKind.TLS_CUT, 0.0
    # A wrapper without a reason of its own (aiohttp's) may hide a telling one further down.
    if not reason and exc.__cause__ is not None:
        return None
    return FailureKind.TLS_OTHER, 0.0


def _http(exc: BaseException) -> tuple[FailureKind, float] | None:
    if type(exc).__module__.partition(".")[0] != "websockets":
        return None
    from websockets.exceptions import InvalidStatus

    if isinstance(exc, InvalidStatus):
        response = exc.response
        # There is no clock here: only the transports can convert times that are not in seconds.
        asked = wait_asked_for(response.headers.get_all("Retry-After"), now_s=0.0)
        return _status(response.status_code, asked)
    return None


def _status(status: int, retry_after_s: float | None) -> tuple[FailureKind, float]:
    wait = _DEFAULT_WAIT_S.get(status, 0.0) if retry_after_s is None else retry_after_s
    if status == 403:
        return FailureKind.FORBIDDEN, wait
    if status == 418:
        return FailureKind.BANNED, wait
    if status == 429:
        return FailureKind.RATE_LIMITED, wait
    if status == 451:
        return FailureKind.LOCATION, 0.0
    if status == 407:
        return FailureKind.PROXY, 0.0
    if status >= 500:
        return FailureKind.SERVER_ERROR, wait
    return FailureKind.BAD_STATUS, wait


def _system(exc: BaseException, phase: Phase) -> FailureKind | None:
    if isinstance(exc, socket.gaierror):
        return FailureKind.DNS
    if isinstance(exc, ConnectionRefusedError):
        return FailureKind.REFUSED
    # asyncio ends a TLS handshake that takes too long with a bare ConnectionAbortedError: the kernel's own carries an errno.
    if isinstance(exc, ConnectionAbortedError) and exc.errno is None and phase in (Phase.CONNECT, Phase.TLS):
        return FailureKind.TLS_TIMEOUT
    if isinstance(exc, TimeoutError):
        return _TIMEOUTS[phase]
    if isinstance(exc, (ConnectionError, EOFError)) or (isinstance(exc, OSError) and exc.errno in _RESET):
        return FailureKind.TLS_CUT if phase is Phase.TLS else FailureKind.RESET
    if isinstance(exc, OSError):
        if exc.errno in _UNREACHABLE or (exc.errno in _FORBIDDEN_HERE and phase is Phase.CONNECT):
            return FailureKind.UNREACHABLE
        if exc.errno in _RESOURCES:
            return FailureKind.RESOURCES
    if isinstance(exc, WireError):
        return FailureKind.PROTOCOL
    if isinstance(exc, UnicodeError) and phase in (Phase.CONNECT, Phase.REST):
        return FailureKind.CONFIG  # a host name that cannot be one
    if isinstance(exc, MemoryError):
        return FailureKind.RESOURCES
    return None


_TIMEOUTS = {
    Phase.CONNECT: FailureKind.CONNECT_TIMEOUT,
    Phase.TLS: FailureKind.TLS_TIMEOUT,
    Phase.UPGRADE: FailureKind.UPGRADE_TIMEOUT,
    Phase.SUBSCRIBE: FailureKind.SUBSCRIBE_TIMEOUT,
    Phase.LIVE: FailureKind.RESET,  # the kernel gave up retransmitting: ETIMEDOUT on an established connection
    Phase.REST: FailureKind.REST_TIMEOUT,
}

_CLOSE_CODES = {
    1000: FailureKind.CLOSED,
    1001: FailureKind.CLOSED,
    1002: FailureKind.PROTOCOL,
    1003: FailureKind.PROTOCOL,
    1005: FailureKind.CLOSED,  # a close frame without a code
    1006: FailureKind.RESET,
    1007: FailureKind.PROTOCOL,
    1008: FailureKind.POLICY,
    1009: FailureKind.OVERSIZED,
    1011: FailureKind.SERVER_ERROR,
    1012: FailureKind.CLOSED,
    1013: FailureKind.SERVER_ERROR,
    1014: FailureKind.SERVER_ERROR,
}


def close_kind(code: int) -> FailureKind:
    """What a close frame's code (RFC 6455 section 7.4) means for the link; private and unknown codes are PROTOCOL."""
    return _CLOSE_CODES.get(code, FailureKind.PROTOCOL)


def _websocket(exc: BaseException) -> FailureKind | None:
    if type(exc).__module__.partition(".")[0] != "websockets":
        return None
    from websockets import exceptions as ws

    if isinstance(exc, ws.ConnectionClosed):
        frame = exc.sent if exc.sent is not None and not exc.rcvd_then_sent else exc.rcvd
        if frame is None:
            # Cut without a close frame; a cause further down the chain, if there is one, says how.
            return None if exc.__cause__ is not None else FailureKind.RESET
        return close_kind(frame.code)
    if isinstance(exc, ws.InvalidURI):
        return FailureKind.CONFIG
    if isinstance(exc, (ws.InvalidHandshake, ws.ProtocolError, ws.PayloadTooBig)):
        # A peer that hung up before its answer is `InvalidMessage` over an EOFError: a cut line, not a wrong protocol.
        cut = any(isinstance(link, (EOFError, ConnectionError)) for link in _chain(exc))
        return FailureKind.RESET if cut else FailureKind.PROTOCOL
    return None


def _aiohttp(exc: BaseException) -> FailureKind | None:
    # By name of the class and its bases, since importing aiohttp costs 0.2 s where REST was never used.
    if type(exc).__module__.partition(".")[0] != "aiohttp":
        return None
    names = {base.__name__ for base in type(exc).__mro__}
    if "InvalidURL" in names:
        return FailureKind.CONFIG
    if "ClientConnectionError" in names or "ClientPayloadError" in names:
        return None if exc.__cause__ is not None else FailureKind.RESET
    if names & {"ContentLengthError", "TransferEncodingError"}:
        return FailureKind.RESET  # the answer ended before its time
    return FailureKind.PROTOCOL


def _describe(said_by: BaseException, outer: BaseException, phase: Phase) -> str:
    text = str(said_by) or str(outer) or type(said_by).__name__
    if isinstance(said_by, ssl.SSLError):
        text = getattr(said_by, "verify_message", "") or getattr(said_by, "reason", "") or text
    if isinstance(said_by, LinkFault):
        return one_line(masked(text))
    return one_line(masked(f"{phase.value}: {text}"))  # the libraries' errors quote addresses
