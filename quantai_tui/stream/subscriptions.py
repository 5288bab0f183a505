"""What one connection is to be subscribed to, what has been asked for, and what the venue says it has. No I/O, no clock."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ..cleaning import one_line
from ..market.wire import ControlReply, subscribe_frame
from .advice import FailureKind
from .failures import LinkFault

log = logging.getLogger("quantai_tui.stream")

# Binance wants SUBSCRIBE frames under about 8,000 characters; the rest is room for the envelope.
_MAX_PARAMS_CHARS = 7000
_CHARS_AROUND_A_NAME = 3  # two quotes and a comma
# Streams that the venue has and nobody wants, remembered until they are taken off: as many as a connection may have.
_MAX_UNWANTED = 1024


@dataclass(frozen=True, slots=True)
class _Request:
    """A frame that is not answered yet. `streams` are those it names; for a list, those acknowledged when it was asked for."""

    method: str
    streams: frozenset[str]


class Subscriptions:
    """The subscriptions of one connection, from its first SUBSCRIBE on.

    A stream is wanted for good; beside that it is pending from the frame that asks for it to the answer, and acknowledged from
    then on, until a list of the venue lacks it. Frames may be answered in any order.
    """

    def __init__(self, streams: Sequence[str]) -> None:
        self._streams = tuple(dict.fromkeys(streams))
        self.wanted = frozenset(self._streams)
        self._acknowledged: set[str] = set()
        self._unwanted: dict[str, None] = {}
        self._requests: dict[int, _Request] = {}
        self._last_id = 0
        self.lost = 0
        """Subscriptions that the venue had forgotten, counted."""

    @property
    def pending(self) -> frozenset[str]:
        """Asked for, and not answered yet."""
        return frozenset[str]().union(*(one.streams for one in self._requests.values() if one.method == "SUBSCRIBE"))

    @property
    def acknowledged(self) -> frozenset[str]:
        return frozenset(self._acknowledged)

    def state(self, stream: str) -> str:
        """One of "acknowledged", "pending" and "wanted"; empty for a stream that nobody asked for."""
        if stream in self._acknowledged:
            return "acknowledged"
        if stream in self.pending:
            return "pending"
        return "wanted" if stream in self.wanted else ""

    @property
    def settled(self) -> bool:
        """Whether the venue has acknowledged all that is wanted."""
        return self._acknowledged == self.wanted

    @property
    def pending_requests(self) -> int:
        """Frames of any kind that were made and not answered yet."""
        return len(self._requests)

    def next_frame(self) -> bytes | None:
        """The next SUBSCRIBE, for what is wanted and neither pending nor acknowledged; marks it pending. None: nothing to ask."""
        known = self._acknowledged | self.pending
        return self._frame("SUBSCRIBE", [stream for stream in self._streams if stream not in known])

    def list_frame(self) -> bytes:
        """LIST_SUBSCRIPTIONS. One that was not answered before is given up."""
        self._requests = {id: one for id, one in self._requests.items() if one.method != "LIST_SUBSCRIPTIONS"}
        return self._request("LIST_SUBSCRIPTIONS", (), self.acknowledged)

    def unwanted_frame(self) -> bytes | None:
        """UNSUBSCRIBE for streams that the venue has and nobody wants. None: there are none."""
        frame = self._frame("UNSUBSCRIBE", list(self._unwanted))
        for request in self._requests.values():
            if request.method == "UNSUBSCRIBE":
                for stream in request.streams:
                    self._unwanted.pop(stream, None)
        return frame

    def on_reply(self, reply: ControlReply) -> None:
        """Take in an answer; one to nothing that was asked changes nothing.

        An error without an id belongs to the only request pending; if there are several it cannot be told, and changes nothing.

        Raises:
            LinkFault: with kind SUBSCRIBE_REJECTED, when the venue refuses a SUBSCRIBE.
        """
        id = reply.id
        if id is None and not reply.ok and len(self._requests) == 1:
            id = next(iter(self._requests))
        request = self._requests.pop(id, None) if isinstance(id, int) else None
        if request is None:
            return
        if not reply.ok:
            message = f"{request.method} refused with code {reply.error_code}: {one_line(reply.error_msg or '')}"
            if request.method == "SUBSCRIBE":
                raise LinkFault(FailureKind.SUBSCRIBE_REJECTED, message)
            # What is subscribed stays so: a refused question is no reason to give up a link that delivers.
            log.warning("%s", message)
        elif request.method == "SUBSCRIBE":
            self._acknowledged |= request.streams
        elif request.method == "LIST_SUBSCRIPTIONS" and reply.result is not None:
            self._reconcile(frozenset(reply.result), request.streams)

    def _reconcile(self, listed: frozenset[str], acknowledged_before: frozenset[str]) -> None:
        """Compare with the venue's list. What was acknowledged only after it was asked for need not be on it yet."""
        forgotten = (acknowledged_before & self._acknowledged) - listed
        self.lost += len(forgotten)
        self._acknowledged -= forgotten
        # Its answer got lost: the list is one as well.
        self._acknowledged |= (listed & self.wanted) - self.pending
        being_taken_off = {stream for one in self._requests.values() if one.method == "UNSUBSCRIBE" for stream in one.streams}
        foreign = sorted(listed - self.wanted - being_taken_off)
        self._unwanted = dict.fromkeys(foreign[:_MAX_UNWANTED])

    def _frame(self, method: str, streams: Sequence[str]) -> bytes | None:
        """A frame for as many of the streams as it may name."""
        part: list[str] = []
        size = 0
        for stream in streams:
            size += len(stream) + _CHARS_AROUND_A_NAME
            if part and size > _MAX_PARAMS_CHARS:
                break
            part.append(stream)
        return self._request(method, part, frozenset(part)) if part else None

    def _request(self, method: str, params: Sequence[str], streams: frozenset[str]) -> bytes:
        self._last_id += 1
        self._requests[self._last_id] = _Request(method, streams)
        return subscribe_frame(method, params, self._last_id).encode()
