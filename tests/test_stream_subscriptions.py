"""Subscriptions against a venue that answers in any order, forgets some, has others on its list, and refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quantai_tui.market.wire import ControlReply
from quantai_tui.stream.failures import FailureKind, LinkFault
from quantai_tui.stream.subscriptions import Subscriptions

LONGEST_FRAME = 8000

NAMES = [f"s{number:02d}@aggTrade" for number in range(12)]


class ModelVenue(RuleBasedStateMachine):
    """The venue does what frames say in the order they come; its answers come in any order, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions = Subscriptions(NAMES)
        self.venue: set[str] = set()
        self.answers: list[ControlReply] = []
        self.forgotten = 0

    def send(self, frame: bytes | None) -> None:
        if frame is None:
            return
        asked = json.loads(frame)
        result = None
        if asked["method"] == "SUBSCRIBE":
            self.venue |= set(asked["params"])
        elif asked["method"] == "UNSUBSCRIBE":
            self.venue -= set(asked["params"])
        else:
            result = sorted(self.venue)
        self.answers.append(ControlReply(id=asked["id"], result=result))

    @rule()
    def subscribe(self):
        before = self.subscriptions.pending | self.subscriptions.acknowledged
        frame = self.subscriptions.next_frame()
        if frame is None:
            assert before == self.subscriptions.wanted
        else:
            assert before.isdisjoint(json.loads(frame)["params"])
            self.send(frame)

    @rule()
    def ask_for_the_list(self):
        self.send(self.subscriptions.list_frame())

    @rule()
    def take_off_what_nobody_wants(self):
        frame = self.subscriptions.unwanted_frame()
        if frame is not None:
            assert self.subscriptions.wanted.isdisjoint(json.loads(frame)["params"])
        self.send(frame)

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer(self, data):
        self.subscriptions.on_reply(self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1))))

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name):
        if name in self.venue:
            self.venue.remove(name)
            self.forgotten += 1

    @rule(number=st.integers(0, 3))
    def be_subscribed_to_something_foreign(self, number):
        self.venue.add(f"foreign{number}@aggTrade")

    @rule()
    def answer_to_nothing(self):
        self.subscriptions.on_reply(ControlReply(id=999_999, result=[]))
        self.subscriptions.on_reply(ControlReply(id=None, result=[]))

    @invariant()
    def every_stream_is_in_one_place(self):
        subscriptions = self.subscriptions
        assert subscriptions.pending.isdisjoint(subscriptions.acknowledged)
        assert subscriptions.pending | subscriptions.acknowledged <= subscriptions.wanted == set(NAMES)
        assert subscriptions.settled == (subscriptions.acknowledged == subscriptions.wanted)
        assert subscriptions.lost <= self.forgotten

    def teardown(self):
        """Once the venue behaves, two rounds of comparing are enough, whatever went before."""
        for _ in range(2):
            self.drain()
            self.send(self.subscriptions.list_frame())
            self.drain()
        assert self.subscriptions.settled
        assert self.venue == set(NAMES)
        assert self.subscriptions.pending_requests == 0

    def drain(self) -> None:
        while True:
            for reply in self.answers:
                self.subscriptions.on_reply(reply)
            self.answers.clear()
            frame = self.subscriptions.next_frame() or self.subscriptions.unwanted_frame()
            if frame is None:
                return
            self.send(frame)


TestAgainstAModelVenue = ModelVenue.TestCase


def sent(frame: bytes | None) -> dict:
    assert frame is not None
    return json.loads(frame)


def test_many_streams_are_asked_for_in_frames_that_the_venue_accepts():
    streams = [f"symbol{number:04d}usdt@aggTrade" for number in range(1024)]
    subscriptions = Subscriptions(streams)
    asked: list[str] = []
    frames = 0
    while (frame := subscriptions.next_frame()) is not None:
        assert len(frame) < LONGEST_FRAME
        asked += sent(frame)["params"]
        frames += 1
    assert asked == streams
    assert 1 < frames < 10
    assert subscriptions.pending == set(streams)
    assert subscriptions.pending_requests == frames


def test_a_stream_named_twice_is_asked_for_once():
    assert sent(Subscriptions(["a@aggTrade", "a@aggTrade"]).next_frame())["params"] == ["a@aggTrade"]


