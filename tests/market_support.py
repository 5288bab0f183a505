"""Trades to order, and a second opinion on bars that shares no code with the first."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from quantai_tui.market import INTERVALS, AggTrade, Bar, TradeStore
from quantai_tui.market.schema import open_for_reading
from quantai_tui.market.writer import LedgerWriter

SYMBOL = "XRPETH"
# Text that `float`, `int` or `Decimal` accept, and Binance never writes as a price, a quantity or an id.
NO_NUMBERS = (
    *(
        "",
        " ",
        "1_0",
        "1_000.5",
        " 1",
        "1 ",
        "\t1",
        "1\n",
        "1.5\r",
        "+1",
        "-0",
        "-0.0",
        "-1",
        "1e5",
        "1E5",
        "1e-5",
        ".5",
        "5.",
        ".",
    ),
    *(
        "inf",
        "Infinity",
        "nan",
        "NaN",
        "0x10",
        "1,5",
        "1.2.3",
        "1 2",
        "\uff11\uff12",
        "1.\u0665",
        "\u00b2",
        "1\u00a0",
        "\u22121",
        "1\x00",
    ),
    "1" * 1000,
)
EPOCH_MS = 1_570_752_000_000  # 2019-10-11 00:00 UTC, a whole hour


def trade(
    id: int, ms: int = 0, price: str = "2.50000000", quantity: str = "1.00000000", maker: bool = False, symbol: str = SYMBOL
) -> AggTrade:
    """A trade `ms` milliseconds after EPOCH_MS."""
    return AggTrade(id, price, quantity, id * 2, id * 2 + 1, EPOCH_MS + ms, maker, symbol)


def walk(count: int, first_id: int = 1, step_ms: int = 700, seed: int = 7, start_ms: int = 0) -> list[AggTrade]:
    """Consecutive trades of a price that walks at random; times never fall, and seconds without a trade occur."""
    rng = random.Random(seed)
    price, ms = 141_342, start_ms
    trades = []
    for id in range(first_id, first_id + count):
        price = max(1, price + rng.randrange(-40, 41))
        ms += rng.randrange(0, 2 * step_ms)
        quantity = f"{rng.randrange(1, 10**7)}.{rng.randrange(10**8):08d}"
        trades.append(trade(id, ms, f"{price / 10**8:.8f}", quantity, rng.random() < 0.5))
    return trades


class Plain(NamedTuple):
    """A bar with its sums as fractions."""

    open_time_us: int
    open: str
    high: str
    low: str
    close: str
    volume: Fraction
    quote_volume: Fraction
    buy_volume: Fraction
    trades: int


def plain_bars(trades: Iterable[AggTrade], interval_s: int) -> list[Plain]:
    """The bars that have a trade, worked out the long way from all trades of each interval."""
    width_us = interval_s * 1_000_000
    groups: dict[int, list[AggTrade]] = defaultdict(list)
    for one in sorted(trades, key=lambda t: t.id):
        groups[one.time_us // width_us * width_us].append(one)
    return [
        Plain(
            opened,
            group[0].price,
            max((t.price for t in group), key=Decimal),
            min((t.price for t in group), key=Decimal),
            group[-1].price,
            sum((Fraction(t.quantity) for t in group), Fraction(0)),
            sum((Fraction(t.price) * Fraction(t.quantity) for t in group), Fraction(0)),
            sum((Fraction(t.quantity) for t in group if not t.buyer_is_maker), Fraction(0)),
            len(group),
        )
        for opened, group in sorted(groups.items())
    ]


def plain(bar: Bar) -> Plain:
    return Plain(
        bar.open_time_us,
        bar.open,
        bar.high,
        bar.low,
        bar.close,
        Fraction(bar.volume),
        Fraction(bar.quote_volume),
        Fraction(bar.buy_volume),
        bar.trades,
    )


def dump(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All that a store holds."""
    connection = open_for_reading(path)
    try:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in ("trades", "bars", "klines", "gaps", "symbols")
        }
    finally:
        connection.close()


def kline(open_ms: int, interval_s: int = 60, price: str = "9.00000000", volume: str = "5.00000000") -> Bar:
    return Bar((EPOCH_MS + open_ms) * 1000, interval_s, price, price, price, price, volume, volume, volume, 3, from_trades=False)


@asynccontextmanager
async def opened(path: Path, **options: int) -> AsyncIterator[TradeStore]:
    store = await TradeStore.open(path, **options)
    try:
        yield store
    finally:
        await store.close()


def write_batches(path: Path, batches: Sequence[Sequence[AggTrade]], begin: int | None = None) -> None:
    writer = LedgerWriter(path)
    if begin is not None:
        writer.begin()
        writer.begin_ledger(SYMBOL, begin, EPOCH_MS * 1000)
        writer.commit()
    for batch in batches:
        writer.begin()
        writer.append(SYMBOL, batch)
        writer.commit()
    writer.close()


def assert_bars_are_those_of_the_trades(path: Path) -> None:
    tables = dump(path)
    trades = [AggTrade(*row[1:7], bool(row[7]), row[0]) for row in tables["trades"]]  # type: ignore[arg-type]
    for interval_s in INTERVALS.values():
        stored = [row[2:11] for row in tables["bars"] if row[1] == interval_s]
        expected = plain_bars(trades, interval_s)
        assert [row[:5] for row in stored] == [bar[:5] for bar in expected]
        assert [row[8] for row in stored] == [bar.trades for bar in expected]
    (symbol,) = tables["symbols"]
    assert symbol[8] == len(trades)
