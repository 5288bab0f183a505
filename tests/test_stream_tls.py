"""TLS is verified and forward secret or it is not at all, and each way in which it fails has a name, on either library."""

from __future__ import annotations

import asyncio
import datetime
import ssl

import pytest
import trustme
from stream_support import authority
from transport_support import alerting_server, dialler, server_tls, tcp_server, trusting, websocket_server

from quantai_tui.stream import Phase, RestClient, classify
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.tls import tls_context

__all__ = ["authority", "dialler"]  # fixtures

DAY = datetime.timedelta(days=1)


async def silent(reader, writer):
    await asyncio.sleep(60)


async def greets_in_the_clear(reader, writer):
    writer.write(b"220 some.host ESMTP ready, and this is no TLS record at all\r\n" * 4)
    await writer.drain()
    writer.close()


async def hangs_up(reader, writer):
    await reader.read(10)
    writer.close()


def context_for(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def old_protocol(authority: trustme.CA) -> ssl.SSLContext:
    context = server_tls(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def without_forward_secrecy(authority: trustme.CA) -> ssl.SSLContext:
    context = context_for(authority.issue_cert("localhost", key_type=trustme.KeyType.RSA))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES256-GCM-SHA384:AES128-GCM-SHA256")  # the key exchange is RSA's: one key opens every recording
    return context


SERVERS = {
    "expired": (lambda ca: context_for(ca.issue_cert("localhost", not_after=_now() - DAY)), "tls_date", True),
    "not yet valid": (
        lambda ca: context_for(ca.issue_cert("localhost", not_before=_now() + DAY, not_after=_now() + 9 * DAY)),
        "tls_date",
        True,
    ),
    "for another host": (lambda ca: context_for(ca.issue_cert("elsewhere.example")), "tls_hostname", True),
    "of an unknown issuer": (lambda ca: context_for(trustme.CA().issue_cert("localhost")), "tls_untrusted", True),
    "TLS 1.1 only": (old_protocol, "tls_version", True),
    "without forward secrecy": (without_forward_secrecy, "tls_suite", True),
}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("make", "kind", "fatal"), SERVERS.values(), ids=SERVERS)
async def test_a_server_that_cannot_be_trusted_is_refused_and_named(dialler, authority, make, kind, fatal):
    with alerting_server(make(authority)) as port:
        failure = await dialler.failure(f"wss://localhost:{port}")
    assert (failure.kind, failure.type, failure.fatal, failure.phase) == (kind, "ssl_error", fatal, Phase.TLS)
    assert failure.advice.endswith(".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("make", "kind", "fatal"), SERVERS.values(), ids=SERVERS)
async def test_rest_refuses_the_same_servers_by_the_same_names(authority, tmp_path, make, kind, fatal):
    context = tls_context(trusting(authority, tmp_path))
    with alerting_server(make(authority)) as port:
        rest = RestClient(f"https://localhost:{port}", lambda: context, Gate())
        with pytest.raises(Exception) as caught:
            await rest.server_time()
        await rest.close()
    failure = classify(caught.value, Phase.REST)
    assert (failure.kind, failure.fatal) == (kind, fatal)


async def test_a_certificate_that_names_another_address_is_for_another_host(dialler, authority):
    async with tcp_server(silent, server_tls(authority)) as port:
        failure = await dialler.failure(f"wss://127.0.0.1:{port}")
    assert failure.kind == "tls_hostname"


@pytest.mark.parametrize(
    ("serve_one", "kind", "fatal"), [(greets_in_the_clear, "not_tls", True), (hangs_up, "tls_cut", False)], ids=["no TLS", "cut"]
)
async def test_the_other_side_does_not_do_its_part_of_the_handshake(dialler, serve_one, kind, fatal):
    async with tcp_server(serve_one) as port:
        failure = await dialler.failure(f"wss://localhost:{port}")
    assert (failure.kind, failure.type, failure.fatal, failure.phase) == (kind, "ssl_error", fatal, Phase.TLS)


async def test_a_stalled_handshake_ends_after_its_own_time(dialler):
    async with tcp_server(silent) as port:
        failure = await dialler.failure(f"wss://localhost:{port}", ssl_timeout=0.3)
    assert (failure.kind, failure.type, failure.fatal) == ("tls_timeout", "timeout_error", False)
    assert "WS_SSL_TIMEOUT" in failure.advice


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
async def test_what_is_agreed_on_is_shown_and_is_forward_secret(dialler, authority, version):
    ends = _now() + 10 * DAY
    context = context_for(authority.issue_cert("localhost", not_after=ends))
    context.minimum_version = context.maximum_version = version

    async def idle(connection):
        """The handshake is all there is to see."""

    async with websocket_server(authority, idle, ssl=context) as url:
        link = await dialler.dial(url)
    assert link.tls.version.replace(".", "_") == version.name
    assert link.tls.cipher.startswith("ECDHE-" if version is ssl.TLSVersion.TLSv1_2 else "TLS_")
    assert link.tls.issuer.startswith("trustme")
    assert link.tls.not_after == pytest.approx(ends.timestamp(), abs=2.0)


def test_every_suite_that_is_offered_is_forward_secret_and_authenticated(authority, tmp_path):
    offered = tls_context(trusting(authority, tmp_path)).get_ciphers()
    assert offered
    for suite in offered:
        assert suite["aead"], suite["name"]
        assert suite["protocol"] == "TLSv1.3" or suite["kea"] == "kx-ecdhe", suite["name"]
