"""Failures are told apart by type, code and structured reason; the operator gets a line that helps."""

from __future__ import annotations

import errno
import re
import socket
import ssl

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidMessage, InvalidStatus, InvalidURI
from websockets.frames import Close
from websockets.http11 import Response

from quantai_tui.cleaning import one_line
from quantai_tui.market.wire import WireError
from quantai_tui.stream import Failure, FailureKind, HttpStatusError, LinkFault, Phase, WebSocketErrorType, classify
from quantai_tui.stream.advice import RULES

T = WebSocketErrorType


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def tls_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    error = kind(1, "texts differ from build to build")
    error.reason = reason
    return error


def untrusted(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    error.verify_message = "in words"
    return error


def status(code: int, **headers: str) -> InvalidStatus:
    return InvalidStatus(Response(code, "", Headers({name.replace("_", "-"): value for name, value in headers.items()})))


def closed(code: int, *, by_us: bool = False) -> ConnectionClosedError:
    frame = Close(code, "")
    return ConnectionClosedError(None, frame) if by_us else ConnectionClosedError(frame, None)


CASES = [
    (socket.gaierror(-2, "x"), Phase.CONNECT, "dns", T.NETWORK_ERROR),
    (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Phase.CONNECT, "refused", T.NETWORK_ERROR),
    (OSError(errno.ENETUNREACH, "x"), Phase.CONNECT, "unreachable", T.NETWORK_ERROR),
    (PermissionError(errno.EPERM, "x"), Phase.CONNECT, "unreachable", T.NETWORK_ERROR),
    (PermissionError(errno.EACCES, "x"), Phase.LIVE, "unknown", T.UNKNOWN_ERROR),
    (UnicodeError("x"), Phase.CONNECT, "config", T.PROTOCOL_ERROR),
    (UnicodeError("x"), Phase.LIVE, "unknown", T.UNKNOWN_ERROR),
    (MemoryError(), Phase.LIVE, "resources", T.NETWORK_ERROR),
    (OSError(errno.EMFILE, "x"), Phase.CONNECT, "resources", T.NETWORK_ERROR),
    (TimeoutError(), Phase.CONNECT, "connect_timeout", T.TIMEOUT_ERROR),
    (TimeoutError(), Phase.TLS, "tls_timeout", T.TIMEOUT_ERROR),
    (ConnectionAbortedError("SSL handshake is taking longer than 30 seconds"), Phase.TLS, "tls_timeout", T.TIMEOUT_ERROR),
    (ConnectionAbortedError(errno.ECONNABORTED, "x"), Phase.TLS, "tls_cut", T.SSL_ERROR),
    (ConnectionResetError(errno.ECONNRESET, "x"), Phase.TLS, "tls_cut", T.SSL_ERROR),
    (ConnectionResetError(errno.ECONNRESET, "x"), Phase.LIVE, "reset", T.NETWORK_ERROR),
    (TimeoutError(), Phase.UPGRADE, "upgrade_timeout", T.TIMEOUT_ERROR),
    (OSError(errno.ETIMEDOUT, "x"), Phase.LIVE, "reset", T.NETWORK_ERROR),
    (untrusted(20), Phase.TLS, "tls_untrusted", T.SSL_ERROR),
    (untrusted(18), Phase.TLS, "tls_untrusted", T.SSL_ERROR),
    (untrusted(85), Phase.TLS, "tls_unsound", T.SSL_ERROR),
    (untrusted(66), Phase.TLS, "tls_unsound", T.SSL_ERROR),
    (untrusted(62), Phase.TLS, "tls_hostname", T.SSL_ERROR),
    (untrusted(10), Phase.TLS, "tls_date", T.SSL_ERROR),
    (tls_error("WRONG_VERSION_NUMBER"), Phase.TLS, "not_tls", T.SSL_ERROR),
    (tls_error("UNSUPPORTED_PROTOCOL"), Phase.TLS, "tls_version", T.SSL_ERROR),
    (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), Phase.TLS, "tls_version", T.SSL_ERROR),
    (tls_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), Phase.TLS, "tls_suite", T.SSL_ERROR),
    (tls_error("TLSV1_ALERT_DECRYPT_ERROR"), Phase.TLS, "tls_broken", T.SSL_ERROR),
    (tls_error("SSLV3_ALERT_BAD_RECORD_MAC"), Phase.LIVE, "tls_broken", T.SSL_ERROR),
    (tls_error("UNEXPECTED_EOF_WHILE_READING"), Phase.TLS, "tls_cut", T.SSL_ERROR),
    (tls_error("EOF occurred", ssl.SSLEOFError), Phase.TLS, "tls_cut", T.SSL_ERROR),
    (tls_error("SOMETHING_NEW"), Phase.TLS, "tls_other", T.SSL_ERROR),
    (caused(closed(1006), tls_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")), Phase.LIVE, "tls_broken", T.SSL_ERROR),
    (caused(ConnectionClosedError(None, None), tls_error("RECORD_LAYER_FAILURE")), Phase.LIVE, "tls_broken", T.SSL_ERROR),
    (caused(ConnectionClosedError(None, None), ConnectionResetError()), Phase.LIVE, "reset", T.NETWORK_ERROR),
    (ConnectionClosedError(None, None), Phase.LIVE, "reset", T.NETWORK_ERROR),
    (closed(1001), Phase.LIVE, "closed", T.NETWORK_ERROR),
    (closed(1005), Phase.LIVE, "closed", T.NETWORK_ERROR),
    (closed(1012), Phase.LIVE, "closed", T.NETWORK_ERROR),
    (closed(1013), Phase.LIVE, "server_error", T.NETWORK_ERROR),
    (closed(1008), Phase.LIVE, "policy", T.PROTOCOL_ERROR),
    (closed(1009, by_us=True), Phase.LIVE, "oversized", T.PROTOCOL_ERROR),
    (closed(1002, by_us=True), Phase.LIVE, "protocol", T.PROTOCOL_ERROR),
    (closed(3999), Phase.LIVE, "protocol", T.PROTOCOL_ERROR),
    (caused(InvalidMessage("x"), EOFError("x")), Phase.UPGRADE, "reset", T.NETWORK_ERROR),
    (InvalidMessage("x"), Phase.UPGRADE, "protocol", T.PROTOCOL_ERROR),
    (InvalidURI("x", "y"), Phase.CONNECT, "config", T.PROTOCOL_ERROR),
    (status(403), Phase.UPGRADE, "forbidden", T.PROTOCOL_ERROR),
    (status(451), Phase.UPGRADE, "location", T.PROTOCOL_ERROR),
    (status(503), Phase.UPGRADE, "server_error", T.NETWORK_ERROR),
    (status(302), Phase.UPGRADE, "bad_status", T.PROTOCOL_ERROR),
    (HttpStatusError(400, code=-1100, reason="Illegal characters."), Phase.REST, "bad_status", T.PROTOCOL_ERROR),
    (HttpStatusError(400, code=-1121, reason="Invalid symbol."), Phase.REST, "bad_symbol", T.PROTOCOL_ERROR),
    (LinkFault(FailureKind.REST_BEHIND, "x"), Phase.REST, "rest_behind", T.TIMEOUT_ERROR),
    (WireError("x"), Phase.REST, "protocol", T.PROTOCOL_ERROR),
    (TimeoutError(), Phase.REST, "rest_timeout", T.TIMEOUT_ERROR),
    (HttpStatusError(404), Phase.UPGRADE, "bad_status", T.PROTOCOL_ERROR),
    (HttpStatusError(407), Phase.REST, "proxy", T.NETWORK_ERROR),
    (LinkFault(FailureKind.OVERLOAD, "x"), Phase.LIVE, "overload", T.TIMEOUT_ERROR),
    (LinkFault(FailureKind.PONG_TIMEOUT, "x"), Phase.LIVE, "pong_timeout", T.TIMEOUT_ERROR),
    (ZeroDivisionError("x"), Phase.LIVE, "unknown", T.UNKNOWN_ERROR),
]


@pytest.mark.parametrize(("error", "phase", "kind", "type"), CASES, ids=[f"{c[2]}-{type(c[0]).__name__}" for c in CASES])
def test_a_failure_is_known_by_its_type_and_not_by_its_text(error, phase, kind, type):
    failure = classify(error, phase)
    assert (failure.kind.value, failure.type) == (kind, type)


def test_an_aiohttp_error_is_known_by_what_caused_it():
    from aiohttp import ClientConnectorDNSError, ClientConnectorError, ServerDisconnectedError
    from aiohttp.client_reqrep import ConnectionKey

    key = ConnectionKey("host", 443, True, True, None, None, None, None)
    lookup = socket.gaierror(-2, "x")
    assert classify(caused(ClientConnectorDNSError(key, lookup), lookup), Phase.REST).kind is FailureKind.DNS
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "x")
    assert classify(caused(ClientConnectorError(key, refused), refused), Phase.REST).kind is FailureKind.REFUSED
    assert classify(ServerDisconnectedError(), Phase.REST).kind is FailureKind.RESET


