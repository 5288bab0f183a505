"""The benchmarks' own arithmetic. What they measure is for whoever runs them: nothing here looks at a clock."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path

import pytest
from bench.__main__ import BENCHMARKS, parse
from bench.report import Row, interleaved, number, percentile, table
from bench.terminal import printable
from bench.venue import FIRST_ID, SYMBOL, frames

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import decode_frame


def test_without_names_all_benchmarks_are_run() -> None:
    assert parse([]).names == list(BENCHMARKS)


def test_named_benchmarks_are_run_in_their_own_order() -> None:
    asked = parse(["stream", "first-frame", "--quick", "--json"])
    assert asked.names == ["first-frame", "stream"]
    assert asked.quick
    assert asked.as_json


def test_an_unknown_name_is_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["stram"])
    said = capsys.readouterr().err
    assert "'stram'" in said
    assert "key-to-paint" in said


def test_archives_come_from_the_command_line_or_the_environment_and_must_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.touch()
    other.touch()
    monkeypatch.setenv("QUANTAI_BENCH_ARCHIVES", f"{one}{os.pathsep}{other}")
    assert parse(["learning"]).archives == [one, other]
    assert parse(["learning", "--archive", str(other)]).archives == [other]
    monkeypatch.delenv("QUANTAI_BENCH_ARCHIVES")
    assert parse(["learning"]).archives == []
    with pytest.raises(SystemExit):
        parse(["learning", "--archive", str(tmp_path / "none.csv")])
    assert "there is no archive" in capsys.readouterr().err


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7.0


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_a_percentile_of_nothing_or_outside_its_range_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_interleaved_rounds_alternate_their_order_and_drop_the_first_round() -> None:
    order: list[str] = []

    def subject(name: str) -> float:
        order.append(name)
        return float(len(order))

    results = interleaved(2, {"a": lambda: subject("a"), "b": lambda: subject("b")})
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert results == {"a": [3.0, 6.0], "b": [4.0, 5.0]}


def test_a_bound_is_met_on_the_value_or_on_the_ratio() -> None:
    assert Row("b", "w", "us", 12.0, bare=10.0, bound=1.25, bound_on="ratio").met is True
    assert Row("b", "w", "us", 13.0, bare=10.0, bound=1.25, bound_on="ratio").met is False
    assert Row("b", "w", "B/s", 2000.0, bare=0.0, bound=2000.0).met is True
    assert Row("b", "w", "B/s", 2000.1, bare=0.0, bound=2000.0).met is False


def test_without_a_bound_or_a_bare_value_nothing_is_met_or_missed() -> None:
    assert Row("b", "w", "us", 12.0, bare=10.0).met is None
    lone = Row("b", "w", "us", 12.0, bound=1.25, bound_on="ratio")
    assert lone.ratio is None
    assert lone.met is None


def test_the_table_has_a_line_for_each_row_with_its_note_below() -> None:
    rows = [Row("bytes", "80x24", "B/s", 1234.5, 0.0, 1000.0, note="a note"), Row("stream", "x", "us", 1.0, 2.0, 0.9, "ratio")]
    lines = table(rows).splitlines()
    assert lines[2].split() == ["bytes", "80x24", "1,234", "B/s", "0", "B/s", "-", "1,000", "B/s", "NO"]
    assert lines[3].strip() == "a note"
    assert lines[4].split() == ["stream", "x", "1", "us", "2", "us", "0.500x", "0.9x", "yes"]


def test_rows_survive_json_with_what_follows_from_them() -> None:
    row = json.loads(json.dumps(Row("b", "w", "us", 12.0, bare=10.0, bound=1.25, bound_on="ratio").as_dict()))
    assert row["ratio"] == 1.2
    assert row["met"] is True


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (0.01234, "0.0123"), (999.4, "999"), (12345.6, "12,346")])
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_only_cells_that_show_something_count_as_painted() -> None:
    output = b"\x1b[?2026h\x1b[1;1H\x1b[38;2;10;20;30mab c\x1b[0m\r\n \xe2\x94\x80\x1b]0;title\x07"
    assert printable(output) == 4


def test_the_venue_sends_trades_that_the_stream_understands_without_a_hole() -> None:
    for count, frame in enumerate(islice(frames(), 100)):
        assert frame[0] == 0x81  # a whole text frame
        trade = decode_frame(frame[4:])
        assert isinstance(trade, AggTrade)
        assert (trade.id, trade.symbol) == (FIRST_ID + count, SYMBOL)
