"""Alerts about the stream: what raises each, what it says, and that it neither flickers nor stays for ever."""

from __future__ import annotations

import pytest

from quantai_tui.telemetry import (
    Alert,
    AlertBook,
    EngineSnapshot,
    RecordingSnapshot,
    Severity,
    StoreSnapshot,
    StreamSnapshot,
    StreamState,
    SymbolSnapshot,
)


def book() -> AlertBook:
    return AlertBook(lambda: 600.0)


def at(uptime_s: float = 100.0, **stream: object) -> EngineSnapshot:
    return EngineSnapshot(time=1e9 + uptime_s, uptime_s=uptime_s, stream=StreamSnapshot(state=StreamState.LIVE, **stream))  # type: ignore[arg-type]


def the_one(alerts: tuple[Alert, ...]) -> Alert:
    (alert,) = alerts
    return alert


def test_a_ban_is_critical_names_the_venues_reason_and_changes_its_words_once_a_minute_at_most() -> None:
    alerts = book()
    said = [the_one(alerts.evaluate(at(banned_for_s=left, ban_reason="HTTP 418"))).text for left in (300.0, 280.0, 241.0)]
    assert set(said) == {"banned by the venue for about 5 min: HTTP 418"}
    last = the_one(alerts.evaluate(at(banned_for_s=7.0, ban_reason="HTTP 418")))
    assert last.text == "banned by the venue for less than a minute: HTTP 418"
    assert last.severity is Severity.CRITICAL
    assert alerts.evaluate(at()) == ()


def test_a_long_ban_is_told_in_hours() -> None:
    assert "about 72 h" in the_one(book().evaluate(at(banned_for_s=3 * 86_400.0))).text


def test_a_certificate_that_expires_soon_is_a_warning_with_its_days() -> None:
    alerts = book()
    assert alerts.evaluate(at(certificate_days=14.0)) == ()
    raised = the_one(alerts.evaluate(at(certificate_days=13.9)))
    assert (raised.severity, raised.text) == (Severity.WARNING, "the venue's certificate expires in 13 days")
    assert the_one(alerts.evaluate(at(certificate_days=-0.1))).text == "the venue's certificate has expired"


def test_a_certificate_alert_stands_between_two_connections_and_goes_with_a_new_certificate() -> None:
    alerts = book()
    raised = the_one(alerts.evaluate(at(certificate_days=3.0)))
    assert the_one(alerts.evaluate(at(certificate_days=None))) == raised
    assert the_one(alerts.evaluate(at(certificate_days=14.5))).since == raised.since
    assert alerts.evaluate(at(certificate_days=90.0)) == ()
    assert alerts.evaluate(at(certificate_days=None)) == ()


@pytest.mark.parametrize(
    ("subscription", "words"), [("refused", "BTCUSDT is refused by the venue"), ("silent", "BTCUSDT is acknowledged and silent")]
)
def test_a_symbol_that_the_venue_does_not_serve_is_named(subscription: str, words: str) -> None:
    alerts = book()
    symbols = {"ETHUSDT": SymbolSnapshot(subscription="acknowledged"), "BTCUSDT": SymbolSnapshot(subscription=subscription)}
    raised = the_one(alerts.evaluate(at(symbols=symbols)))
    assert (raised.text, raised.severity) == (words, Severity.WARNING)
    assert alerts.evaluate(at(symbols={"BTCUSDT": SymbolSnapshot(subscription="acknowledged")})) == ()


def test_of_many_silent_symbols_three_are_named() -> None:
    symbols = {f"COIN{i}": SymbolSnapshot(subscription="silent") for i in range(9)}
    assert the_one(book().evaluate(at(symbols=symbols))).text.endswith("COIN2 is acknowledged and silent and 6 more")


def test_only_trades_lost_since_the_start_are_told_with_their_count() -> None:
    alerts = book()
    assert alerts.evaluate(at(symbols={"ETHUSDT": SymbolSnapshot(unrecoverable=40)})) == ()  # given up by an earlier run
    raised = the_one(alerts.evaluate(at(symbols={"ETHUSDT": SymbolSnapshot(unrecoverable=1_372)})))
    assert (raised.text, raised.severity) == ("1,332 trades lost for good since the start: ETHUSDT", Severity.WARNING)


def recorded(ended: str, path: str = "a.qrec") -> RecordingSnapshot:
    return RecordingSnapshot(path, 256, 256, 9, 9.0, ended)


