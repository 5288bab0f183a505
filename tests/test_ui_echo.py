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


def test_a_terminal_that_has_never_answered_is_believed_to_keep_up_and_asked_now_and_then(clock: Hand) -> None:
    echo = Echo(clock)
    for _ in range(3):
        assert echo.question() == QUESTION
        clock.now += 29
        assert (echo.lag_s, echo.question(), echo.question_again()) == (0.0, "", "")
        clock.now += 1
    echo.await_answer(60.0)  # nobody waits for it either


def test_on_a_line_that_is_behind_from_the_start_each_answer_is_that_of_its_own_question(clock: Hand) -> None:
    echo, answers_at = Echo(clock), []
    worst = 0.0
    for _ in range(200):  # an answer takes five seconds
        clock.now += 0.2
        if echo.question():
            answers_at.append(clock.now + 5.0)
        if answers_at and clock.now >= answers_at[0]:
            answers_at.pop(0)
            worst = max(worst, echo.lag_s)
            echo.answered()
        assert len(answers_at) <= 1
    assert worst == pytest.approx(4.0, abs=0.3)


def test_an_answer_that_seems_lost_is_asked_for_again_though_nothing_is_painted(echo: Echo, clock: Hand) -> None:
    echo.question()
    clock.now += 29
    assert echo.question_again() == ""
    clock.now += 1
    assert echo.question_again() == QUESTION
    assert echo.question_again() == ""
    assert echo.lag_s == 29.0
    echo.answered()
    assert (echo.lag_s, echo.question_again()) == (0.0, "")


def test_a_terminal_that_does_not_answer_when_asked_again_is_given_up_once_somebody_types(echo: Echo, clock: Hand) -> None:
    freed: list[float] = []
    echo.question()
    clock.now += 61
    echo.when_answered(lambda: freed.append(clock.now))
    echo.heard()  # a slow line may still bring it
    assert echo.lag_s == 60.0
    clock.now += 20
    assert not freed
    echo.heard()
    assert (echo.lag_s, freed) == (0.0, [clock.now])
    assert echo.question() == QUESTION
    clock.now += 20
    assert echo.lag_s == 0.0
    echo.answered()
    assert echo.question() == QUESTION
    clock.now += 5
    assert echo.lag_s == 4.0


def test_a_key_that_looks_like_an_answer_is_none_where_nothing_was_asked(clock: Hand) -> None:
    echo = Echo(clock)
    echo.answered()
    echo.question()
    clock.now += 60
    assert echo.lag_s == 0.0


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
