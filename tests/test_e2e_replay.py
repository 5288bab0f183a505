"""A recorded market played through the whole program: real TLS, real SQLite, real fp16, and every trade of the file counted."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import time
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from e2e_support import LINUX_ONLY, PROGRAM, Stage, stage

from quantai_tui.market.reader import StoreReader

__all__ = ["stage"]  # a fixture

pytestmark = LINUX_ONLY

SYMBOL = "XRPETH"
INTERVALS_S = (1, 60, 300, 900, 3600)
NUMBER = (int, float)

# DESIGN section 5, 'What --headless --json prints': name -> its types; null is allowed where None stands.
SHAPE: dict[str, Any] = {
    "version": int,
    "time": NUMBER,
    "mode": str,
    "stream": {
        "state": str,
        "uptime_s": NUMBER,
        "rtt_ms": {"last": (*NUMBER, None), "p50": (*NUMBER, None), "p95": (*NUMBER, None)},
        "attempt": int,
        "max_attempts": int,
        "backoff_remaining_s": NUMBER,
        "messages_per_s": (*NUMBER, None),
        "reconnects": int,
        "last_error": (dict, None),
        "symbols": {
            SYMBOL: {
                "last_id": (int, None),
                "complete_through_id": (int, None),
                "stored": int,
                "missing": int,
                "repaired": int,
                "duplicates": int,
            }
        },
    },
    "training": {
        "state": str,
        "device": (str, None),
        "epoch": (int, None),
        "step": (int, None),
        "loss": (*NUMBER, None),
        "scale": (*NUMBER, None),
        "overflow_count": (int, None),
        "overflow_rate": (*NUMBER, None),
        "consecutive_overflow": (int, None),
        "resets": (int, None),
        "samples_per_s": (*NUMBER, None),
        "accuracy": (*NUMBER, None),
        "baseline_accuracy": (*NUMBER, None),
    },
    "alerts": list,
}


class Row(NamedTuple):
    """One line of the file."""

    id: int
    price: str
    quantity: str
    time_us: int
    buyer_is_maker: bool


class Ohlc(NamedTuple):
    open_time_us: int
    open: str
    high: Decimal
    low: Decimal
    close: str
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    trades: int


def rows_of(file: Path) -> list[Row]:
    with gzip.open(file, "rt") as lines:
        fields = [line.strip().split(",") for line in lines]
    return [Row(int(f[0]), f[1], f[2], int(f[5]) * 1000, f[6] == "True") for f in fields]


def bars_straight_from(rows: list[Row], interval_s: int) -> list[Ohlc]:
    """Bars as one would write them down by hand, only for intervals with a trade."""
    width_us = interval_s * 1_000_000
    bars = []
    for number, group in groupby(rows, key=lambda row: row.time_us // width_us):
        inside = list(group)
        prices = [Decimal(row.price) for row in inside]
        amounts = [Decimal(row.quantity) for row in inside]
        bars.append(
            Ohlc(
                number * width_us,
                inside[0].price,
                max(prices),
                min(prices),
                inside[-1].price,
                sum(amounts, Decimal()),
                sum((price * amount for price, amount in zip(prices, amounts, strict=True)), Decimal()),
                sum((Decimal(row.quantity) for row in inside if not row.buyer_is_maker), Decimal()),
                len(inside),
            )
        )
    return bars


def made_dense(bars: list[Ohlc], interval_s: int) -> list[Ohlc]:
    """The whole bars of a tape: without its first and last interval, which it may not cover; silence carries the last close."""
    width_us = interval_s * 1_000_000
    by_time = {bar.open_time_us: bar for bar in bars}
    dense = []
    close = bars[0].close
    for time_us in range(bars[0].open_time_us + width_us, bars[-1].open_time_us, width_us):
        nothing = Decimal()
        quiet = Ohlc(time_us, close, Decimal(close), Decimal(close), close, nothing, nothing, nothing, 0)
        dense.append(by_time.get(time_us, quiet))
        close = dense[-1].close
    return dense


def stored_bars(store: Path, interval_s: int) -> list[Ohlc]:
    with sqlite3.connect(f"{store.as_uri()}?mode=ro&immutable=1", uri=True) as connection:
        found = connection.execute(
            "SELECT open_time_us, open, high, low, close, volume, quote_volume, buy_volume, trades FROM bars "
            "WHERE symbol = ? AND interval_s = ? ORDER BY open_time_us",
            (SYMBOL, interval_s),
        ).fetchall()
    connection.close()
    return [
        Ohlc(at, open, Decimal(high), Decimal(low), close, Decimal(volume), Decimal(quote), Decimal(buy), trades)
        for at, open, high, low, close, volume, quote, buy, trades in found
    ]


def stored_trades(store: Path) -> list[Row]:
    with sqlite3.connect(f"{store.as_uri()}?mode=ro&immutable=1", uri=True) as connection:
        found = connection.execute(
            "SELECT id, price, quantity, time_us, buyer_is_maker FROM trades WHERE symbol = ? ORDER BY id", (SYMBOL,)
        ).fetchall()
    connection.close()
    return [Row(id, price, quantity, time_us, bool(maker)) for id, price, quantity, time_us, maker in found]


def misfits(shape: Any, value: Any, path: str = "") -> list[str]:
    """What in a JSON value does not have the shape, each with its path."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{path} is {value!r}, not an object"]
        gone = [f"{path}.{name} is not there" for name in shape if name not in value]
        return gone + [fault for name in shape if name in value for fault in misfits(shape[name], value[name], f"{path}.{name}")]
    allowed = shape if isinstance(shape, tuple) else (shape,)
    fits = (value is None and None in allowed) or isinstance(value, tuple(kind for kind in allowed if kind is not None))
    return [] if fits and not (isinstance(value, bool) and bool not in allowed) else [f"{path} is {value!r}"]


