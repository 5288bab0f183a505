"""Certificates and TLS versions that a client has to turn down, or to warn about: what it sees, on both ports."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import aiohttp
import pytest
from door_support import Breakable, breakable
from exchange_support import receive

# X.509 verify codes, from OpenSSL's x509_vfy.h.
NOT_YET_VALID, EXPIRED, NO_ISSUER, WRONG_HOST, WRONG_ADDRESS = 9, 10, 20, 62, 64

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")

REFUSED = [
    ("cert-expired", EXPIRED),
    ("cert-not-yet-valid", NOT_YET_VALID),
    ("cert-wrong-host", WRONG_ADDRESS),
    ("cert-untrusted", NO_ISSUER),
]


async def good(served: Breakable) -> bool:
    async with served.trades() as ws:
        return len(await receive(ws, 2)) == 2


@pytest.mark.parametrize(("kind", "code"), REFUSED)
async def test_a_bad_certificate_fails_its_check_and_the_good_one_comes_back(tmp_path: Path, kind: str, code: int) -> None:
    async with breakable(tmp_path) as served, served.trades() as before:
        await served.inject(kind)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await served.trades()
        assert caught.value.verify_code == code
        await receive(before, 5)
        await served.clear()
        assert await good(served)


async def test_the_rest_port_has_its_own_bad_certificate(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        await served.inject("cert-wrong-host", port="rest")
        with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
            await served.get("/api/v3/ping")
        error = caught.value.certificate_error
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert error.verify_code == WRONG_HOST
        assert await good(served)


async def test_a_server_of_tls_1_1_alone_is_turned_down_by_whoever_wants_1_2(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        served.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        await served.inject("tls-1-1")
        with pytest.raises(ssl.SSLError) as caught:
            await served.trades()
        assert caught.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


async def test_a_server_of_tls_1_1_does_speak_it(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        served.tls.minimum_version = ssl.TLSVersion.TLSv1_1
        served.tls.set_ciphers("ALL:@SECLEVEL=0")
        await served.inject("tls-1-1")
        async with served.trades() as ws:
            await receive(ws, 2)
            assert ws.transport.get_extra_info("ssl_object").version() == "TLSv1.1"


async def test_a_server_without_forward_secrecy_is_turned_down_by_whoever_insists_on_it(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        await served.inject("tls-rsa-only")
        served.tls.set_ciphers("ECDHE+AESGCM")
        with pytest.raises(ssl.SSLError) as caught:
            await served.trades()
        assert caught.value.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE"
        served.tls.set_ciphers("ECDHE+AESGCM:kRSA+AESGCM")
        async with served.trades() as ws:
            await receive(ws, 2)
            assert ws.transport.get_extra_info("cipher")[0].startswith("AES")


async def test_a_certificate_that_ends_soon_works_and_says_so_and_its_connections_outlive_the_fault(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        await served.inject("cert-expires-soon", days=3.0)
        async with served.trades() as ws:
            certificate = ws.transport.get_extra_info("peercert")
            days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86400
            assert 2.9 < days < 3.1
            await served.clear()
            await receive(ws, 20)
            assert await good(served)


async def test_what_is_cleared_while_its_key_is_made_does_not_happen(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        served.tls.set_ciphers("ECDHE+AESGCM")
        fault = asyncio.create_task(served.inject("tls-rsa-only"))
        await asyncio.sleep(0)
        await served.clear()
        await fault
        assert await good(served)


async def test_the_exchange_leaves_quickly_while_a_bad_certificate_is_served_and_one_was(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        await served.inject("cert-expires-soon", port="both")
        ws = await served.trades()
        await served.clear()
        await served.inject("cert-untrusted", port="both")
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    await ws.wait_closed()
    assert ws.close_code == 1001
