"""TLS setup of this machine: environment variables, authorities, OpenSSL's configuration, and their error messages.

Stream and embedded exchange use it. aiohttp makes its own context while it is imported, so a fault here breaks that
import without naming the cause: call this first.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path

_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")  # the names under which OpenSSL finds certificates in a folder


class TlsSetupError(Exception):
    """TLS cannot be set up on this machine. The text names the cause; `remedy` is a sentence."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def client_context() -> ssl.SSLContext:
    """A verifying context with this machine's authorities, as `ssl.create_default_context` makes it.

    Raises:
        TlsSetupError: the file of SSLKEYLOGFILE cannot be written, or OpenSSL's configuration is broken.
    """
    _check_key_log(os.environ.get("SSLKEYLOGFILE", ""))
    try:
        return ssl.create_default_context()
    except ssl.SSLError as error:
        raise openssl_refuses(error) from error
    except OSError as error:
        raise _bad_key_log(error.strerror or str(error)) from error


def openssl_refuses(error: ssl.SSLError) -> TlsSetupError:
    """The error when OpenSSL cannot make a context or has no cipher for it, because of its configuration."""
    told = (error.reason or str(error)).replace("_", " ").lower()
    file = os.environ.get("OPENSSL_CONF")
    if file:
        return TlsSetupError(
            f"OpenSSL cannot set up TLS with OPENSSL_CONF {file}: {told}", "Correct that file, or unset OPENSSL_CONF."
        )
    return TlsSetupError(
        f"OpenSSL cannot set up TLS: {told}", "Check this machine's OpenSSL: its openssl.cnf, providers and packages."
    )


def missing_authorities(context: ssl.SSLContext) -> TlsSetupError | None:
    """Why `context` has no authority and would refuse every certificate; None if it has one."""
    if context.cert_store_stats()["x509_ca"] or _has_hashed_certificates(ssl.get_default_verify_paths().capath):
        return None
    broken = {name: why for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (why := _why_unused(name, os.environ.get(name, "")))}
    if broken:
        return TlsSetupError(
            "; ".join(broken.values()),
            f"Correct or unset {' and '.join(broken)}; authorities of the system come with the package ca-certificates.",
        )
    return TlsSetupError(
        "none is installed where OpenSSL looks for them",
        "Install the package ca-certificates, or name a PEM file in EXCHANGE_CA_FILE.",
    )


def _check_key_log(path: str) -> None:
    if not path:
        return
    try:
        is_pipe = stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return  # opening it next gives the reason
    if is_pipe:
        raise _bad_key_log("it is a pipe, which would block")


def _bad_key_log(why: str) -> TlsSetupError:
    path = os.environ.get("SSLKEYLOGFILE", "")
    return TlsSetupError(
        f"SSLKEYLOGFILE {path} cannot be written: {why}", "Unset SSLKEYLOGFILE, or name a file that can be written."
    )


def _has_hashed_certificates(folder: str | None) -> bool:
    """Certificates of a folder are read on demand, so a context does not count them."""
    if folder is None:
        return False
    try:
        with os.scandir(folder) as entries:
            return any(_HASHED_NAME.fullmatch(entry.name) for entry in entries)
    except OSError:
        return False


def _why_unused(name: str, value: str) -> str | None:
    if not value:
        return None
    path = Path(value)
    if not path.exists():
        return f"{name} {value} does not exist"
    if name == "SSL_CERT_DIR":
        return (
            f"{name} {value} holds no certificate under a hashed name (openssl rehash)"
            if path.is_dir()
            else f"{name} {value} is not a folder"
        )
    return f"{name} {value} holds no certificate in PEM form that can be read"
