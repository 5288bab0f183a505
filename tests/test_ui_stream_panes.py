"""The panes of the stream: what stands there for a ban, a rotation, a certificate, a bad frame, a gap, a recording."""

from __future__ import annotations

import pytest
from ui_support import NOW, engine_snapshot, stream_snapshot

from quantai_tui.link.base import LinkState
from quantai_tui.market.trades import AggTrade
from quantai_tui.stream.quarantine import Quarantine, content_of
from quantai_tui.telemetry import (
    BadFrame,
    GapSnapshot,
    RecordingSnapshot,
    RttSnapshot,
    StateChangeSnapshot,
    StreamState,
    SymbolSnapshot,
)
from quantai_tui.ui import format as fmt
from quantai_tui.ui.panes import PANES
from quantai_tui.ui.view import View

DRAWN = {spec.id: spec.draw for spec in PANES}
PAGES = {spec.id: spec.page for spec in PANES if spec.page is not None}
NARROW = (38, 3)
BOX = (54, 5)
BIG = (76, 18)


def drawn(pane: str, size: tuple[int, int], **stream: object) -> str:
    view = View(engine_snapshot(stream=stream_snapshot(**stream)), LinkState.ATTACHED, now=NOW)
    rows = DRAWN[pane](view, *size)
    assert len(rows) <= size[1]
    assert all(len(line.text) <= size[0] for line in rows)
    return "\n".join(line.text for line in rows)


def page(pane: str, width: int = 76, **stream: object) -> str:
    """What the pane shows zoomed, to its end."""
    view = View(engine_snapshot(stream=stream_snapshot(**stream)), LinkState.ATTACHED, now=NOW)
    rows = PAGES[pane](view, width, 18)
    assert all(len(line.text) <= width for line in rows)
    return "\n".join(line.text for line in rows)


def tokens(pane: str, size: tuple[int, int], words: str, **stream: object) -> set[str]:
    view = View(engine_snapshot(stream=stream_snapshot(**stream)), LinkState.ATTACHED, now=NOW)
    return {token for line in DRAWN[pane](view, *size) for text, token in line.spans if words in text}


LINK = {
    "transport": "picows",
    "tls_cipher": "TLS_AES_256_GCM_SHA384",
    "certificate_days": 89.7,
    "rotates_in_s": 84_000.0,
    "rotations": 2,
    "endpoint": "wss://127.0.0.1:40037",
}


def test_the_connection_shows_transport_cipher_certificate_and_when_it_rotates() -> None:
    text = drawn("connection", BOX, **LINK)
    assert "tls       TLSv1.3  certificate 89 days" in text
    assert "transport picows  rotates in 23 h  2 rotated" in text
    assert "TLS_AES_256_GCM_SHA384" in drawn("connection", BIG, **LINK)
    assert "TLSv1.3  picows" in drawn("connection", NARROW, **LINK)


def test_nothing_that_is_new_on_a_small_screen_changes_every_second() -> None:
    later = {**LINK, "certificate_days": 89.69, "rotates_in_s": 83_990.0, "dials_left": 280, "rest_weight": 7, "loop_lag_ms": 3.0}
    for pane in ("connection", "backoff", "heartbeat"):
        assert drawn(pane, NARROW, **LINK) == drawn(pane, NARROW, **later)


@pytest.mark.parametrize(
    ("days", "words", "token"),
    [
        (13.9, "certificate 13 days", "alert-warning"),
        (1.5, "certificate 1 day", "alert-warning"),
        (-1.0, "expired", "alert-critical"),
    ],
)
def test_a_certificate_that_soon_expires_is_marked_on_every_screen(days: float, words: str, token: str) -> None:
    for size in (NARROW, BOX):
        assert tokens("connection", size, words, certificate_days=days) == {token}


def test_the_second_connection_is_followed_while_there_is_one() -> None:
    under_way = {**LINK, "state": StreamState.ROTATING, "successor": "second connection: websocket upgrade", "cause": "asked for"}
    assert "second connection: websocket upgrade" in drawn("connection", NARROW, **under_way)
    assert "rotating: second connection: websocket" in drawn("connection", (58, 6), **under_way)
    suspected = {**under_way, "state": StreamState.STALLED}
    assert "asking: second connection" in drawn("connection", (58, 6), **suspected)


