"""What is known of a screen at the far end of a line that takes more than it shows."""

from __future__ import annotations

import threading

import pytest

from quantai_tui.ui.echo import QUESTION, Echo


class Hand:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def echo(clock: Hand) -> Echo:
    """Of a terminal that has shown that it answers."""
    echo = Echo(clock)
    assert echo.question() == QUESTION
    echo.answered()
    clock.now += 2
    return echo


def test_a_question_stands_behind_a_frame_every_two_seconds_and_one_at_a_time(echo: Echo, clock: Hand) -> None:
    assert echo.question() == QUESTION
    clock.now += 10
    assert echo.question() == ""
    echo.answered()
    assert echo.question() == QUESTION
    echo.answered()
    clock.now += 1.9
    assert echo.question() == ""
    clock.now += 0.1
    assert echo.question() == QUESTION


def test_the_lag_is_what_an_answer_takes_beyond_the_second_that_any_line_may_need(echo: Echo, clock: Hand) -> None:
    echo.question()
    clock.now += 1.0
    assert echo.lag_s == 0.0
    clock.now += 4.0
    assert echo.lag_s == 4.0
    echo.answered()
    assert echo.lag_s == 0.0


def test_a_terminal_that_has_never_answered_is_believed_to_keep_up_and_asked_again(clock: Hand) -> None:
    echo = Echo(clock)
    for _ in range(3):
        assert echo.question() == QUESTION
        clock.now += 60
        assert echo.lag_s == 0.0
    echo.await_answer(60.0)  # nobody waits for it either


def test_an_answer_that_is_lost_is_given_up_when_somebody_types_and_the_terminal_has_to_answer_anew(
    echo: Echo, clock: Hand
) -> None:
    freed: list[float] = []
    echo.question()
    clock.now += 20
    echo.when_answered(lambda: freed.append(clock.now))
    echo.heard()  # a slow line may still bring it
    assert echo.lag_s == 19.0
    clock.now += 20  # and nobody types while the operator is away
    assert echo.lag_s == 39.0
    assert not freed
    echo.heard()
    assert (echo.lag_s, freed) == (0.0, [140.0 + 2])
    assert echo.question() == QUESTION
    clock.now += 60
    assert echo.lag_s == 0.0
    echo.answered()
    assert echo.question() == QUESTION
    clock.now += 5
    assert echo.lag_s == 4.0


def test_who_waits_is_called_once_at_the_answer_and_at_once_where_none_is_missed(echo: Echo, clock: Hand) -> None:
    calls: list[str] = []
    echo.when_answered(lambda: calls.append("at once"))
    echo.question()
    echo.when_answered(lambda: calls.append("not missed yet"))
    clock.now += 3
    echo.when_answered(lambda: calls.append("at the answer"))
    assert calls == ["at once", "not missed yet"]
    echo.answered()
    echo.answered()
    assert calls == ["at once", "not missed yet", "at the answer"]


def test_another_terminal_is_not_waited_for(echo: Echo, clock: Hand) -> None:
    freed: list[str] = []
    echo.question()
    clock.now += 5
    echo.when_answered(lambda: freed.append("free"))
    echo.forget()
    assert (echo.lag_s, freed) == (0.0, ["free"])


def test_leaving_waits_for_the_answer_that_is_under_way(echo: Echo) -> None:
    echo.question()
    waiting = threading.Thread(target=echo.await_answer, args=(60.0,))
    waiting.start()
    echo.answered()
    waiting.join(10)
    assert not waiting.is_alive()
