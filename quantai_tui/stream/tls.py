"""The TLS we insist on: verified chain and host name, 1.2 or newer, forward secrecy."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from ..tls_setup import TlsSetupError, client_context, missing_authorities, openssl_refuses
from .advice import FailureKind
from .failures import LinkFault
from .transport import TlsInfo

_TLS12_SUITES = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
_LOOKED_AT_BYTES = 64 * 1024


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A verifying client context that trusts the system's authorities and those in `ca_file`.

    TLS 1.2 or newer. Every suite is authenticated encryption under a key that is made for the connection and forgotten with it:
    those of TLS 1.3 are so by nature, of TLS 1.2 the ones with ECDHE and an AEAD cipher.

    Raises:
        LinkFault: with kind CONFIG, when the file cannot be read or holds no certificate, or when the environment or OpenSSL's
            configuration prevents TLS; with kind TLS_NO_CA, when there is no authority at all.
    """
    try:
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.set_ciphers(_TLS12_SUITES)
        except ssl.SSLError as error:
            raise openssl_refuses(error) from error
    except TlsSetupError as error:
        raise LinkFault(FailureKind.CONFIG, str(error), advice=error.remedy) from error
    if ca_file:
        _trust(context, Path(ca_file))
    if (missing := missing_authorities(context)) is not None:
        message = f"TLS has no certificate authority to trust: {missing}"
        raise LinkFault(FailureKind.TLS_NO_CA, message, advice=missing.remedy)
    return context


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise _unusable(path, "it is a folder")
        if not stat.S_ISREG(kind):
            raise _unusable(path, "it is not a regular file")  # opening a pipe would block
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise _unusable(path, _what_else_it_is(path)) from error
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _unusable(path: Path, why: str) -> LinkFault:
    return LinkFault(
        FailureKind.CONFIG,
        f"EXCHANGE_CA_FILE {path} cannot be used: {why}",
        advice="Name a file in EXCHANGE_CA_FILE that holds certificates in PEM form and can be read, or leave it empty.",
    )


def _what_else_it_is(path: Path) -> str:
    """Describe a file in which OpenSSL finds no certificate."""
    with path.open("rb") as file:
        content = file.read(_LOOKED_AT_BYTES)
    if not content:
        return "it is empty"
    if b"-----BEGIN CERTIFICATE-----" in content:
        return "a certificate in it is damaged"
    if b"PRIVATE KEY-----" in content:
        return "it holds a private key, and no certificate"
    if content.startswith(b"\x30"):
        return f"it is in DER form; convert it to PEM: openssl x509 -inform der -in {path.name} -out ca.pem"
    return "it holds no certificate in PEM form"


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