@pytest.mark.processes
@pytest.mark.timeout(150)
def test_a_headless_replay_stores_every_trade_of_the_file_trains_on_it_and_leaves_nothing_behind(
    stage: Stage, xrpeth: Path
) -> None:
    begun = time.monotonic()
    first = stage.run("replay", str(xrpeth), "--headless", "--json", within=90)
    took = time.monotonic() - begun

    assert (first.returncode, first.stderr) == (0, "")
    assert took < 50
    stage.assert_nothing_left()
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [fault for line in lines for fault in misfits(SHAPE, line)] == []
    assert all(line["mode"] == "replay" for line in lines)
    assert [line["finished"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert all((line["training"]["scale"] or 0) <= 100_000 for line in lines)
    last = lines[-1]
    assert last["training"]["epochs_done"] >= 1
    assert last["training"]["device"] == "cpu"
    assert 0 <= last["training"]["accuracy"] <= 1
    assert 0 <= last["training"]["baseline_accuracy"] <= 1
    symbol = last["stream"]["symbols"][SYMBOL]
    assert (symbol["last_id"], symbol["complete_through_id"], symbol["missing"]) == (13_532_283, 13_532_283, 0)
    assert symbol["stored"] == 12_477

    rows = rows_of(xrpeth)
    (name,) = [path.name for path in stage.folder("").iterdir()]
    store = stage.store(name)
    assert [row.id for row in rows] == list(range(13_519_807, 13_532_284))
    assert stored_trades(store) == rows
    reader = StoreReader(store)
    for interval_s in INTERVALS_S:
        expected = bars_straight_from(rows, interval_s)
        assert stored_bars(store, interval_s) == expected, f"bars of {interval_s} s"
        dense = [
            Ohlc(
                bar.open_time_us,
                bar.open,
                Decimal(bar.high),
                Decimal(bar.low),
                bar.close,
                Decimal(bar.volume),
                Decimal(bar.quote_volume),
                Decimal(bar.buy_volume),
                bar.trades,
            )
            for bar in reader.bars(SYMBOL, interval_s)
        ]
        assert dense == made_dense(expected, interval_s), f"dense bars of {interval_s} s"
    reader.close()

    begun = time.monotonic()
    again = stage.run("replay", str(xrpeth), "--headless", "--json", within=60)
    assert (again.returncode, again.stderr) == (0, "")
    assert time.monotonic() - begun < 40
    assert json.loads(again.stdout.splitlines()[-1])["finished"] is True
    assert stored_trades(store) == rows
    assert all(stored_bars(store, interval_s) == bars_straight_from(rows, interval_s) for interval_s in INTERVALS_S)
    stage.assert_nothing_left()


def test_a_headless_demo_ends_when_its_time_is_up(stage: Stage) -> None:
    done = stage.run("demo", "--headless", "--json", "--for", "6", "--set", "TRAIN_AUTOSTART=false")

    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["stream"]["state"] == "live"
    assert lines[-1]["training"]["state"] == "idle"
    ids = stage.stored_ids("demo-7")
    assert ids == list(range(ids[0], ids[-1] + 1))
    stage.assert_nothing_left()


def test_a_headless_run_whose_reader_leaves_ends_quietly(stage: Stage) -> None:
    command = (*PROGRAM, "demo", "--headless", "--set", "TRAIN_AUTOSTART=false")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"ETHUSDT" in process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
    stage.assert_nothing_left()