@pytest.mark.parametrize("size", [NARROW, BOX])
def test_bad_frames_and_a_recording_are_named_only_when_there_are_any(size: tuple[int, int]) -> None:
    quiet = drawn("connection", size)
    assert "bad" not in quiet
    assert "rec" not in quiet
    on = RecordingSnapshot("/data/a.qrec", 3_200_000, 256_000_000, 9, 9.0)
    text = drawn("connection", size, bad_frames=3, recording=on)
    assert "3 bad" in text
    assert "● rec" in text


def test_zoomed_the_connection_tells_its_history_and_what_was_not_understood() -> None:
    changes = tuple(StateChangeSnapshot(NOW - 60 + i, StreamState.LIVE, f"cause {i}") for i in range(12))
    bad = (BadFrame(NOW - 5, "no JSON", "{oops\x1b[2J (7 bytes)"), BadFrame(NOW - 2, "no such event", "{} (2 bytes)"))
    text = page("connection", changes=changes, quarantine=bad, bad_frames=2, tls_issuer="Some CA")
    assert "issuer    Some CA" in text
    assert "23:59:11  ● live          cause 11" in text
    assert text.index("cause 11") < text.index("cause 10")  # newest first
    assert "not understood: 2" in text
    assert "23:59:58  no such event: {} (2 bytes)" in text
    assert "23:59:55  no JSON: {oops[2J (7 bytes)" in text


@pytest.mark.parametrize("size", [NARROW, BOX, BIG])
def test_a_ban_is_a_countdown_with_its_reason_and_the_dials_that_are_left(size: tuple[int, int]) -> None:
    banned = {
        "state": StreamState.BACKOFF,
        "banned_for_s": 244.2,
        "ban_reason": "HTTP 418: banned by the venue",
        "dials_left": 288,
    }
    text = drawn("backoff", size, **banned)
    assert "✗ BANNED  for 4m 05s" in text
    assert "HTTP 418" in text
    assert "Asking before would make it longer." in text
    assert "288 dials left" in text
    assert "Data goes on; dials and repair wait." in drawn("backoff", size, **{**banned, "state": StreamState.LIVE})


@pytest.mark.parametrize("state", [StreamState.LIVE, StreamState.BACKOFF, StreamState.CONNECTING, StreamState.FAILED])
def test_dials_are_counted_when_they_become_few(state: StreamState) -> None:
    wait = {"backoff_remaining_s": 1.0, "backoff_total_s": 2.0}
    assert "dials left" not in drawn("backoff", BOX, state=state, dials_left=50, **wait)
    assert "49 dials left" in drawn("backoff", BOX, state=state, dials_left=49, **wait)


def test_the_attempt_that_is_waited_for_is_the_one_that_is_then_dialled() -> None:
    assert "attempt 1 of 10" in drawn("backoff", BOX, state=StreamState.BACKOFF, attempt=0)
    assert "attempt 1 of 10  dialling" in drawn("backoff", BOX, state=StreamState.CONNECTING, attempt=1)
    assert "single probes" in drawn("backoff", BOX, state=StreamState.COOLING_DOWN, attempt=10)


def test_while_a_connection_is_replaced_old_trouble_is_not_shown_as_new() -> None:
    assert "last trouble" in drawn("backoff", NARROW, state=StreamState.ROTATING)


def test_zoomed_the_backoff_shows_the_budget_the_errors_and_the_last_reconnects() -> None:
    text = page("backoff", dials_left=297, error_counts={"network_error": 2, "ssl_error": 1})
    assert "297 dials left for these 5 minutes" in text
    assert "network error 2  ssl error 1" in text
    assert "Connection reset" in text


