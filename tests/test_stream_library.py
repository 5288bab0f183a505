"""The stream on its own, as a library: an asynchronous iterator of batches, and statistics."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from stream_support import FIRST_ID, MemorySink, ScriptedExchange, authority, eventually, exchange, trade
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.stream import ResilientStream, TradeBatch
from quantai_tui.stream.batch_queue import BatchQueue
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "exchange"]  # fixtures


async def test_batches_come_out_of_the_stream_in_id_order_and_a_gap_is_filled(exchange: ScriptedExchange):
    got: list[int] = []
    async with ResilientStream(exchange.config(initial_delay=0.05)) as stream:

        async def read() -> None:
            async for batch in stream:
                assert isinstance(batch, TradeBatch)
                ids = [one.id for one in batch.trades]
                assert ids == sorted(ids)
                got.extend(ids)

        reading = asyncio.create_task(read())
        await eventually(lambda: exchange.subscribed)
        await exchange.trade(3)
        await eventually(lambda: len(got) == 3)
        exchange.cut()
        exchange.make(4)
        await eventually(lambda: stream.state is StreamState.LIVE and stream.snapshot().reconnects == 1)
        await exchange.trade(1)
        await eventually(lambda: got == list(range(FIRST_ID, exchange.next_id)), f"{got}")
        stats = stream.get_connection_stats()
        assert stats["symbols"]["ETHUSDT"]["repaired"] == 4
        assert stats["symbols"]["ETHUSDT"]["missing"] == 0
        assert stats["reconnect_statistics"]["total_attempts"] == 1
    await reading  # it ends with the stream


async def test_iterating_over_a_stream_that_was_stopped_before_its_start_ends(exchange: ScriptedExchange):
    stream = ResilientStream(exchange.config())
    await stream.stop()
    async with asyncio.timeout(8):
        assert [batch async for batch in stream] == []


async def test_a_slow_reader_slows_the_socket_and_loses_nothing(exchange: ScriptedExchange):
    got: list[int] = []
    async with ResilientStream(exchange.config(buffer_trades=50)) as stream:
        await eventually(lambda: exchange.subscribed)
        sending = asyncio.create_task(exchange.trade(20_000))  # which waits, once the socket is not read any more
        await eventually(lambda: stream.paused)
        async with aclosing(aiter(stream)) as batches:
            async for batch in batches:
                got += [one.id for one in batch.trades]
                if len(got) == 20_000:
                    break
        await sending
    assert got == list(range(FIRST_ID, exchange.next_id))


async def test_the_iteration_ends_when_the_stream_gives_up(exchange: ScriptedExchange):
    exchange.upgrade_status = (451, {})
    async with ResilientStream(exchange.config(exit_on_failure=True, max_retries=1)) as stream:
        async with asyncio.timeout(8):
            assert [batch async for batch in stream] == []
        assert (await stream.wait_failed()).kind.value == "location"


async def test_with_a_sink_there_is_nothing_to_iterate_over(exchange: ScriptedExchange):
    stream = ResilientStream(exchange.config(), MemorySink())
    with pytest.raises(RuntimeError, match="sink"):
        await anext(aiter(stream))


async def test_an_append_that_waits_for_room_goes_on_when_nobody_will_read_any_more():
    queue = BatchQueue(1)
    await queue.append("ETHUSDT", [trade(1)])
    waiting = asyncio.create_task(queue.append("ETHUSDT", [trade(2)]))
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.close()
    await waiting
    assert [batch.trades[0].id async for batch in queue] == [1, 2]


async def test_nothing_is_kept_that_nobody_will_read_any_more():
    queue = BatchQueue(10)
    queue.close()
    await queue.append("ETHUSDT", [trade(1)])
    assert [batch async for batch in queue] == []


def test_a_second_start_while_the_first_reads_the_store_is_refused() -> None:
    async def twice() -> None:
        async with Rig(22, idle=True) as rig:
            position = rig.sink.position

            async def slow(symbol):
                await asyncio.sleep(0.1)
                return await position(symbol)

            rig.sink.position = slow
            first = asyncio.create_task(rig.stream.start())
            await asyncio.sleep(0.05)
            with pytest.raises(RuntimeError, match="started once"):
                await rig.stream.start()
            await first

    run(twice())
