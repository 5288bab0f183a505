"""Certificates and TLS versions that are refused: fatal for a stream that was never live, probed by one that was."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults_support import FIRST_DIAL, S, on_both_transports, rig

from quantai_tui.stream import FailureKind

K = FailureKind

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")

REFUSED = [
    ("cert-expired", K.TLS_DATE, "machine's clock first"),
    ("cert-not-yet-valid", K.TLS_DATE, "machine's clock first"),
    ("cert-wrong-host", K.TLS_HOSTNAME, "another host"),
    ("cert-untrusted", K.TLS_UNTRUSTED, "EXCHANGE_CA_FILE"),
    ("tls-1-1", K.TLS_VERSION, "TLS 1.2 or newer"),
    ("tls-rsa-only", K.TLS_SUITE, "forward secrecy"),
]


@on_both_transports
@pytest.mark.parametrize(("fault", "kind", "says"), REFUSED)
async def test_at_the_first_dial_it_is_fatal_until_the_operator_acts(
    tmp_path: Path, transport: str, fault: str, kind: FailureKind, says: str
) -> None:
    wrong = {"kind": fault, "for_s": 600.0}
    async with rig(tmp_path, transport=transport, flowing=False, wrong=wrong) as rigged:
        await rigged.until(lambda: rigged.stream.state is S.FAILED, "given up", within=1.0)
        await rigged.shown(kind, says)
        assert rigged.path == (S.IDLE, S.CONNECTING, S.HANDSHAKING, S.FAILED)[-len(rigged.path) :]
        assert (rigged.dials, rigged.snapshot.attempts_total, rigged.snapshot.ssl_errors) == (0, 1, 1)
        await rigged.mend()
        rigged.stream.reconnect_now()
        await rigged.flowing()
        assert rigged.dials == 1
        await rigged.nothing_lost()


@pytest.mark.parametrize(("fault", "kind", "says"), [REFUSED[0], REFUSED[3], REFUSED[4]])
async def test_after_a_good_link_it_is_probed_until_it_is_mended(
    tmp_path: Path, fault: str, kind: FailureKind, says: str
) -> None:
    async with rig(tmp_path, cooldown=0.3) as rigged:
        await rigged.inject(fault, for_s=600.0)
        await rigged.inject("close")
        await rigged.shown(kind, says)
        await rigged.until(lambda: rigged.stream.state is S.COOLING_DOWN, "a cool-down")
        await rigged.mend()
        await rigged.recovered(within=0.3)
        assert rigged.path[:4] == (S.BACKOFF, S.CONNECTING, S.HANDSHAKING, S.COOLING_DOWN)
        assert (rigged.path[-4:], rigged.dials) == (FIRST_DIAL, 2)
        await rigged.nothing_lost()


@on_both_transports
async def test_a_good_certificate_that_ends_soon_is_used_and_its_days_are_shown(tmp_path: Path, transport: str) -> None:
    wrong = {"kind": "cert-expires-soon", "days": 5.5, "for_s": 600.0}
    async with rig(tmp_path, transport=transport, wrong=wrong) as rigged:
        shown = rigged.snapshot
        assert shown.certificate_days is not None
        assert 4 <= shown.certificate_days <= 6
        assert (shown.tls_version, shown.last_error) == ("TLSv1.3", None)
        await rigged.nothing_lost()