@pytest.mark.parametrize(
    ("code", "headers", "wait"),
    [
        (429, {"Retry_After": "37"}, 37.0),
        (429, {}, 60.0),
        (418, {"Retry_After": "-5"}, 120.0),
        (418, {"Retry_After": "9" * 30}, 259200.0),
    ],
)
def test_the_venue_is_left_alone_as_long_as_it_asks_and_never_for_ever(code, headers, wait):
    failure = classify(status(code, **headers), Phase.UPGRADE)
    assert failure.min_wait_s == wait
    assert not failure.fatal


def test_what_only_a_person_can_mend_is_fatal():
    K = FailureKind
    assert {kind for kind, rule in RULES.items() if rule.fatal} == {
        *(K.TLS_UNTRUSTED, K.TLS_NO_CA, K.TLS_UNSOUND, K.TLS_HOSTNAME, K.TLS_DATE, K.TLS_VERSION, K.TLS_SUITE, K.NOT_TLS),
        *(K.LOCATION, K.SUBSCRIBE_REJECTED, K.BAD_SYMBOL, K.CONFIG),
    }


def test_a_refusal_of_the_handshake_is_known_by_its_status_whichever_library_met_it():
    for code in (403, 418, 429, 451, 500, 503, 302):
        theirs, ours = classify(status(code), Phase.UPGRADE), classify(HttpStatusError(code), Phase.UPGRADE)
        assert (theirs.kind, theirs.min_wait_s, theirs.fatal) == (ours.kind, ours.min_wait_s, ours.fatal)


def test_a_fault_may_bring_advice_of_its_own():
    assert classify(LinkFault(FailureKind.PROXY, "x", advice="Check that one.")).advice == "Check that one."
    assert classify(LinkFault(FailureKind.PROXY, "x")).advice == RULES[FailureKind.PROXY].advice


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_has_one_line_of_advice_that_fits_a_screen(kind):
    advice = RULES[kind].advice
    assert 20 < len(advice) <= 130
    assert advice.endswith(".")
    assert "\n" not in advice


def test_the_message_is_one_clean_line_whatever_the_other_side_sent():
    failure = classify(ConnectionClosedError(Close(1008, "\x1b[2J\r\nbad " + "x" * 900), None))
    assert isinstance(failure, Failure)
    assert failure.message.isprintable()
    assert len(failure.message) <= 200
    assert one_line("a\tb\n c") == "a b c"


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first).kind is FailureKind.UNKNOWN


def test_settings_named_in_advice_exist():
    from quantai_tui.settings import names

    mentioned = {word for rule in RULES.values() for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", rule.advice)}
    assert mentioned
    assert mentioned <= set(names())