def test_how_far_this_machine_is_behind_is_shown_apart_from_the_round_trip() -> None:
    lags = {"consumer_lag_ms": 84.6, "loop_lag_ms": 3.2, "rest_weight": 12}
    assert "store lag  85 ms  loop lag   3 ms  rest weight 12/min" in drawn("heartbeat", BOX, **lags)
    assert "reading paused 7 s" in drawn("heartbeat", BOX, paused_s=7.0, **lags)


def market(size: tuple[int, int], **symbol: object) -> str:
    known = {"last_id": 132, "complete_through_id": 100, "price": "96512.31", "trades_per_s": 18.2}
    return drawn("market", size, repairing=True, symbols={"ETHUSDT": SymbolSnapshot(**{**known, **symbol})})


def test_a_symbol_that_is_not_served_says_so_and_why() -> None:
    note = "acknowledged and silent, although the venue trades it: the symbol or the address is wrong"
    assert market((38, 4), subscription="silent", subscription_note=note).splitlines()[0].endswith("  silent")
    assert "ETHUSDT: acknowledged and silent" in market((58, 8), subscription="silent", subscription_note=note)
    assert "refused" in market((38, 4), subscription="refused").splitlines()[0]


def test_on_a_narrow_screen_what_is_missing_is_told_in_fewer_words_and_never_left_out() -> None:
    assert market((58, 4), missing=1_320).splitlines()[0].endswith("missing 1,320, repairing")
    assert market((38, 4), missing=1_320).splitlines()[0].endswith("missing 1,320")


def test_open_gaps_are_listed_with_cause_and_since_where_there_is_room() -> None:
    gaps = (GapSnapshot(101, 120, "pong timeout", NOW - 61), GapSnapshot(125, 130, "no cause on record", 0.0))
    text = market(BIG, missing=26, gaps=9, open_gaps=gaps)
    assert "ETHUSDT 101 to 120  since 23:58:59  pong timeout" in text
    assert "ETHUSDT 125 to 130  no cause on record" in text
    assert "and 7 gaps more" in text
    assert "101 to 120" not in market((38, 4), missing=26, gaps=9, open_gaps=gaps)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (fmt.rough(84_599), "23 h"),
        (fmt.rough(7_200), "2 h"),
        (fmt.rough(7_199), "119 min"),
        (fmt.rough(59), "<1 min"),
        (fmt.whole_days(1.9), "1 day"),
        (fmt.whole_days(0.9), "0 days"),
        (fmt.whole_days(89.7), "89 days"),
    ],
)
def test_what_is_far_off_is_told_roughly(said: str, expected: str) -> None:
    assert said == expected


def test_a_link_without_numbers_yet_shows_no_zeros() -> None:
    text = drawn("heartbeat", BOX, rtt_ms=RttSnapshot())
    assert "store lag   – ms  loop lag   – ms" in text  # noqa: RUF001


@pytest.mark.parametrize("width", [78, 118])
def test_zoomed_the_connection_shows_both_contents_of_a_conflict(width: int) -> None:
    quarantine = Quarantine()
    kept, again = (
        AggTrade(1100, price, "1.25000000", 5_100, 5_101, 1_717_200_000_000, True, "ETHUSDT") for price in ("3000", "1")
    )
    quarantine.add_trade(again, f"another content than the stored one, {content_of(kept)}")
    text = " ".join(page("connection", width, quarantine=quarantine.frames, bad_frames=1).split())
    assert content_of(kept) in text
    assert content_of(again) in text


def test_zoomed_panes_show_refused_trades() -> None:
    symbols = {"ETHUSDT": SymbolSnapshot(wrong_times=2, conflicts=1)}
    put_away = (BadFrame(NOW - 5, "ETHUSDT 7: its time", "price 1"),)
    assert "not understood or refused: 3" in page("connection", symbols=symbols, quarantine=put_away, bad_frames=3)
    far_off = {"ETHUSDT": SymbolSnapshot(implausible=1)}
    assert "not understood or refused: 1" in page("connection", symbols=far_off, quarantine=put_away, bad_frames=1)
    told = page("market", symbols=symbols)
    assert "wrong times 2" in told
    assert "conflicting contents 1" in told
    assert "wrong times" not in page("market", symbols={"ETHUSDT": SymbolSnapshot()})
