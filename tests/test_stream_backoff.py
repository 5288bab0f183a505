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
