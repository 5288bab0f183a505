"""Server contexts with something wrong: the certificates and TLS versions that a client has to turn down, or to warn about."""

from __future__ import annotations

import datetime
import ssl

import trustme

_DAY = datetime.timedelta(days=1)
_NAMES = ("localhost", "127.0.0.1")
OTHER_HOST = "elsewhere.invalid"  # a name that can never be looked up (RFC 6761, 6.4)


class Forger:
    """Makes server contexts under an authority that clients trust.

    Dates are counted from the machine's own clock, since that is the one which a client's TLS library reads. A method takes some
    milliseconds, `rsa_only` some hundreds: they are for a thread.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self._authority = authority

    def expired(self, days: float = 1.0) -> ssl.SSLContext:
        """A certificate that ended so many days ago."""
        end = _now() - days * _DAY
        return _serving(self._authority.issue_cert(*_NAMES, not_before=end - 90 * _DAY, not_after=end))

    def not_yet_valid(self, days: float = 1.0) -> ssl.SSLContext:
        """A certificate that begins in so many days."""
        begin = _now() + days * _DAY
        return _serving(self._authority.issue_cert(*_NAMES, not_before=begin, not_after=begin + 90 * _DAY))

    def expires_in(self, days: float) -> ssl.SSLContext:
        """A certificate that is good, and ends in so many days."""
        return _serving(self._authority.issue_cert(*_NAMES, not_before=_now() - 90 * _DAY, not_after=_now() + days * _DAY))

    def wrong_host(self) -> ssl.SSLContext:
        """A certificate of another host."""
        return _serving(self._authority.issue_cert(OTHER_HOST))

    def untrusted(self) -> ssl.SSLContext:
        """A certificate of an authority that nobody knows."""
        return _serving(trustme.CA(organization_name="Nobody's authority").issue_cert(*_NAMES))

    def tls_1_1(self) -> ssl.SSLContext:
        """TLS 1.1 and nothing newer."""
        context = _serving(self._authority.issue_cert(*_NAMES))
        # OpenSSL 3 offers MD5 and SHA-1, which TLS 1.1 signs with, at its lowest security level alone.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    def rsa_only(self) -> ssl.SSLContext:
        """TLS 1.2 with RSA key exchange alone: whoever gets the key can read what was recorded."""
        context = _serving(self._authority.issue_cert(*_NAMES, key_type=trustme.KeyType.RSA))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("kRSA+AESGCM")
        return context


class Trial:
    """A context's answer to a client's hello, found out before a server that drops it gets to see the hello.

    asyncio closes a connection without the alert that OpenSSL has written when the handshake fails (seen with Python 3.11), and
    the client would take for a reset what is a refusal with a reason.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._heard, self._answer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._heard, self._answer, server_side=True)
        self.decided = False

    def hear(self, data: bytes) -> bytes:
        """The alert that refuses the client, or nothing; `decided` says whether more of the hello is needed."""
        self._heard.write(data)
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self.decided = self._answer.pending > 0
            return b""
        except ssl.SSLError:
            self.decided = True
            return self._answer.read()
        return b""


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _serving(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context
