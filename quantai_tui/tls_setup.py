"""TLS as this machine sets it up: environment variables, authorities, OpenSSL's configuration, and words for what is wrong.

Stream and embedded exchange use it. aiohttp makes a context of its own while it is imported, so what is wrong here breaks that
import, with an error that names nothing: use this before.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path

_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")  # how OpenSSL finds certificates in a folder


class TlsSetupError(Exception):
    """TLS cannot be set up on this machine. The text names what is wrong; `remedy` is a sentence on what to do."""

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
    """What to say when OpenSSL cannot make a context or has no cipher for it: that comes of its configuration."""
    told = (error.reason or str(error)).replace("_", " ").lower()
    file = os.environ.get("OPENSSL_CONF")
    if file:
        return TlsSetupError(
            f"OpenSSL cannot set up TLS with OPENSSL_CONF {file}: {told}", "Correct that file, or unset OPENSSL_CONF."
        )
    return TlsSetupError(
        f"OpenSSL cannot set up TLS: {told}", "Check this machine's OpenSSL: its openssl.cnf, providers and packages."
    )


def missing_authorities(context: ssl.SSLContext) -> str | None:
    """Why `context` trusts nobody, so that every certificate would be refused; None where it trusts somebody."""
    if context.cert_store_stats()["x509_ca"] or _has_hashed_certificates(ssl.get_default_verify_paths().capath):
        return None
    broken = [why for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (why := _why_unused(name, os.environ.get(name, "")))]
    return "; ".join(broken) or "none is installed where OpenSSL looks for them"


def _check_key_log(path: str) -> None:
    if not path:
        return
    try:
        is_pipe = stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return  # it is opened next, which says why it cannot be
    if is_pipe:
        raise _bad_key_log("it is a pipe, which would be waited for")


def _bad_key_log(why: str) -> TlsSetupError:
    path = os.environ.get("SSLKEYLOGFILE", "")
    return TlsSetupError(
        f"SSLKEYLOGFILE {path} cannot be written: {why}", "Unset SSLKEYLOGFILE, or name a file that can be written."
    )


def _has_hashed_certificates(folder: str | None) -> bool:
    """Those of a folder are read when they are needed: a context does not count them."""
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
            else f"{name} {value} is no folder"
        )
    return f"{name} {value} holds no certificate in PEM form that can be read"
