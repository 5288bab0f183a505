"""The TLS we insist on: verified chain and host name, 1.2 or newer, forward secrecy."""

from __future__ import annotations

import ssl

from .advice import FailureKind
from .failures import LinkFault
from .transport import TlsInfo

_TLS12_SUITES = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A verifying client context that trusts the system's authorities and those in `ca_file`.

    TLS 1.2 or newer. Every suite is authenticated encryption under a key that is made for the connection and forgotten with it:
    those of TLS 1.3 are so by nature, of TLS 1.2 the ones with ECDHE and an AEAD cipher.

    Raises:
        LinkFault: with kind CONFIG, when the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_SUITES)
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            reason = error.strerror or getattr(error, "reason", None) or "it holds no certificate"
            raise LinkFault(FailureKind.CONFIG, f"EXCHANGE_CA_FILE {ca_file} cannot be used: {reason}") from error
    return context


def tls_info(session: ssl.SSLObject | ssl.SSLSocket | None) -> TlsInfo | None:
    """What a finished handshake came to; None without TLS."""
    if session is None:
        return None
    cipher = session.cipher()
    certificate = session.getpeercert() or {}
    issuer = {key: value for part in certificate.get("issuer", ()) for key, value in part}  # type: ignore[str-unpack]
    not_after = certificate.get("notAfter")
    return TlsInfo(
        version=session.version() or "",
        cipher=cipher[0] if cipher else "",
        issuer=str(issuer.get("organizationName") or issuer.get("commonName") or ""),
        not_after=float(ssl.cert_time_to_seconds(not_after)) if isinstance(not_after, str) else None,
    )
