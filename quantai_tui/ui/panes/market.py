"""Each symbol's trades: price, rate, and whether every one of them is there."""

from __future__ import annotations

from ...telemetry import StoreSnapshot, SymbolSnapshot
from ..cells import Row, Span, fitted, flow, heading, row, spread, wrap
from ..format import UNKNOWN, age, clean, count, delay, per_second, price, size, wall_clock
from ..view import View
from .charts import TRADES, chart_page, spark
from .states import NOT_KNOWN

_TROUBLED = ("silent", "refused")
_ROWS_BELOW = 3  # kept for the sparkline and the store


def draw_market(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream, store = view.snapshot.stream, view.snapshot.store
    symbols = list(stream.symbols.items())
    if not symbols:
        return [row(("no symbol subscribed", "muted")), _store_row(store, width)][:height]
    single = len(symbols) > 1 and 2 * len(symbols) + 1 > height
    room = max(1, height - 1)
    per_symbol = 1 if single else 2
    shown = symbols if len(symbols) * per_symbol <= room else symbols[: max(1, (room - 1) // per_symbol)]
    rows: list[Row] = []
    for name, symbol in shown:
        rows.append(_headline(name, symbol, stream.repairing, width))
        if not single:
            rows.append(_ids(symbol, width))
    if len(shown) < len(symbols):
        rows.append(row((f"and {len(symbols) - len(shown)} more: z shows them", "muted")))
    rows += _notes(shown, width, height - len(rows) - _ROWS_BELOW)
    rows += _open_gaps(shown, width)[: max(0, height - len(rows) - _ROWS_BELOW)]
    sparks = height - len(rows) - 1
    if sparks >= 1:
        rows += spark(view, TRADES, width, min(sparks, 12))
    return [*rows[: height - 1], _store_row(store, width)][-height:]


def market_page(view: View, width: int, height: int) -> list[Row]:
    """Each symbol with all its counts and notes, every gap that is open, the trades as a chart, the store."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream, store = view.snapshot.stream, view.snapshot.store
    symbols = list(stream.symbols.items())
    if not symbols:
        return [row(("no symbol subscribed", "muted")), _store_row(store, width)]
    rows: list[Row] = []
    for name, symbol in symbols:
        rows.append(_headline(name, symbol, stream.repairing, width))
        rows += flow(width, *_id_groups(symbol), *_counts(symbol), label=" ")
    where = [row((line, "muted")) for line in wrap(clean(store.path), width, 3)]
    gaps = _open_gaps(symbols, width)
    return [
        *rows,
        *_notes(symbols, width, len(symbols) * 8),
        *([Row(), heading("open gaps"), *gaps] if gaps else []),
        Row(),
        *chart_page(view, TRADES, width, max(7, min(14, height // 2))),
        Row(),
        _store_row(store, width),
        *where,
    ]


def wholeness(symbol: SymbolSnapshot, repairing: bool) -> Span:
    """Whether the tape has holes, in words; before that, whether the venue serves the symbol at all."""
    if symbol.subscription in _TROUBLED:
        missing = f", missing {count(symbol.missing)}" if symbol.missing else ""
        return f"{symbol.subscription}{missing}", "alert-critical" if symbol.subscription == "refused" else "alert-warning"
    if symbol.missing:
        return f"missing {count(symbol.missing)}{', repairing' if repairing else ', repair pending'}", "alert-warning"
    if symbol.unrecoverable:
        return f"{count(symbol.unrecoverable)} lost for good", "alert-critical"
    if symbol.last_id is None:
        return "no trade yet", "muted"
    if symbol.repaired:
        return f"whole, {count(symbol.repaired)} repaired", "state-live"
    return "whole", "state-live"


def _headline(name: str, symbol: SymbolSnapshot, repairing: bool, width: int) -> Row:
    """Name and price, then the rate where there is room, and at the right edge whether the tape is whole."""
    column = 10 if width >= 34 else 8
    named: list[Span] = [(f"{clean(name):<{column}}", "text"), (price(symbol.price), "value")]
    left = fitted(width, named, [(f"{per_second(symbol.trades_per_s):>8}", "text")])
    said, token = wholeness(symbol, repairing)
    short, bare = said.partition(", ")[0], fitted(width, named)
    for candidate, words in ((left, said), (bare, said), (left, short), (bare, short)):
        joined = spread(width, candidate, [(words, token)])
        if joined is not candidate:
            return joined
    return fitted(width, [(clean(name), "text")], [(said.partition(", ")[0], token)])


def _ids(symbol: SymbolSnapshot, width: int) -> Row:
    return fitted(width, *_id_groups(symbol), *_oddities(symbol))


def _id_groups(symbol: SymbolSnapshot) -> list[list[Span]]:
    through = symbol.complete_through_id
    level = through is not None and through == symbol.last_id
    upto: list[Span] = [("  complete", "muted")] if level else [("  whole to ", "muted"), (_id(through), "text")]
    return [
        [("last ", "muted"), (_id(symbol.last_id), "text"), *upto],
        [("gaps ", "muted"), (count(symbol.gaps), "alert-warning" if symbol.gaps else "text")],
    ]


def _oddities(symbol: SymbolSnapshot) -> list[list[Span]]:
    """What is said only where there is any of it."""
    return [
        [("venue holes ", "muted"), (count(symbol.venue_holes), "text")] if symbol.venue_holes else [],
        [("duplicates ", "muted"), (count(symbol.duplicates), "text")] if symbol.duplicates else [],
        [("late ", "muted"), (count(symbol.late), "text")] if symbol.late else [],
        [("doubtful ", "muted"), (count(symbol.doubtful), "alert-warning")] if symbol.doubtful else [],
        [("implausible ", "muted"), (count(symbol.implausible), "text")] if symbol.implausible else [],
        [("suspected when silent for ", "muted"), (delay(symbol.silence_limit_s), "text")] if symbol.silence_limit_s else [],
    ]


def _counts(symbol: SymbolSnapshot) -> list[list[Span]]:
    """All that is counted, zeros too: on a page nothing is left to guess."""
    numbers = {
        "stored": symbol.stored,
        "missing": symbol.missing,
        "repaired": symbol.repaired,
        "duplicates": symbol.duplicates,
        "late": symbol.late,
        "venue holes": symbol.venue_holes,
        "lost for good": symbol.unrecoverable,
    }
    numbers |= {"doubtful": symbol.doubtful} if symbol.doubtful else {}
    numbers |= {"implausible": symbol.implausible} if symbol.implausible else {}
    said: list[list[Span]] = [[(f"{name} ", "muted"), (count(number), "text")] for name, number in numbers.items()]
    odd = {"wrong times": symbol.wrong_times, "conflicting contents": symbol.conflicts}
    said += [[(f"{name} ", "muted"), (count(number), "alert-warning")] for name, number in odd.items() if number]
    if symbol.last_trade_time is not None:
        said.append([("last trade ", "muted"), (wall_clock(symbol.last_trade_time), "text")])
    if symbol.silent_s is not None:
        said.append([("silent for ", "muted"), (age(symbol.silent_s), "text")])
    if symbol.silence_limit_s is not None:
        said.append([("suspected when silent for ", "muted"), (delay(symbol.silence_limit_s), "text")])
    if symbol.subscription:
        said.append([("subscription ", "muted"), (clean(symbol.subscription), "text")])
    return said


def _id(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)


def _notes(symbols: list[tuple[str, SymbolSnapshot]], width: int, room: int) -> list[Row]:
    """What the venue says against a symbol, then how the newest gaps ended. What does not fit is seen to be cut."""
    said = [(name, symbol.subscription_note, "alert-warning") for name, symbol in symbols if symbol.subscription_note]
    said += [(name, symbol.gap_note, "muted") for name, symbol in symbols if symbol.gap_note]
    rows: list[Row] = []
    for name, text, token in said:
        lines = wrap(f"{clean(name)}: {clean(text)}", width, min(2, room - len(rows))) if len(rows) < room else []
        rows += [row((line, token)) for line in lines]
    return rows


def _open_gaps(symbols: list[tuple[str, SymbolSnapshot]], width: int) -> list[Row]:
    rows = []
    for name, symbol in symbols:
        for gap in symbol.open_gaps:
            ids = f"{clean(name)} {gap.first_id} to {gap.last_id}"
            since: list[Span] = [("since ", "muted"), (wall_clock(gap.since), "text")] if gap.since else []
            rows.append(fitted(width, [(ids, "alert-warning")], since, [(clean(gap.cause), "text")]))
        if symbol.gaps > len(symbol.open_gaps) > 0:
            rows.append(row((f"and {count(symbol.gaps - len(symbol.open_gaps))} gaps more", "muted")))
    return rows


def _store_row(store: StoreSnapshot, width: int) -> Row:
    queued: list[Span] = [("queued ", "muted"), (count(store.queued), "text"), (" trades", "muted")]
    if store.paused:
        queued = [(f"disk behind, {count(store.queued)} queued: reading slower", "alert-warning")]
    return fitted(width, [("store ", "muted"), (size(store.size_bytes), "text")], queued)
