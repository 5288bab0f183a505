"""One outage after another, by either library: live again after one delay, and nothing lost or stored twice."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from stream_support import FIRST_ID, MemorySink, authority, clock, eventually, exchange, reaches, start
from transport_support import LIBRARIES, below_tls
from websockets.frames import Close, Frame, Opcode

from quantai_tui.stream.transport import MAX_FRAME_BYTES
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState


def _reset_inside_a_frame(connection):
    connection.transport.write(Frame(Opcode.TEXT, b"x" * 1000).serialize(mask=False)[:500])
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


def _end_without_goodbye(connection):
    connection.transport.get_extra_info("socket")._sock.shutdown(socket.SHUT_WR)


def _damage(connection):
    below_tls(connection, b"\x17\x03\x03\x00\x40" + os.urandom(64))


def _write(*frames):
    def fault(connection):
        connection.transport.write(b"".join(frame.serialize(mask=False) for frame in frames))

    return fault


FAULTS = {
    "RST inside a frame": (_reset_inside_a_frame, "reset"),
    "FIN without close": (_end_without_goodbye, "reset"),
    "damaged TLS record": (_damage, "tls_broken"),
    "close 1012": (_write(Frame(Opcode.CLOSE, Close(1012, "restart").serialize())), "closed"),
    "close 1008": (_write(Frame(Opcode.CLOSE, Close(1008, "").serialize())), "policy"),
    "oversized frame": (_write(Frame(Opcode.TEXT, b"x" * (MAX_FRAME_BYTES + 1))), "oversized"),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=FAULTS)
async def test_an_outage_loses_nothing(exchange, start, clock, library, fault, kind):
    sink = MemorySink()
    stream = await start(sink, transport=library)
    await reaches(stream, S.LIVE)
    assert stream.snapshot().transport == library
    await exchange.trade(10)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 9))
    fault(exchange.connections[0])
    await reaches(stream, S.BACKOFF)
    assert stream.snapshot().last_error.kind == kind
    exchange.make(7)
    await clock.advance(1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 19), "the seven that were missed are fetched")
    assert exchange.dials == 2


@pytest.mark.parametrize("library", LIBRARIES)
async def test_frames_that_make_no_sense_do_not_cost_their_neighbours(exchange, start, library):
    sink = MemorySink()
    stream = await start(sink, transport=library)
    await reaches(stream, S.LIVE)
    await exchange.trade(2)
    for nonsense in (b"\xff\xfe", b"{", b'{"e":"aggTrade"}', b"[]"):
        await exchange.send_raw(nonsense)
    await exchange.trade(2)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 3))
    assert stream.state is S.LIVE
    assert stream.snapshot().bad_frames == 4
