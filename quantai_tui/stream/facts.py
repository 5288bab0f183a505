"""What of a failure and of a configuration may be put down in a file that is handed on: its facts, and no secret."""

from __future__ import annotations

import re
import ssl
from dataclasses import fields
from typing import Any

import msgspec

from ..masking import masked
from .config import StreamConfig, public_address
from .failures import HttpStatusError, LinkFault, Phase, classify
from .recording_events import Failed, pack

_MAX_CHAIN = 6
_LONGEST_MESSAGE = 2000  # as in a recording
_SECRET = frozenset({"proxy", "ca_file"})
_QUERY = re.compile(r"(?<=[^\s?])\?[^\s?]\S*")


def public_config(config: StreamConfig) -> msgspec.Raw:
    """The stream's configuration, packed, without secrets."""
    public = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in _SECRET}
    return msgspec.Raw(pack(public | {name: public_address(public[name]) for name in ("ws_url", "rest_url")}))


def _cleaned(text: str, proxy: str | None) -> str:
    if proxy:
        text = text.replace(proxy, "the proxy")
    return _QUERY.sub("", masked(text))


def failed(error: BaseException, phase: Phase, proxy: str | None) -> Failed:
    """A failure as it is to be put down; `proxy` is an address that must not be in it."""
    failure = classify(error, phase)
    return Failed(
        kind=failure.kind.value,
        phase=phase.value,
        message=_cleaned(failure.message, proxy)[:_LONGEST_MESSAGE],
        min_wait_s=failure.min_wait_s,
        errors=msgspec.Raw(pack([_facts(link) for link in _chain(error)])),
    )


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain and len(chain) < _MAX_CHAIN:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return chain


def _facts(error: BaseException) -> dict[str, Any]:
    """What is structured about an exception. Its text stays out: it may hold anything."""
    facts: dict[str, Any] = {"type": f"{type(error).__module__}.{type(error).__qualname__}"}
    if isinstance(error, OSError) and isinstance(error.errno, int):
        facts["errno"] = error.errno
    if isinstance(error, ssl.SSLError):
        facts["reason"] = getattr(error, "reason", None)
        facts["verify_code"] = getattr(error, "verify_code", None)
    if isinstance(error, HttpStatusError):
        facts |= {"status": error.status, "retry_after_s": error.retry_after_s, "code": error.code}
    if isinstance(error, LinkFault):
        facts["kind"] = error.kind.value
    # The library's classes, told by what they carry: a handshake's response, a close frame received or sent.
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        facts["status"] = status
    for side in ("rcvd", "sent"):
        code = getattr(getattr(error, side, None), "code", None)
        if isinstance(code, int):
            facts[f"close_code_{side}"] = int(code)
    return {name: value for name, value in facts.items() if value is not None}
