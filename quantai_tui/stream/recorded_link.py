"""One connection of a recording, played to a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, NoReturn

import msgspec

from ..market.wire import ControlReply
from .advice import FailureKind
from .failures import LinkFault
from .recorded import LinkScript
from .recording_events import Failed
from .replay_clock import is_set
from .tasks import settle, until_first_ends
from .transport import Receiver, TlsInfo

if TYPE_CHECKING:
    from .replaying import Replay

# What this program ended by itself it should end again by itself; if it has not so long after, the recording goes on.
GRACE_S = 5.0

_TURN = 64  # messages between two looks at whether the stream still takes them
# After its last message a stream still looks, within two seconds, at symbols that have been quiet.
_TAIL_S = 6.0


class RecordedLink:
    """A connection of a recording, open; see `Link`. Delivers from its making until `close`."""

    def __init__(self, replay: Replay, script: LinkScript, receiver: Receiver) -> None:
        self._replay = replay
        self.script = script
        self._receiver = receiver
        self.tls: TlsInfo | None = script.tls
        self.dry = False  # all that was recorded has been delivered
        self._asked: dict[str, int] = {}
        self._streams: dict[str, None] = {}
        self._subscribed = asyncio.Event()
        self._pinged = asyncio.Event()
        self._room = asyncio.Event()
        self._ended: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self._pings = 0
        self._pongs: set[asyncio.Task[None]] = set()
        self._opened = replay.clock.monotonic()
        replay.opened(self)
        self._player = asyncio.create_task(self._play(), name="replay")

    async def until_closed(self) -> NoReturn:
        await asyncio.shield(self._ended)
        raise AssertionError("a connection ends by an exception")

    def resume_reading(self) -> None:
        self._room.set()

    async def send(self, frame: str | bytes) -> None:
        """Answer a request as it was answered then; where the recording shows no such request, as a venue in order would."""
        self._require_open()
        request = msgspec.json.decode(frame)
        method, names = request["method"], request.get("params") or []
        index = self._asked.get(method, 0)
        self._asked[method] = index + 1
        if method == "SUBSCRIBE":
            self._streams.update(dict.fromkeys(names))
            self._subscribed.set()
        elif method == "UNSUBSCRIBE":
            for name in names:
                self._streams.pop(name, None)
        recorded = self.script.replies.get(method, [])
        reply = recorded[index] if index < len(recorded) else ControlReply(result=None)
        if reply is None:
            return  # then as now
        if index >= len(recorded) and method == "LIST_SUBSCRIPTIONS":
            reply = ControlReply(result=list(self._streams))
        asyncio.get_running_loop().call_soon(self._answer, _reply_frame(reply, request.get("id")))

    async def ping(self, payload: bytes) -> Awaitable[float]:
        self._require_open()
        pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        rtts, index = self.script.rtts, self._pings
        self._pings += 1
        self._pinged.set()
        answered = not (self.script.dead and (self.dry or index >= len(rtts) - 1))
        if answered:
            known = [rtt for rtt in rtts[: index + 1] if rtt is not None]
            task = asyncio.create_task(self._pong(pong, known[-1] if known else 0.0))
            self._pongs.add(task)
            task.add_done_callback(self._pongs.discard)
        return pong

    async def close(self) -> None:
        self.abort()
        for task in [self._player, *self._pongs]:
            await settle(task)

    def abort(self) -> None:
        self._player.cancel()
        for task in self._pongs:
            task.cancel()
        if not self._ended.done():
            self._end(LinkFault(FailureKind.CLOSED, "closed by this program"))

    def _end(self, fault: Exception) -> None:
        self.dry = True
        self._ended.set_exception(fault)
        self._ended.exception()  # whoever waits gets it; if nobody does, it is no error of ours
        self._replay.left(self)

    def _require_open(self) -> None:
        if self._ended.done():
            self._ended.result()

    def _answer(self, frame: bytes) -> None:
        if not self._ended.done():
            self._receiver.take(frame)

    async def _pong(self, pong: asyncio.Future[float], rtt_s: float) -> None:
        await self._replay.clock.sleep(rtt_s)
        if not pong.done():
            pong.set_result(rtt_s)

    async def _play(self) -> None:
        try:
            if self.script.replies.get("SUBSCRIBE"):
                await self._subscribed.wait()
            if self.script.rtts:
                # A stream pings as soon as it takes the connection for good; before, an end would mean something else to it.
                await until_first_ends(is_set(self._pinged), self._replay.clock.sleep(GRACE_S))
            with self._replay.delivering():
                await self._deliver()
            self.dry = True
            self._replay.ran_dry()
            await self._last_out()
        except Exception as error:  # noqa: BLE001 - a file that cannot be read on, say: it ends the connection, and is seen there
            self._end(error)

    async def _deliver(self) -> None:
        replay, receiver = self._replay, self._receiver
        for number, (at, data) in enumerate(replay.recording.messages(self.script), 1):
            await self._reach(at)
            replay.reached(at)
            receiver.take(data)
            if number % _TURN == 0 or not replay.at_max:
                self._room.clear()
                if receiver.is_full():
                    with replay.blocked():
                        await self._room.wait()
                await asyncio.sleep(0)

    async def _last_out(self) -> None:
        """What follows the last message."""
        replay, script = self._replay, self.script
        end = script.end
        if end is None:
            await self._reach(replay.recording.seconds)
            if replay.at_max:
                await replay.clock.sleep(min(_TAIL_S, replay.recording.seconds - replay.at))
            replay.look_for_end(lasted=True)
            return
        await self._reach(end.at)
        if end.failure is None:
            if script.dead:
                return  # no ping is answered any more: the heartbeat ends it, then as now
            quiet = max(0.0, end.at - script.last_at) if replay.at_max else 0.0
            await replay.clock.sleep(quiet + GRACE_S)
        replay.reached(end.at)
        self._end(fault_of(end.failure, "this connection was left here when it was recorded"))

    async def _reach(self, at: float) -> None:
        """Wait until it is time for what happened at `at`; at speed `max` it always is."""
        if self._replay.at_max:
            return
        opened = self.script.opened_at or 0.0
        wait = self._opened + at - opened - self._replay.clock.monotonic()
        if wait > 0:
            await self._replay.clock.sleep(wait)


def fault_of(failure: Failed | None, otherwise: str) -> LinkFault:
    """An exception that `classify` takes for what was recorded."""
    if failure is None:
        return LinkFault(FailureKind.CLOSED, otherwise)
    known = failure.kind in {kind.value for kind in FailureKind}
    kind = FailureKind(failure.kind) if known else FailureKind.UNKNOWN
    return LinkFault(kind, failure.message, min_wait_s=failure.min_wait_s)


def _reply_frame(reply: ControlReply, id: int | str | None) -> bytes:
    if reply.ok:
        return msgspec.json.encode({"result": reply.result, "id": id})
    error = {"code": reply.error_code, "msg": reply.error_msg}
    return msgspec.json.encode({"error": error, "id": id})
