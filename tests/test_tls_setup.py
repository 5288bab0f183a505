"""Faults of this machine's TLS setup or of a certificate are named, with both libraries and over REST."""

from __future__ import annotations

import datetime
import os
import ssl
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from stream_support import MemorySink, authority, reaches
from transport_support import Dialler, alerting_server, dialler, trusting

from quantai_tui.engine.exchange_child import ExchangeChild, ExchangeFailed
from quantai_tui.stream import LinkFault, Phase, ResilientStream, RestClient, StreamConfig, classify
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.tls import tls_context
from quantai_tui.telemetry import SYSTEM_CLOCK, StreamState

__all__ = ["authority", "dialler"]  # fixtures

BROKEN_PROVIDERS = "openssl_conf = all\n[all]\nproviders = some\n[some]\none = one_s\n[one_s]\nactivate = 1\nmodule = /none.so\n"


def wrong_key_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "no" / "such" / "folder" / "keys"))
    return "SSLKEYLOGFILE"


def key_log_that_is_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "pipe"))
    return "SSLKEYLOGFILE"


@pytest.mark.parametrize("library", ["websockets", "picows"])
@pytest.mark.parametrize("break_it", [wrong_key_log, key_log_that_is_a_pipe])
async def test_a_key_log_that_cannot_be_written_is_named_on_the_stream(tmp_path, monkeypatch, authority, break_it, library):
    name = break_it(tmp_path, monkeypatch)
    config = StreamConfig(
        symbols=("ETHUSDT",), ws_url="wss://localhost:1", ca_file=trusting(authority, tmp_path), transport=library
    )
    async with ResilientStream(config, MemorySink()) as stream:
        await reaches(stream, StreamState.FAILED)
        error = stream.snapshot().last_error
    assert error is not None
    assert (error.kind, name in error.message, f"Unset {name}" in error.advice) == ("config", True, True)


async def test_a_key_log_that_cannot_be_written_is_named_on_rest(tmp_path, monkeypatch, authority):
    name = wrong_key_log(tmp_path, monkeypatch)
    rest = RestClient("https://localhost:1", lambda: tls_context(trusting(authority, tmp_path)), Gate())
    with pytest.raises(LinkFault, match=f"{name} .* cannot be written"):
        await rest.server_time()
    await rest.close()


@pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "OPENSSL_CONF"])
async def test_an_exchange_that_cannot_set_up_tls_says_why(tmp_path, monkeypatch, name):
    value = tmp_path / "no" / "keys"
    if name == "OPENSSL_CONF":
        value = tmp_path / "openssl.cnf"
        value.write_text(BROKEN_PROVIDERS)
    monkeypatch.setenv(name, str(value))
    command = (sys.executable, "-m", "quantai_tui.exchange", "--folder", str(tmp_path / "venue"))
    child = ExchangeChild(command, tmp_path / "exchange.log", SYSTEM_CLOCK)
    with pytest.raises(
        ExchangeFailed, match=rf"{name} {value}.*unset {name}" if name == "OPENSSL_CONF" else rf"written: .*\. Unset {name}"
    ):
        await child.start()
    await child.stop()
    assert (tmp_path / "exchange.log").read_text() == ""


@pytest.mark.parametrize(
    ("file", "folder", "says"),
    [("/none.pem", "/none", "SSL_CERT_FILE /none.pem does not exist; SSL_CERT_DIR /none"), ("empty.pem", "empty", "PEM form")],
)
def test_machine_without_authorities_gets_a_specific_error(tmp_path, monkeypatch, authority, file, folder, says):
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / folder))
    with pytest.raises(LinkFault) as caught:
        tls_context(None)
    failure = classify(caught.value, Phase.CONNECT)
    assert (failure.kind, failure.type, failure.fatal) == ("tls_no_ca", "ssl_error", True)
    assert says in failure.message
    assert failure.advice.startswith("Correct or unset SSL_CERT_FILE and SSL_CERT_DIR")
    assert "ca-certificates" in failure.advice
    assert "in between" not in failure.advice
    assert tls_context(trusting(authority, tmp_path)).cert_store_stats()["x509_ca"] == 1, "an authority of one's own is enough"


def test_authorities_in_a_folder_of_hashed_names_count(tmp_path, monkeypatch, authority):
    monkeypatch.setenv("SSL_CERT_FILE", "/none.pem")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    authority.cert_pem.write_to_path(tmp_path / "0a1b2c3d.0")
    assert tls_context(None).cert_store_stats()["x509_ca"] == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b"no certificate", "no certificate in PEM form"),
        ("key", "a private key"),
        ("der", "openssl x509 -inform der"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged"),
        ("folder", "it is a folder"),
        ("pipe", "not a regular file"),
    ],
    ids=["missing", "empty", "text", "key", "der", "damaged", "folder", "pipe"],
)
def test_unusable_authority_file_gets_a_specific_error(tmp_path, authority, content, says):
    path = tmp_path / "ca.pem"
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "key":
        authority.private_key_pem.write_to_path(path)
    elif content == "der":
        certificate = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
        path.write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(LinkFault) as caught:
        tls_context(str(path))
    failure = classify(caught.value, Phase.CONNECT)
    assert (failure.kind, failure.fatal) == ("config", True)
    assert failure.message.startswith(f"EXCHANGE_CA_FILE {path}")
    assert says in failure.message


def without_authority_key_identifier(authority: trustme.CA) -> ssl.SSLContext:
    """A server whose certificate lacks the Authority Key Identifier, as from many private authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(issuer_key, hashes.SHA256())  # type: ignore[arg-type]
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with trustme.Blob(pem).tempfile() as path:
        context.load_cert_chain(path)
    return context


@pytest.mark.parametrize("over", ["websockets", "picows", "REST"])
async def test_a_certificate_that_strict_checks_refuse_is_not_called_untrusted(tmp_path, authority, over):
    context = tls_context(trusting(authority, tmp_path))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's default since 3.13
    with alerting_server(without_authority_key_identifier(authority)) as port:
        if over == "REST":
            rest = RestClient(f"https://localhost:{port}", lambda: context, Gate())
            with pytest.raises(OSError) as caught:
                await rest.server_time()
            await rest.close()
            failure = classify(caught.value, Phase.REST)
        else:
            failure = await Dialler(over, context).failure(f"wss://localhost:{port}")
    assert (failure.kind, failure.type, failure.fatal) == ("tls_unsound", "ssl_error", True)
    assert "Authority Key Identifier" in failure.message
    assert "3.13" in failure.advice
    assert "EXCHANGE_CA_FILE" not in failure.advice