def test_a_recording_that_ended_by_itself_is_told_for_ten_minutes() -> None:
    alerts = book()
    assert alerts.evaluate(at(recording=recorded(""))) == ()
    raised = the_one(alerts.evaluate(at(101, recording=recorded("the limit of 256 MB is reached"))))
    assert raised.text == "the recording has ended: the limit of 256 MB is reached"
    assert the_one(alerts.evaluate(at(700, recording=recorded("the limit of 256 MB is reached")))).since == raised.since
    assert alerts.evaluate(at(702, recording=recorded("the limit of 256 MB is reached"))) == ()
    assert alerts.evaluate(at(800, recording=recorded("", "b.qrec"))) == ()
    assert alerts.evaluate(at(801, recording=recorded("cannot be written: no space", "b.qrec"))) != ()


def test_a_recording_that_was_stopped_is_no_news() -> None:
    alerts = book()
    alerts.evaluate(at(recording=recorded("")))
    assert alerts.evaluate(at(recording=recorded("stopped"))) == ()


def test_a_suspend_is_told_for_ten_minutes_and_again_when_it_happens_again() -> None:
    alerts = book()
    assert alerts.evaluate(at(suspends=0)) == ()
    raised = the_one(alerts.evaluate(at(100, suspends=1)))
    assert (raised.severity, raised.text) == (Severity.INFO, "this machine slept, or its clock was set")
    assert alerts.evaluate(at(699, suspends=1)) != ()
    assert alerts.evaluate(at(701, suspends=1)) == ()
    assert alerts.evaluate(at(702, suspends=2)) != ()


def test_alert_for_wrong_times_stands_for_ten_minutes() -> None:
    alerts = book()
    assert alerts.evaluate(at(symbols={"ETHUSDT": SymbolSnapshot()})) == ()
    wrong = {"ETHUSDT": SymbolSnapshot(wrong_times=2), "BTCUSDT": SymbolSnapshot()}
    raised = the_one(alerts.evaluate(at(200.0, symbols=wrong)))
    assert (raised.key, raised.text) == ("wrong-times", "trades in quarantine because of impossible times: 2 of ETHUSDT")
    assert alerts.evaluate(at(900.0, symbols=wrong)) == ()


def test_alert_for_a_refused_prune_stands_until_it_is_over() -> None:
    alerts = book()
    store = StoreSnapshot(prune_refused="ETHUSDT: 9 of 10 trades would be deleted")
    raised = the_one(alerts.evaluate(EngineSnapshot(store=store)))
    assert (raised.key, raised.text) == ("prune-refused", store.prune_refused)
    assert "STORE_RETENTION_DAYS" in raised.remedy
    assert alerts.evaluate(EngineSnapshot()) == ()


def test_conflicting_trades_raise_an_alert() -> None:
    alerts = book()
    assert alerts.evaluate(at(symbols={"ETHUSDT": SymbolSnapshot(duplicates=4)})) == ()
    raised = the_one(alerts.evaluate(at(symbols={"ETHUSDT": SymbolSnapshot(duplicates=5, conflicts=1)})))
    assert (raised.key, raised.text) == ("conflicts", "trades with the same id but different content: 1 of ETHUSDT")


def test_a_store_that_another_program_holds_is_critical_and_names_it() -> None:
    alerts = book()
    raised = the_one(alerts.evaluate(EngineSnapshot(store=StoreSnapshot(held_by="sqlitebrowser (pid 7)"))))
    assert (raised.key, raised.severity) == ("store-held", Severity.CRITICAL)
    assert raised.text == "the store is held by sqlitebrowser (pid 7)"
    assert alerts.evaluate(EngineSnapshot()) == ()


@pytest.mark.parametrize(
    ("key", "field"), [("wrong-times", "wrong_times"), ("implausible-ids", "implausible"), ("conflicts", "conflicts")]
)
def test_each_kind_of_refused_trade_is_an_alert_by_symbol(key: str, field: str) -> None:
    alerts = book()
    assert alerts.evaluate(at(symbols={"ETHUSDT": SymbolSnapshot()})) == ()
    raised = the_one(alerts.evaluate(at(symbols={"ETHUSDT": SymbolSnapshot(**{field: 3}), "BTCUSDT": SymbolSnapshot()})))
    assert (raised.key, raised.severity, raised.text.rpartition(": ")[2]) == (key, Severity.WARNING, "3 of ETHUSDT")
