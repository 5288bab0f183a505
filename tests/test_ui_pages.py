"""The panes' pages: what a pane shows when it has the screen, and that is everything."""

from __future__ import annotations

import re

import pytest
from ui_stories import STORIES, failed_snapshot, operator_paused_snapshot, overflow_storm_snapshot, repairing_snapshot
from ui_support import NOW, backoff_snapshot, engine_snapshot, stream_snapshot, training_snapshot

from quantai_tui.link.base import LinkState
from quantai_tui.telemetry import EngineSnapshot
from quantai_tui.ui.cells import flow, table
from quantai_tui.ui.panes import PANES
from quantai_tui.ui.panes.charts import TRADES, chart_page
from quantai_tui.ui.view import Chart, View

PAGES = {spec.id: spec.page for spec in PANES if spec.page is not None}
DRAWN = {spec.id: spec.draw for spec in PANES}


class Fixed(View, frozen=True):
    """A view of one chart."""

    one: Chart = Chart()

    def chart(self, name: str) -> Chart:
        return self.one


def page(pane: str, snapshot: EngineSnapshot, width: int = 116, height: int = 34) -> list[str]:
    return [line.text for line in PAGES[pane](View(snapshot, LinkState.ATTACHED, now=NOW), width, height)]


def essentials(pane: str, snapshot: EngineSnapshot, width: int, height: int) -> str:
    return "\n".join(line.text for line in DRAWN[pane](View(snapshot, LinkState.ATTACHED, now=NOW), width, height))


@pytest.mark.parametrize("pane", ["heartbeat", "market", "training", "scale", "overflow"])
def test_a_zoomed_chart_has_a_value_axis_a_time_axis_and_its_range_in_words(pane: str) -> None:
    lines = page(pane, engine_snapshot())
    labelled = [line for line in lines if "┤" in line]
    assert 3 <= len(labelled) <= 5
    assert all(line.split("┤")[0].strip() for line in labelled)
    assert any(line.count("╵23:5") >= 3 for line in lines)
    assert any("from 23:58:0" in line and "a column is" in line for line in lines)


def test_the_time_cursor_is_on_the_axis_of_a_zoomed_chart_and_in_its_words() -> None:
    for ago in (0.0, 45.0, 119.0):
        chart = Chart(tuple(float(i) for i in range(120)), 1.0, NOW, NOW - ago)
        lines = [line.text for line in chart_page(Fixed(None, LinkState.ATTACHED, one=chart), TRADES, 80, 10)]
        column = lines[-2].index("│", 11)
        assert all(line[column] == "│" for line in lines[-9:-1])
        at = re.search(r"│ (\d\d:\d\d:\d\d)  (\d+)", " ".join(lines[:-9]))
        assert at is not None
        assert f"│{at[1]}" in lines[-1]
        assert abs(float(at[2]) - (119 - ago)) <= 2


def test_the_connection_page_tells_of_every_symbol() -> None:
    lines = page("connection", repairing_snapshot())
    head = next(line for line in lines if line.startswith("symbol "))
    assert head.split() == ["symbol", "price", "trades", "last", "subscription"]
    assert [line.split()[0] for line in lines[lines.index(head) + 1 :]] == ["ETHUSDT", "BTCUSDT"]
    assert "repairing 1,325 ids" in lines[0]


def test_the_heartbeat_page_tells_how_round_trips_are_spread() -> None:
    said = "\n".join(page("heartbeat", engine_snapshot()))
    assert "p90" in said
    assert "p99" in said
    assert "20 to 50 ms" in said
    assert "no ping answered yet" in "\n".join(page("heartbeat", EngineSnapshot(time=NOW)))


def test_the_backoff_page_tells_the_waits_to_come_and_what_follows_them() -> None:
    said = "\n".join(page("backoff", backoff_snapshot()))
    assert "3: 4 s  4: 8 s  5: 16 s  6: 32 s  7: 1m 00s" in said
    assert "together 5m 00s, then single probes" in said
    assert "other hosts answer, this one refuses." in said
    assert "single probes" not in "\n".join(page("backoff", failed_snapshot()))


def test_the_market_page_counts_everything_and_lists_the_gaps() -> None:
    said = "\n".join(page("market", repairing_snapshot()))
    assert "missing 1,325" in said
    assert "lost for good 0" in said
    assert "ETHUSDT 1823121412 to 1823122731  since 23:59:46  connection reset by peer" in said


