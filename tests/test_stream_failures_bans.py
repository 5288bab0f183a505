"""A ban binds everything that leaves this address, whichever side was told of it; and REST is never spoken in the clear."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from stream_support import SYMBOL, ManualClock, MemorySink, authority, clock, eventually, exchange, reaches, settle_loop, start
from transport_support import server_tls, tcp_server
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.stream import HttpStatusError, LinkFault, Phase, RestClient, classify
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.tls import tls_context
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


def test_a_ban_counts_even_if_a_command_drops_the_dial_that_brought_it() -> None:
    async def dropped() -> None:
        async with Rig(21) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            rig.venue.limits.refuse_next = (429, 60.0)
            let_in = rig.venue._let_in

            def hurried(refusal):
                rig.stream.reconnect_now()
                let_in(refusal)

            rig.venue._let_in = hurried
            rig.venue.cut_all()
            await asyncio.sleep(30.0)
            assert len(rig.venue.dialled) == 2
            assert 0 < rig.gate.closed_for <= 60

    run(dropped())


def answers(raw: bytes):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    return answer


async def asked(authority, raw: bytes, gate: Gate | None = None):
    """What a request comes to that is answered so."""
    context = tls_context(None)
    authority.configure_trust(context)
    async with tcp_server(answers(raw), server_tls(authority)) as port:
        client = RestClient(f"https://localhost:{port}", lambda: context, gate or Gate())
        try:
            await client.server_time()
        except Exception as error:
            return classify(error, Phase.REST)
        finally:
            await client.close()
    raise AssertionError("the request did not fail")


async def test_rest_follows_nobody_anywhere(authority):
    heard: list[bytes] = []

    async def elsewhere(reader, writer):
        heard.append(await reader.read(1))

    for tls, scheme in ((None, "http"), (server_tls(authority), "https")):
        async with tcp_server(elsewhere, tls) as port:
            location = f"Location: {scheme}://localhost:{port}/".encode()
            failure = await asked(authority, b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + location + b"\r\n\r\n")
        assert (failure.kind, heard) == ("bad_status", [])


async def test_of_two_waits_that_rest_asks_for_the_longer_one_counts(authority):
    gate = Gate()
    raw = b"HTTP/1.1 429 No\r\nRetry-After: 3\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n"
    failure = await asked(authority, raw, gate)
    assert failure.min_wait_s == 90.0
    assert 80 < gate.closed_for <= 90


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{", "reset"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX-MBX-USED-WEIGHT-1M: " + b"9" * 5000 + b"\r\nContent-Length: 0\r\n\r\n", "protocol"),
    ],
    ids=["cut in its body", "cut in a chunk", "no JSON", "no text", "a weight without measure"],
)
async def test_an_answer_that_is_none_is_known_for_what_it_is(authority, raw, kind):
    assert (await asked(authority, raw)).kind == kind


async def test_rest_is_not_asked_at_an_address_with_secrets_in_it():
    for url in (
        "https://user:sesame@localhost:1",
        "https://localhost:1?key=sesame",
        "http://user:sesame@localhost",
        "https://[::1",
    ):
        client = RestClient(url, lambda: tls_context(None), Gate())
        with pytest.raises(LinkFault) as caught:
            await client.server_time()
        assert caught.value.kind == "config"
        assert "sesame" not in str(caught.value)
        await client.close()
