"""How long to wait before the next dial."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_support import ManualClock

from quantai_tui.stream import ExponentialBackoffReconnector, LinkFault, WebSocketErrorType
from quantai_tui.stream.advice import FailureKind


def test_delays_double_up_to_the_maximum():
    reconnector = ExponentialBackoffReconnector()
    delays = []
    for _ in range(8):
        delays.append(reconnector.calculate_next_delay())
        reconnector.on_reconnect_attempt()
        reconnector.on_reconnect_failure(ConnectionRefusedError(111, "refused"))
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_waits_to_come_are_known_beforehand_and_end_with_the_retries():
    reconnector = ExponentialBackoffReconnector(max_retries=5)
    assert reconnector.schedule() == (1, 2, 4, 8, 16)
    for _ in range(2):
        reconnector.on_reconnect_attempt()
        reconnector.on_reconnect_failure(ConnectionRefusedError(111, "refused"))
    assert reconnector.schedule() == (4, 8, 16)
    assert ExponentialBackoffReconnector(max_retries=0).schedule()[-4:] == (60, 60, 60, 60)


def test_asking_for_the_delay_changes_nothing():
    reconnector = ExponentialBackoffReconnector()
    assert [reconnector.calculate_next_delay() for _ in range(3)] == [1, 1, 1]


def test_retries_are_counted_and_zero_means_unlimited():
    reconnector = ExponentialBackoffReconnector(max_retries=2)
    allowed = []
    for _ in range(3):
        allowed.append(reconnector.should_retry())
        reconnector.on_reconnect_failure(OSError())
    assert allowed == [True, True, False]
    endless = ExponentialBackoffReconnector(max_retries=0)
    for _ in range(5000):
        endless.on_reconnect_failure(OSError())
    assert endless.should_retry()
    assert endless.calculate_next_delay() == 60.0


@given(
    initial=st.floats(1e-3, 1e3),
    span=st.floats(1.0, 1e6),
    factor=st.floats(1.0000001, 1e6),
    attempts=st.integers(0, 3000),
    jitter=st.floats(0.0, 0.5),
    seed=st.integers(0, 9),
)
def test_a_delay_is_positive_never_above_the_maximum_and_near_the_formula(initial, span, factor, attempts, jitter, seed):
    top = initial * span
    reconnector = ExponentialBackoffReconnector(initial, top, factor, 0, jitter=jitter, rng=random.Random(seed))
    reconnector._attempt = attempts
    delay = reconnector.calculate_next_delay()
    try:
        plain = min(initial * factor**attempts, top)
    except OverflowError:
        plain = top
    assert 0 < delay <= top
    assert plain * (1 - jitter) * 0.999999 <= delay <= min(plain * (1 + jitter), top) * 1.000001


def test_a_link_that_is_up_but_young_or_without_data_does_not_make_the_waiting_short():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(stable_after=10.0, clock=clock)
    for _ in range(3):
        reconnector.on_reconnect_attempt()
        reconnector.on_reconnect_success()
        reconnector.on_link_up()
        reconnector.on_data()
        assert reconnector.on_link_down() == 0.0
    assert reconnector.calculate_next_delay() == 8.0
    reconnector.on_link_up()
    clock._now += 60.0
    reconnector.on_link_down()
    assert reconnector.calculate_next_delay() == 8.0, "up for a minute, but it never delivered anything"
    reconnector.on_link_up()
    clock._now += 5.0
    reconnector.on_data()
    clock._now += 5.0
    reconnector.on_link_down()
    assert reconnector.calculate_next_delay() == 1.0


def test_statistics_and_the_last_ten_records_tell_what_happened():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(clock=clock)
    for error in (TimeoutError(), LinkFault(FailureKind.TLS_UNTRUSTED, "not trusted"), ConnectionRefusedError()):
        reconnector.calculate_next_delay()
        reconnector.on_reconnect_attempt()
        reconnector.on_reconnect_failure(error)
    reconnector.calculate_next_delay()
    reconnector.on_reconnect_attempt()
    reconnector.on_reconnect_success()
    statistics = reconnector.get_statistics()
    assert statistics["total_attempts"] == 4
    assert statistics["success_rate"] == 0.25
    assert statistics["avg_delay"] == (1 + 2 + 4 + 8) / 4
    assert statistics["error_types"] == {"network_error": 2, WebSocketErrorType.SSL_ERROR.value: 1}
    record = statistics["history"][1]
    assert (record.attempt_number, record.success, record.error_type, record.delay_seconds) == (2, False, "ssl_error", 2.0)
    assert record.error_message == "not trusted"
    assert statistics["history"][-1].success
    for _ in range(30):
        reconnector.on_reconnect_failure(OSError())
    assert len(reconnector.get_statistics()["history"]) == 10
    assert reconnector.failed_within(300.0) == 33
    clock._now += 301.0
    assert reconnector.failed_within(300.0) == 0


def test_before_the_first_attempt_rates_are_unknown_and_not_zero():
    statistics = ExponentialBackoffReconnector().get_statistics()
    assert statistics["success_rate"] is None
    assert statistics["avg_delay"] is None
    assert statistics["total_attempts"] == 0


def test_a_lost_link_leaves_its_duration_on_the_next_record():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(clock=clock)
    reconnector.on_link_up()
    clock._now += 42.0
    reconnector.on_link_down()
    reconnector.on_reconnect_attempt()
    reconnector.on_reconnect_success()
    assert reconnector.history[-1].connection_duration_before_failure == 42.0


def test_reset_forgets_the_attempts_and_keeps_the_statistics():
    reconnector = ExponentialBackoffReconnector(max_retries=1)
    reconnector.on_reconnect_failure(OSError())
    assert not reconnector.should_retry()
    reconnector.reset()
    assert reconnector.should_retry()
    assert reconnector.calculate_next_delay() == 1.0
    assert reconnector.get_statistics()["total_attempts"] == 1


@pytest.mark.parametrize(
    "numbers",
    [(0, 60, 2, 10), (2, 1, 2, 10), (1, 60, 1, 10), (1, 60, 2, -1), (float("nan"), 60, 2, 10), (1, 60, float("nan"), 10)],
)
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(ValueError):
        ExponentialBackoffReconnector(*numbers)


def dial(reconnector: ExponentialBackoffReconnector, clock: ManualClock, took: float, error: BaseException | None) -> None:
    reconnector.on_reconnect_attempt()
    clock._now += took
    if error is not None:
        reconnector.on_reconnect_failure(error)
        return
    reconnector.on_reconnect_success()
    reconnector.on_link_up()


def test_the_delay_counts_from_the_start_of_the_attempt():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(clock=clock)
    assert reconnector.wait_left() == 1.0, "before any attempt it counts from now"
    for took, delay in [(0.5, 2.0), (1.0, 4.0), (30.0, 8.0), (30.0, 16.0), (30.0, 32.0)]:
        dial(reconnector, clock, took, TimeoutError())
        assert reconnector.calculate_next_delay() == delay
        assert reconnector.wait_left() == max(0.0, delay - took)
    clock._now += 1.5
    assert reconnector.wait_left() == 0.5
    assert reconnector.wait_left(300.0) == 300.0 - 31.5, "a cool-down is counted alike"


def test_the_delay_after_the_first_dial_of_all_counts_from_its_start():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(5.0, clock=clock)
    reconnector.on_first_attempt()
    clock._now += 3.0
    reconnector.on_first_failure(TimeoutError())
    assert reconnector.calculate_next_delay() == 5.0
    assert reconnector.wait_left() == 2.0
    assert (reconnector.dials, reconnector.total_attempts, reconnector.attempt) == (1, 0, 0)


def test_the_delay_after_a_link_that_was_live_counts_from_its_end():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(clock=clock)
    dial(reconnector, clock, 0.2, None)
    clock._now += 5.0
    reconnector.on_link_down()
    assert reconnector.calculate_next_delay() == 2.0, "it was not up for long enough"
    assert reconnector.wait_left() == 2.0


def test_the_wait_does_not_change_its_mind_while_it_lasts():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(jitter=0.5, clock=clock, rng=random.Random(3))
    dial(reconnector, clock, 0.0, OSError())
    delay = reconnector.calculate_next_delay()
    assert [reconnector.wait_left() for _ in range(5)] == pytest.approx([delay] * 5)


def test_stable_link_resets_the_delays():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(max_retries=1, stable_after=10.0, clock=clock)
    dial(reconnector, clock, 0.0, None)
    assert (reconnector.attempt, reconnector.should_retry()) == (1, False)
    reconnector.on_data()
    assert (reconnector.attempt, reconnector.should_retry()) == (0, True)
    assert reconnector.calculate_next_delay() == 2.0
    clock._now += 10.0
    assert reconnector.calculate_next_delay() == 1.0


def test_links_that_deliver_and_break_use_up_no_retries():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(max_retries=3, clock=clock)
    delays = []
    for _ in range(8):
        dial(reconnector, clock, 0.0, None)
        reconnector.on_data()
        clock._now += 5.0
        reconnector.on_link_down()
        assert reconnector.should_retry()
        delays.append(reconnector.calculate_next_delay())
    assert delays == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert len(reconnector.schedule()) == 3
    for _ in range(3):
        assert reconnector.should_retry()
        dial(reconnector, clock, 0.0, ConnectionRefusedError())
    assert (reconnector.attempt, reconnector.should_retry()) == (3, False)


def test_flapping_for_five_minutes_is_at_most_twenty_dials():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(max_retries=0, jitter=0.1, clock=clock, rng=random.Random(1))
    begun, dials = clock._now, 1
    reconnector.on_first_attempt()
    reconnector.on_reconnect_success()
    reconnector.on_link_up()
    while True:
        reconnector.on_data()
        reconnector.on_link_down()
        reconnector.calculate_next_delay()
        clock._now += reconnector.wait_left()
        if clock._now - begun > 300.0:
            break
        dial(reconnector, clock, 0.0, None)
        dials += 1
    assert 8 <= dials <= 20


def test_probe_without_data_does_not_reset_retries():
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(max_retries=10, clock=clock)
    while reconnector.should_retry():
        dial(reconnector, clock, 0.0, ConnectionRefusedError())
    assert reconnector.attempt == 10
    for outcome in (TimeoutError(), None, None):
        clock._now += reconnector.wait_left(300.0)
        dial(reconnector, clock, 0.0, outcome)
        assert not reconnector.should_retry(), "up, but not proved"
        if outcome is None:
            clock._now += 2.0
            reconnector.on_link_down()
        assert not reconnector.should_retry()
    clock._now += reconnector.wait_left(300.0)
    dial(reconnector, clock, 0.0, None)
    reconnector.on_data()
    clock._now += 2.0
    assert reconnector.should_retry()
    assert reconnector.calculate_next_delay() == 60.0, "one at a time, as long as none lasts"
    clock._now += 8.0
    reconnector.on_link_down()
    assert reconnector.calculate_next_delay() == 1.0


def test_a_dial_that_a_command_gave_up_spoils_no_rate():
    reconnector = ExponentialBackoffReconnector(clock=ManualClock())
    reconnector.on_reconnect_attempt()
    reconnector.on_reconnect_abandoned()
    reconnector.on_reconnect_abandoned()
    reconnector.on_reconnect_attempt()
    reconnector.on_reconnect_attempt()
    reconnector.on_reconnect_success()
    statistics = reconnector.get_statistics()
    assert (statistics["total_attempts"], statistics["abandoned"], statistics["successes"]) == (3, 2, 1)
    assert statistics["success_rate"] == 1.0


@given(initial=st.floats(1e-3, 1e3), span=st.floats(1.0, 1e6), factor=st.floats(1.0001, 100.0), attempts=st.integers(1, 200))
def test_without_jitter_the_delays_never_fall_and_end_at_the_maximum(initial, span, factor, attempts):
    reconnector = ExponentialBackoffReconnector(initial, initial * span, factor, 0, clock=ManualClock())
    delays = []
    for _ in range(attempts):
        delays.append(reconnector.calculate_next_delay())
        reconnector.on_reconnect_failure(OSError())
    assert delays == sorted(delays)
    assert delays[0] == initial
    assert delays[-1] <= initial * span
    for _ in range(5):
        reconnector._attempt = 1_000_000
        assert reconnector.calculate_next_delay() == initial * span


EVENTS = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.0, 400.0)),
    st.sampled_from(
        [
            ("on_reconnect_attempt",),
            ("on_reconnect_attempt", 3.0),
            ("on_reconnect_success",),
            ("on_reconnect_failure", OSError("x")),
            ("on_reconnect_abandoned",),
            ("on_first_attempt",),
            ("on_first_failure", TimeoutError()),
            ("on_link_up",),
            ("on_link_down",),
            ("on_data",),
            ("reset",),
            ("calculate_next_delay",),
        ]
    ),
)


@given(events=st.lists(EVENTS, max_size=60), jitter=st.floats(0.0, 0.5), max_retries=st.integers(0, 5))
def test_no_order_of_events_raises_or_spoils_the_books(events, jitter, max_retries):
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(
        max_retries=max_retries, jitter=jitter, stable_after=10.0, clock=clock, rng=random.Random(0)
    )
    for name, *arguments in events:
        if name == "pass":
            clock._now += arguments[0]
            continue
        getattr(reconnector, name)(*arguments)
        statistics = reconnector.get_statistics()
        known = statistics["successes"] + statistics["failures"] + statistics["abandoned"]
        assert statistics["total_attempts"] - known in (0, 1), "one may be under way"
        assert 0 <= reconnector.dials - statistics["total_attempts"] <= 1, "there is one first dial at most"
        assert statistics["success_rate"] is None or 0.0 <= statistics["success_rate"] <= 1.0
        assert len(statistics["history"]) <= 10
        assert 0.0 <= reconnector.wait_left() <= 60.0
        assert 0 <= reconnector.attempt <= statistics["total_attempts"]
        assert max_retries == 0 or reconnector.should_retry() == (reconnector.attempt < max_retries)


OUTCOMES = st.one_of(
    st.tuples(st.just("fails"), st.floats(0.0, 40.0)),
    st.tuples(st.just("drops"), st.floats(0.0, 9.9)),
    st.tuples(st.just("mute"), st.floats(0.0, 100.0)),
    st.tuples(st.just("lives"), st.floats(10.0, 100.0)),
)


@given(outcomes=st.lists(OUTCOMES, min_size=1, max_size=80), jitter=st.floats(0.0, 0.3), seed=st.integers(0, 99))
def test_however_links_come_and_go_dials_keep_their_distance(outcomes, jitter, seed):
    """Two dials are at least the delay in force apart; without a stable link in between no 300 s hold more than twenty."""
    clock = ManualClock()
    reconnector = ExponentialBackoffReconnector(max_retries=0, jitter=jitter, clock=clock, rng=random.Random(seed))
    in_a_row: list[float] = []
    for what, seconds in outcomes:
        delay = reconnector.calculate_next_delay()
        clock._now += reconnector.wait_left()
        level = min(2.0 ** len(in_a_row), 60.0)
        assert level * (1 - jitter) * 0.999 <= delay <= 60.0
        if in_a_row:
            assert clock._now - in_a_row[-1] >= delay * 0.999
        in_a_row.append(clock._now)
        assert len([at for at in in_a_row if at > clock._now - 300.0]) <= 20
        if what == "fails":
            dial(reconnector, clock, seconds, OSError())
            continue
        dial(reconnector, clock, 0.0, None)
        if what != "mute":
            reconnector.on_data()
        clock._now += seconds
        reconnector.on_link_down()
        if what == "lives":
            in_a_row.clear()