def test_the_scale_page_lists_every_fall() -> None:
    lines = page("scale", engine_snapshot())
    head = next(index for index, line in enumerate(lines) if line.startswith("fell at"))
    assert lines[head + 1].split() == ["00:00:00", "67,948", "16,384", "1/4.15"]
    assert any(line.startswith("  cap 100k┤") for line in lines)
    assert any(line.startswith("   floor 1┤") for line in lines)


def test_the_reconnects_page_has_the_statistics_and_every_entry() -> None:
    lines = page("reconnects", failed_snapshot())
    said = "\n".join(lines)
    assert "0 % of attempts ok" in said
    assert "errors    ssl error 10" in said
    assert "of dials 91 %" in said
    assert len([line for line in lines if "✗ failed" in line]) == 10


def test_an_overflow_storm_is_a_word_and_the_scale_at_its_floor_too() -> None:
    storm = overflow_storm_snapshot()
    assert "34.0 % of steps  9 in a row  STORM" in essentials("overflow", storm, 60, 8)
    assert "1  <1 % of cap 100,000  AT THE FLOOR" in essentials("scale", storm, 60, 8)
    assert "34.0 % of steps  STORM" in essentials("overflow", storm, 26, 4)
    assert "STORM" not in essentials("overflow", engine_snapshot(), 60, 8)


@pytest.mark.parametrize(
    ("left", "said"), [(13.2, "    14 s left"), (125.0, "   2 min left"), (86_400.0, "    24 h left"), (None, "╌")]
)
def test_the_epoch_has_a_bar_and_the_time_that_is_left(left: float | None, said: str) -> None:
    text = essentials("training", engine_snapshot(training=training_snapshot(epoch_eta_s=left)), 60, 8)
    line = text.splitlines()[1]
    assert line.startswith("epoch 12  step   340/1,000  ━━")
    assert line.endswith(said)


def test_without_room_for_words_the_bar_and_the_time_are_still_there() -> None:
    assert essentials("training", engine_snapshot(), 38, 5).splitlines()[1] == "epoch 12    340/1,000  ━━╌╌╌╌╌    14 s"
    assert essentials("training", engine_snapshot(), 28, 4).splitlines()[1] == "epoch 12  340/1,000  ━━╌╌╌╌╌"
    assert "left" not in essentials("training", operator_paused_snapshot(), 60, 8)


def test_what_changes_each_second_leaves_what_follows_in_its_place() -> None:
    for pane, size, changes in (
        ("connection", (54, 6), ({"messages_per_s": 8.4, "last_message_age_s": 0.1}, {"messages_per_s": 81_212.0})),
        ("connection", (38, 3), ({"last_message_age_s": 0.1}, {"last_message_age_s": 14.0})),
    ):
        lines = [essentials(pane, engine_snapshot(stream=stream_snapshot(**change)), *size) for change in changes]
        assert len({text.index("last ") for text in lines}) == 1
    steps = [training_snapshot(epoch_step=step, epoch_eta_s=eta) for step, eta in ((3, 59.0), (340, 13.0), (1_000, 0.0))]
    bars = [essentials("training", engine_snapshot(training=step), 60, 8).splitlines()[1] for step in steps]
    assert len({len(line) for line in bars}) == 1
    assert len({min(line.index(char) for char in "━╌" if char in line) for line in bars}) == 1


@pytest.mark.parametrize("story", STORIES)
def test_a_page_is_the_same_whatever_part_of_it_is_in_sight(story: str) -> None:
    """Its height chooses the height of its chart alone: nothing is left out of it on a low screen."""
    for name in ("connection", "backoff", "reconnects"):
        assert page(name, STORIES[story](), 76, 18) == page(name, STORIES[story](), 76, 44)


def test_groups_flow_over_rows_and_none_is_left_out() -> None:
    groups = [[("abc", "text")], [("defg", "text")], [], [("hi", "text")]]
    assert [line.text for line in flow(10, *groups)] == ["abc  defg", "hi"]
    assert [line.text for line in flow(16, *groups, label="x")] == ["x         abc", "          defg", "          hi"]


def test_a_table_leaves_out_whole_columns_and_cuts_text_alone() -> None:
    lines = [[("ab", "text"), ("1,234", "text"), ("some words here", "text")], [("c", "text"), ("5", "text"), ("x", "text")]]
    heads = ["name", ">number", "what"]
    assert [line.text for line in table(40, heads, lines)] == [
        "name  number  what",
        "ab     1,234  some words here",
        "c          5  x",
    ]
    assert [line.text for line in table(23, heads, lines)][1] == "ab     1,234  some wor…"
    assert [line.text for line in table(15, heads, lines)][1] == "ab     1,234"
    assert [line.text for line in table(8, heads, lines)][1] == "ab  "
