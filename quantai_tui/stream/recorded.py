"""A recording, read: which connections it holds and how each went, and every trade in it by its id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from ..market.trades import AggTrade, Bar
from ..market.wire import ControlReply, WireError, decode_frame
from .config import StreamConfig
from .failures import Phase
from .recorded_trades import TradeIndex
from .recording_events import (
    Asked,
    Block,
    Closing,
    Dialled,
    Ended,
    Event,
    Fetched,
    FetchedBars,
    Opened,
    PhaseBegan,
    Pinged,
    Ponged,
    Received,
    Sent,
    pack,
)
from .recording_file import RecordingError, RecordingReader
from .transport import TlsInfo

_BLOCKS_IN_MEMORY, _UNPACKED_IN_MEMORY = 8, 16 * 1024 * 1024  # of the cache: whichever comes first
# Memory for events other than messages and trades may grow in proportion to the file's size, as in a real recording.
_KEPT_FOR_ALL, _KEPT_PER_BYTE = 64 * 1024 * 1024, 100
_OBJECT_BYTES, _BYTES_PER_PACKED = 200, 4  # the most memory of an event: a constant, plus this per packed byte
_INDEX_BYTES = 1500  # memory of the index of a symbol with one trade
_MOST_LINKS = 100_000  # more than the venue lets anybody dial in a day; a file from somewhere else cannot fill the memory
_PHASES = frozenset(phase.value for phase in Phase)  # a later release may know more
_COMBINED, _EVENT = b'{"stream"', b'{"e"'  # how every market event begins: those need no second look


class _Request(msgspec.Struct):
    method: str = ""
    id: int | str | None = None


@dataclass(slots=True)
class LinkScript:
    """How one recorded connection went. Times are seconds since the recording began.

    `replies` has the venue's answers to each kind of request in order, None where none came. `rtts` likewise for pings.
    """

    number: int
    config: msgspec.Raw
    joined: bool
    dialled_at: float
    phases: list[tuple[float, Phase]] = field(default_factory=list)
    opened_at: float | None = None
    transport: str = ""
    tls: TlsInfo | None = None
    end: Ended | None = None
    last_at: float = 0.0  # of its last event before the end
    blocks: list[int] = field(default_factory=list)
    frames: int = 0
    replies: dict[str, list[ControlReply | None]] = field(default_factory=dict)
    rtts: list[float | None] = field(default_factory=list)
    _asked: dict[int | str, tuple[str, int]] = field(default_factory=dict)
    _early: dict[int | str, ControlReply] = field(default_factory=dict)

    @property
    def dead(self) -> bool:
        """Whether this program gave it up while a ping was not answered."""
        ended_by_us = self.end is not None and self.end.failure is None
        return ended_by_us and bool(self.rtts) and self.rtts[-1] is None

    def note_message(self, at: float, offset: int) -> None:
        """Take in that a message came; it stands in the block at `offset`."""
        self.frames += 1
        self.last_at = at
        if not self.blocks or self.blocks[-1] != offset:
            self.blocks.append(offset)

    def note(self, event: Event) -> None:
        """Take in any other event."""
        if isinstance(event, Ended):
            # A Raw holds on to the whole block that it was unpacked from.
            failure = event.failure and msgspec.structs.replace(event.failure, errors=event.failure.errors.copy())
            self.end = msgspec.structs.replace(event, failure=failure)
            return
        self.last_at = event.at
        if isinstance(event, PhaseBegan) and event.phase in _PHASES:
            self.phases.append((event.at, Phase(event.phase)))
        elif isinstance(event, Opened):
            self.opened_at, self.transport, self.tls = event.at, event.transport, event.tls
        elif isinstance(event, Pinged):
            self.rtts.append(None)
        elif isinstance(event, Ponged) and 0 < event.number <= len(self.rtts):
            self.rtts[event.number - 1] = event.rtt_s
        elif isinstance(event, Sent):
            self._note_request(event.data)

    def note_reply(self, reply: ControlReply) -> None:
        # An error without an id is about the oldest request that is open.
        id = reply.id if reply.id is not None else next(iter(self._asked), None)
        if id is None:
            return
        if id in self._asked:
            method, index = self._asked.pop(id)
            self.replies[method][index] = reply
        elif len(self._early) < 64:
            self._early[id] = reply  # it was on record before the request was, which is put down once it is sent

    def _note_request(self, data: bytes) -> None:
        try:
            request = msgspec.json.decode(data, type=_Request)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        answers = self.replies.setdefault(request.method, [])
        early = None if request.id is None else self._early.pop(request.id, None)
        answers.append(early)
        if early is None and request.id is not None:
            self._asked[request.id] = (request.method, len(answers) - 1)


class Recording:
    """A recording that was read through once. Its messages and trades are read again when they are asked for."""

    def __init__(self, reader: RecordingReader) -> None:
        self._reader = reader
        self._cache: OrderedDict[int, tuple[Block, int]] = OrderedDict()  # with unpacked sizes
        self._may_keep = _KEPT_FOR_ALL + _KEPT_PER_BYTE * reader.size_bytes
        self.path = reader.path
        self.links: list[LinkScript] = []
        self.trades: dict[str, TradeIndex] = {}
        self.bars: dict[tuple[str, str], dict[int, Bar]] = {}
        self._probes: dict[tuple[str, int], list[AggTrade]] = {}  # answers to "the first from this id on", by symbol and id
        self.seconds = 0.0
        self.frames = 0
        self.closing = ""  # why it ended, empty when that is not on record
        self.damage = ""  # what of the file could not be read

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read all of a file: some three seconds for a million messages.

        Raises:
            RecordingError: it is not there, not a recording, of another version, or there is no connection in it.
        """
        reader = RecordingReader(Path(path))
        try:
            recording = cls(reader)
            recording._read()
        except BaseException:
            reader.close()
            raise
        return recording

    def close(self) -> None:
        self._reader.close()

    @property
    def config(self) -> StreamConfig:
        """What the stream was configured to, without proxy and CA file."""
        return _config(self.path, self.links[0].config)

    def messages(self, link: LinkScript) -> Iterator[tuple[float, bytes]]:
        """The messages of a connection with their times, without the venue's answers to requests."""
        for offset in link.blocks:
            for event in self._block(offset).events:
                if isinstance(event, Received) and event.link == link.number and _reply(event.data) is None:
                    yield event.at, event.data

    def known_trades(self, symbol: str, from_id: int | None, limit: int, at: float) -> list[AggTrade]:
        """What the venue's REST side could have answered at a moment: see `History.agg_trades`."""
        if limit == 1 and from_id is not None and (symbol, from_id) in self._probes:
            return self._probes[symbol, from_id]
        index = self.trades.get(symbol)
        highest = None if index is None else index.highest_known(at)
        if index is None or highest is None:
            return []
        wanted = index.last(highest, limit) if from_id is None else index.places(from_id, highest, limit)
        by_block: dict[int, list[int]] = {}
        for id, offset in wanted:
            by_block.setdefault(offset, []).append(id)
        found: dict[int, AggTrade] = {}
        for offset, ids in by_block.items():
            inside = self._trades_in(offset, symbol)
            found.update((id, inside[id]) for id in ids)
        return [found[id] for id, _ in wanted]

    def _trades_in(self, offset: int, symbol: str) -> dict[int, AggTrade]:
        trades: dict[int, AggTrade] = {}
        for event in self._block(offset).events:
            if isinstance(event, Fetched) and event.symbol == symbol:
                trades.update((trade.id, trade) for trade in event.trades)
            elif isinstance(event, Received) and (trade := _trade(event.data)) is not None and trade.symbol == symbol:
                trades[trade.id] = trade
        return trades

    def _block(self, offset: int) -> Block:
        cache = self._cache
        if offset in cache:
            cache.move_to_end(offset)
        else:
            cache[offset] = self._reader.block(offset)
            while len(cache) > 1 and (
                len(cache) > _BLOCKS_IN_MEMORY or sum(size for _, size in cache.values()) > _UNPACKED_IN_MEMORY
            ):
                cache.popitem(last=False)
        return cache[offset][0]

    def _keep(self, packed_bytes: int) -> None:
        """Raises RecordingError when memory use exceeds what a file of this size can need."""
        self._may_keep -= _OBJECT_BYTES + _BYTES_PER_PACKED * packed_bytes
        if self._may_keep < 0:
            raise RecordingError(f"{self.path}: unpacks to far more than a real recording of its size; record again")

    def _read(self) -> None:
        links: dict[int, LinkScript] = {}
        asked: dict[int, Asked] = {}  # requests without an answer yet
        for offset, block in self._reader:
            for event in block.events:
                if isinstance(event, Received):  # all but a few
                    if (link := links.get(event.link)) is not None:
                        self._take_in(link, event, offset)
                    continue
                if not isinstance(event, Fetched):
                    self._keep(len(pack(event)))
                if isinstance(event, Dialled):
                    if len(links) >= _MOST_LINKS:
                        raise RecordingError(f"{self.path}: has more than {_MOST_LINKS} connections; record for less long")
                    links[event.link] = LinkScript(event.link, event.config.copy(), event.joined, event.at)
                elif isinstance(event, Asked):
                    asked[event.request] = event
                elif isinstance(event, Fetched):
                    self._take_answer(asked.pop(event.request, None), event, offset)
                elif isinstance(event, FetchedBars):
                    kept = self.bars.setdefault((event.symbol, event.interval), {})
                    kept.update((bar.open_time_us, bar) for bar in event.bars)
                elif isinstance(event, Closing):
                    self.closing = event.reason
                elif (link := links.get(getattr(event, "link", 0))) is not None:
                    link.note(event)
            if block.events:
                self.seconds = max(self.seconds, block.events[-1].at)
        self.damage = self._reader.damage
        self.links = [links[number] for number in sorted(links)]
        if not self.links:
            raise RecordingError(f"{self.path}: the recording is empty, there is no connection in it; record for longer")
        for index in self.trades.values():
            index.complete()

    def _take_in(self, link: LinkScript, event: Received, offset: int) -> None:
        self.frames += 1
        link.note_message(event.at, offset)
        try:
            frame = decode_frame(event.data)
        except WireError:
            return
        if isinstance(frame, AggTrade):
            self._index(frame.symbol).add(frame.id, event.at, offset, streamed=True)
        elif isinstance(frame, ControlReply):
            self._keep(len(event.data))
            link.note_reply(frame)

    def _take_answer(self, asked: Asked | None, event: Fetched, offset: int) -> None:
        if asked is not None and asked.limit == 1 and asked.start is not None:
            # A look at where the venue's history begins, or what time it was at an id: far from all that was streamed.
            first = event.trades[:1]
            self._keep(len(event.symbol) + len(pack(first)))
            self._probes[event.symbol, asked.start] = first
            return
        for trade in event.trades:
            self._index(event.symbol).add(trade.id, event.at, offset, streamed=False)

    def _index(self, symbol: str) -> TradeIndex:
        index = self.trades.get(symbol)
        if index is None:
            self._keep((_INDEX_BYTES + len(symbol)) // _BYTES_PER_PACKED)
            index = self.trades[symbol] = TradeIndex()
        return index


def _reply(data: bytes) -> ControlReply | None:
    """A message as the venue's answer to a request, None when it is something else."""
    if data.startswith((_COMBINED, _EVENT)):
        return None
    try:
        frame = decode_frame(data)
    except WireError:
        return None
    return frame if isinstance(frame, ControlReply) else None


def _trade(data: bytes) -> AggTrade | None:
    try:
        frame = decode_frame(data)
    except WireError:
        return None
    return frame if isinstance(frame, AggTrade) else None


def _config(path: Path, recorded: msgspec.Raw) -> StreamConfig:
    """A recorded configuration; what a later release has added to it is left out, what this one has added is the default."""
    try:
        return msgspec.msgpack.decode(recorded, type=StreamConfig)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise RecordingError(f"{path}: the configuration in the recording cannot be used ({error}); record again") from error
