"""Everything that may go wrong on purpose, and how a table asks for it. `line_catalogue` has what needs the byte proxy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from .fault import LONGEST_S, UNTIL_CLEARED, Fault, FaultError, FaultKind, Parameter
from .line_catalogue import LINE_FAULTS

_CODE = Parameter("code", "close code", 1000, low=1000, high=4999)
_REASON = Parameter("reason", "text in the close frame", "")
_CONNECTIONS = Parameter("connections", "only those open now, or those to come as well", "all", choices=("all", "open"))
_SYMBOL = Parameter("symbol", "of which symbol; none: the exchange's first", "")
_ANY_SYMBOL = Parameter("symbol", "of which symbol; none: all", "")
_COUNT = Parameter("count", "how many", 1, "frames", 1, 1_000_000)
_EVERY = Parameter("every", "one in so many trades", 1, "trades", 1, 1_000_000)
_REPLACE = Parameter("replace", "sent instead of a trade, not before one; REST has the trade", False)
_BAD = (_COUNT, _EVERY, _REPLACE, _ANY_SYMBOL)
_RETRY_AFTER = Parameter("retry_after", "Retry-After; none: until this is over, -1: no such header", 0.0, "s", -1.0, LONGEST_S)
_ROWS = Parameter("rows", "how many of them", 1, "rows", 1, 1000)

_CONNECTION_FAULTS = (
    FaultKind(
        "close",
        "connections are closed with a close frame; with `for`, those that come meanwhile at once too",
        "connection",
        0.0,
        (_CODE, _REASON),
    ),
    FaultKind(
        "flap",
        "connections are accepted and then dropped",
        "connection",
        30.0,
        (
            Parameter("after", "from handshake to drop", 0.0, "s", 0.0, 3600.0),
            Parameter("code", "close code; 0: TCP ends without a close frame", 0, low=0, high=4999),
        ),
    ),
    FaultKind(
        "http-status",
        "the upgrade is answered with an HTTP error",
        "connection",
        10.0,
        (Parameter("code", "HTTP status: 403, 418, 429, 451, 503 ...", 503, low=400, high=599), _RETRY_AFTER),
    ),
    FaultKind("upgrade-stall", "the upgrade is not answered until it is over", "connection", 30.0),
    FaultKind(
        "server-shutdown",
        "the serverShutdown event in each connection's form, and then its close",
        "connection",
        None,
        (
            Parameter("lead", "from the event to the close; -1: no close follows", 0.0, "s", -1.0, 3600.0),
            Parameter("code", "close code", 1001, low=1000, high=4999),
        ),
    ),
    FaultKind(
        "lifetime",
        "connections live so long, as they live 24 h at the venue",
        "connection",
        UNTIL_CLEARED,
        (Parameter("lifetime", "age at which one is closed", 30.0, "s", 0.05, LONGEST_S),),
    ),
    FaultKind("pongs-withheld", "pings of clients are not answered; data flows", "connection", 60.0, (_CONNECTIONS,)),
)

_STREAM_FAULTS = (
    FaultKind("stall", "no data on any stream, pongs go on; the trades are on REST alone", "stream", 30.0, (_CONNECTIONS,)),
    FaultKind("hold", "data waits, and all of it comes at once when this is over", "stream", 10.0),
    FaultKind("silent-symbol", "one symbol says nothing; its trades are on REST alone", "stream", 30.0, (_SYMBOL, _CONNECTIONS)),
    FaultKind(
        "lost-subscription",
        "open connections' subscription to a symbol is forgotten; with `for`, new ones are acknowledged and forgotten too",
        "stream",
        0.0,
        (_SYMBOL, Parameter("listed", "LIST_SUBSCRIPTIONS goes on naming it", False)),
    ),
    FaultKind(
        "burst",
        "trades happen faster, all symbols together at this rate; ids and REST stay consistent",
        "stream",
        10.0,
        (Parameter("rate", "trades", 50_000.0, "1/s", 1.0, 200_000.0),),
    ),
)

_FRAME_FAULTS = (
    FaultKind("malformed", "text frames that are no JSON", "frames", None, _BAD),
    FaultKind("missing-fields", "trades without some of their fields", "frames", None, _BAD),
    FaultKind("unknown-event", "events of a kind that nobody knows", "frames", None, _BAD),
    FaultKind("bad-utf8", "text frames that are no UTF-8", "frames", None, _BAD),
    FaultKind("binary", "binary frames of random bytes", "frames", None, _BAD),
    FaultKind("compressed", "frames with RSV1 set, though no compression was agreed on", "frames", None, _BAD),
    FaultKind(
        "oversized",
        "text frames that are too large",
        "frames",
        None,
        (*_BAD, Parameter("size", "of the payload", 4 * 2**20, "bytes", 1000, 64 * 2**20)),
    ),
    FaultKind(
        "fragmented",
        "trades in several fragments, with a ping between them, which is allowed",
        "frames",
        None,
        (_COUNT, _EVERY, _ANY_SYMBOL, Parameter("pieces", "fragments of each", 3, low=2, high=50)),
    ),
    FaultKind(
        "duplicate",
        "trades are sent again",
        "frames",
        None,
        (_COUNT, _EVERY, _ANY_SYMBOL, Parameter("span", "again after so many trades more", 1, "trades", 1, 1000)),
    ),
    FaultKind(
        "reorder",
        "trades change places",
        "frames",
        None,
        (
            Parameter("count", "how many groups", 1, low=1, high=1_000_000),
            _ANY_SYMBOL,
            Parameter("span", "trades in a group", 5, "trades", 2, 1000),
        ),
    ),
    FaultKind("hole", "trades are not sent; REST has them", "frames", None, (_COUNT, _EVERY, _ANY_SYMBOL)),
    FaultKind(
        "venue-hole",
        "trades are not sent and REST lacks them too, for good",
        "frames",
        None,
        (Parameter("count", "how many", 1, "trades", 1, 1000), _EVERY, _ANY_SYMBOL),
    ),
)

_REST_FAULTS = (
    FaultKind("rest-short", "pages end early", "rest", 30.0, (_ROWS,)),
    FaultKind("rest-cut", "bodies are cut off in the middle", "rest", 30.0),
    FaultKind(
        "rest-wrong-rows",
        "pages of the right size with wrong rows",
        "rest",
        30.0,
        (
            Parameter(
                "how",
                "from the middle of the market, one id too late, last row first, or a row missing inside",
                "foreign",
                choices=("foreign", "late", "backwards", "gap"),
            ),
        ),
    ),
    FaultKind(
        "rest-limit",
        "the weight is used up: 429, and 418 for who goes on; the ban holds for WebSocket too and over a restart",
        "rest",
        UNTIL_CLEARED,
        (
            Parameter("retry_after", "until there is weight again", 10.0, "s", 0.1, 3600.0),
            Parameter("refusals", "429 before the ban", 3, low=1, high=1000),
            Parameter("lifetime", "how long the first ban is", 30.0, "s", 0.1, LONGEST_S),
        ),
    ),
    FaultKind(
        "ban",
        "418 at once, REST and WebSocket alike; asking inside it doubles it",
        "rest",
        UNTIL_CLEARED,
        (Parameter("lifetime", "how long", 30.0, "s", 0.1, LONGEST_S),),
    ),
    FaultKind(
        "rest-status",
        "an HTTP error instead of an answer",
        "rest",
        10.0,
        (Parameter("code", "HTTP status", 503, low=400, high=599), _RETRY_AFTER),
    ),
    FaultKind("rest-stall", "no answer until it is over", "rest", 30.0),
    FaultKind(
        "rest-lag",
        "REST is behind the stream",
        "rest",
        30.0,
        (Parameter("behind", "so far", 5.0, "s", 0.01, 3600.0),),
    ),
)

FAULTS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        *_CONNECTION_FAULTS,
        *_STREAM_FAULTS,
        *_FRAME_FAULTS,
        *_REST_FAULTS,
        *LINE_FAULTS,
        FaultKind("clear", "ends all that is in force", "all"),
    )
}
"""All kinds by name."""

_AT = Parameter("at", "when, counted from the first subscription", 0.0, "s", 0.0, LONGEST_S)
_FOR = Parameter("for", "how long", 1.0, "s", 0.01, LONGEST_S)


def parse_fault(table: Mapping[str, object]) -> Fault:
    """A fault out of a TOML or JSON table, with the defaults of its kind. Raises FaultError, which names key and remedy."""
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise FaultError("a fault without a `kind`", f"use one of {', '.join(FAULTS)}")
    known = FAULTS.get(kind)
    if known is None:
        raise FaultError(f"unknown kind {kind[:60]!r}", _did_you_mean(kind, list(FAULTS)))
    fields: dict[str, Any] = {"kind": kind}
    for key, value in table.items():
        if key == "kind":
            continue
        if key == "for" and known.lasts_s is None:
            raise FaultError(f"`for` in {kind}: it is over at once", "leave `for` out")
        parameter = {"at": _AT, "for": _FOR}.get(key) or known.parameter(key)
        if parameter is None:
            names = ["at", *(["for"] if known.lasts_s is not None else []), *(known.name for known in known.parameters)]
            raise FaultError(f"unknown key {key[:60]!r} in {kind}", _did_you_mean(key, names))
        try:
            fields["for_s" if key == "for" else key] = parameter.check(value)
        except ValueError as error:
            unit = f" (in {parameter.unit})" if parameter.unit else ""
            raise FaultError(f"`{key}` of {kind} is {_shown(value)}", f"use {error}{unit}") from None
    return completed(Fault(**fields))


def completed(fault: Fault) -> Fault:
    """The fault with the defaults of its kind for all that was left out. Raises FaultError for what no script could ask for."""
    known = FAULTS.get(fault.kind)
    if known is None:
        raise FaultError(f"unknown kind {fault.kind[:60]!r}", _did_you_mean(fault.kind, list(FAULTS)))
    changes: dict[str, Any] = {p.name: p.default for p in known.parameters if not getattr(fault, p.name)}
    if fault.for_s is None and known.lasts_s is not None:
        changes["for_s"] = known.lasts_s
    return msgspec.structs.replace(fault, **changes) if changes else fault


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a number far out of range"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name[:60], known, 1)
    listed = ", ".join(known)
    return f"did you mean {near[0]!r}? Known: {listed}" if near else f"use one of {listed}"


def markdown_table() -> str:
    """The catalogue as a table for the README: kind, layer, what happens, parameters with units, ranges and defaults."""
    lines = ["| kind | layer | what happens | parameters |", "|---|---|---|---|"]
    for kind in FAULTS.values():
        notes = [_duration(kind)] if kind.lasts_s is not None else []
        for p in kind.parameters:
            unit = f" {p.unit}" if p.unit else ""
            notes.append(f"`{p.name}` {p.text} ({p.range_text()}{unit}; default {_default(p)})")
        lines.append(f"| `{kind.name}` | {kind.layer} | {kind.text} | {'; '.join(notes) or '-'} |")
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"


def _default(parameter: Parameter) -> str:
    if isinstance(parameter.default, bool | str):
        return str(parameter.default).lower() or "none"
    return f"{parameter.default:.10g}"


def _duration(kind: FaultKind) -> str:
    if kind.lasts_s == 0:
        return "`for` how long (default: it is over at once)"
    return f"`for` how long (default {'until cleared' if kind.lasts_s == math.inf else f'{kind.lasts_s:g} s'})"