def test_what_the_venue_forgot_is_counted_and_wanted_again():
    subscriptions = Subscriptions(NAMES[:3])
    subscriptions.on_reply(ControlReply(id=sent(subscriptions.next_frame())["id"]))
    assert subscriptions.settled
    asked = sent(subscriptions.list_frame())
    assert asked["method"] == "LIST_SUBSCRIPTIONS"
    assert "params" not in asked
    subscriptions.on_reply(ControlReply(id=asked["id"], result=[NAMES[0], "other@kline_1m"]))
    assert (subscriptions.settled, subscriptions.lost) == (False, 2)
    assert sent(subscriptions.next_frame())["params"] == NAMES[1:3]
    taken_off = sent(subscriptions.unwanted_frame())
    assert (taken_off["method"], taken_off["params"]) == ("UNSUBSCRIBE", ["other@kline_1m"])
    assert subscriptions.unwanted_frame() is None


def test_a_list_that_was_asked_for_before_an_acknowledgement_does_not_undo_it():
    subscriptions = Subscriptions(NAMES[:2])
    number = sent(subscriptions.next_frame())["id"]
    asked = sent(subscriptions.list_frame())["id"]
    subscriptions.on_reply(ControlReply(id=number))
    subscriptions.on_reply(ControlReply(id=asked, result=[]))
    assert (subscriptions.settled, subscriptions.lost) == (True, 0)


def test_a_list_that_shows_a_subscription_stands_in_for_an_answer_that_got_lost():
    subscriptions = Subscriptions(NAMES[:2])
    with pytest.raises(LinkFault):
        subscriptions.on_reply(ControlReply(id=sent(subscriptions.next_frame())["id"], error_code=2, error_msg="busy"))
    subscriptions.on_reply(ControlReply(id=sent(subscriptions.list_frame())["id"], result=NAMES[:2]))
    assert subscriptions.settled
    assert subscriptions.next_frame() is None


def test_a_list_that_never_came_is_not_waited_for_for_ever():
    subscriptions = Subscriptions(NAMES[:1])
    subscriptions.on_reply(ControlReply(id=sent(subscriptions.next_frame())["id"]))
    late = sent(subscriptions.list_frame())["id"]
    subscriptions.on_reply(ControlReply(id=sent(subscriptions.list_frame())["id"], result=NAMES[:1]))
    assert subscriptions.pending_requests == 0
    subscriptions.on_reply(ControlReply(id=late, result=[]))
    assert subscriptions.settled


@pytest.mark.parametrize("named", [True, False], ids=["with an id", "without an id"])
def test_a_refused_subscription_is_a_fault_that_quotes_the_venue_and_can_be_asked_for_again(named):
    subscriptions = Subscriptions(NAMES[:1])
    number = sent(subscriptions.next_frame())["id"]
    with pytest.raises(LinkFault, match="refused with code 2: no such \\[31m") as caught:
        subscriptions.on_reply(ControlReply(id=number if named else None, error_code=2, error_msg="no such \x1b[31m"))
    assert caught.value.kind is FailureKind.SUBSCRIBE_REJECTED
    assert subscriptions.pending == frozenset()
    assert sent(subscriptions.next_frame())["params"] == NAMES[:1]


def test_an_error_that_names_none_of_several_requests_is_laid_on_none():
    subscriptions = Subscriptions([f"{number:030d}@aggTrade" for number in range(400)])
    subscriptions.next_frame()
    subscriptions.next_frame()
    subscriptions.on_reply(ControlReply(id=None, error_code=2, error_msg="which?"))
    assert subscriptions.pending_requests == 2


def test_a_refused_list_leaves_the_subscriptions_as_they_are():
    subscriptions = Subscriptions(NAMES[:1])
    subscriptions.on_reply(ControlReply(id=sent(subscriptions.next_frame())["id"]))
    subscriptions.on_reply(ControlReply(id=sent(subscriptions.list_frame())["id"], error_code=1, error_msg="no"))
    subscriptions.on_reply(ControlReply(id=sent(subscriptions.list_frame())["id"], result=None))
    assert (subscriptions.settled, subscriptions.pending_requests) == (True, 0)
