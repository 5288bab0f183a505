"""A ban binds everything that leaves this address, whichever side was told of it; and REST is never spoken in the clear."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from stream_support import SYMBOL, ManualClock, MemorySink, authority, clock, eventually, exchange, reaches, settle_loop, start

from quantai_tui.stream import HttpStatusError, LinkFault, Phase, RestClient, classify
from quantai_tui.stream.gate import Gate
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState


@pytest.mark.parametrize("library", ["websockets", "picows"])
async def test_a_429_on_the_handshake_blocks_rest_too_until_it_is_over(exchange, start, clock, library):
    exchange.upgrade_status = (429, {"Retry-After": "5"})
    stream = await start(MemorySink(), transport=library)
    await reaches(stream, S.BACKOFF)
    assert stream.snapshot().last_error.kind == "rate_limited"
    bars = asyncio.create_task(stream.warm_klines(SYMBOL, "1m", 5))
    for _ in range(10):
        await clock.advance(0.49)
        stream.reconnect_now()
    assert (exchange.dials, exchange.rest_requests) == (1, []), "inside the 5 s"
    exchange.upgrade_status = None
    await clock.advance(0.2)
    async with asyncio.timeout(8):
        await bars
    await reaches(stream, S.LIVE)


@pytest.mark.parametrize(("status", "seconds"), [(429, 5.0), (418, 130.0)])
async def test_a_ban_on_rest_blocks_the_dials_too_until_it_is_over(exchange, start, clock, status, seconds):
    stream = await start(MemorySink())
    await reaches(stream, S.LIVE)
    exchange.rest_answers = [(status, {"Retry-After": str(int(seconds))})]
    with pytest.raises(HttpStatusError):
        await stream.warm_klines(SYMBOL, "1m", 5)
    asked, dialled = len(exchange.rest_requests), exchange.dials
    again = asyncio.create_task(stream.warm_klines(SYMBOL, "1m", 5))
    exchange.cut()
    await reaches(stream, S.BACKOFF)
    for _ in range(10):
        await clock.advance(seconds / 10 - 0.01)
        stream.reconnect_now()
    assert (len(exchange.rest_requests), exchange.dials) == (asked, dialled), "inside the ban"
    await clock.advance(0.2)
    async with asyncio.timeout(8):
        await again
    await eventually(lambda: stream.state is S.LIVE)


async def test_rest_slows_down_before_the_limit_on_its_weight(exchange):
    clock = ManualClock()
    context = ssl.create_default_context(cafile=str(exchange.ca_file))
    rest = RestClient(f"https://localhost:{exchange.rest_port}", lambda: context, Gate(clock), clock=clock)
    exchange.rest_headers = {"X-MBX-USED-WEIGHT-1M": "4800"}
    await rest.agg_trades(SYMBOL, None, 1)
    assert rest.used_weight == 4800
    asked = len(exchange.rest_requests)
    following = asyncio.create_task(rest.server_time())
    left = 60.0 - clock.time() % 60.0
    await clock.advance(left - 0.5)
    assert len(exchange.rest_requests) == asked
    await clock.advance(0.6)
    async with asyncio.timeout(8):
        await following
    await rest.close()


@pytest.mark.parametrize("url", ["http://localhost:1", "ftp://localhost", "localhost:1"])
async def test_rest_is_never_spoken_in_the_clear(url):
    rest = RestClient(url, ssl.create_default_context, Gate())
    with pytest.raises(LinkFault, match="EXCHANGE_REST_URL") as caught:
        await rest.server_time()
    failure = classify(caught.value, Phase.REST)
    assert (failure.kind, failure.fatal) == ("config", True)
    await settle_loop()
    await rest.close()
