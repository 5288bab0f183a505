"""How long the stream waits for a refusing venue, by header or body, on REST and on both libraries' upgrades."""

from __future__ import annotations

import asyncio
import ssl
import time
from email.utils import formatdate
from http import HTTPStatus

import pytest
from aiohttp import web
from stream_support import SYMBOL, ManualClock, MemorySink, authority, clock, exchange, reaches, start
from transport_support import LIBRARIES, Collector, server_tls, tcp_server, websocket_server
from websockets.asyncio.server import Response
from websockets.datastructures import Headers

from quantai_tui.market.wire import encode_rest_error
from quantai_tui.stream import HttpStatusError, Phase, RestClient, StreamConfig, classify
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.refusals import LONGEST_WAIT_S, wait_asked_for
from quantai_tui.stream.transports import ConfiguredTransport
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

NOW = 1_700_000_000


def ban_until(seconds: float) -> bytes:
    words = (
        f"Way too many requests; IP banned until {int(seconds * 1000)}. Please use the websocket for live updates to avoid bans."
    )
    return encode_rest_error(-1003, words)


def http_date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


CASES: dict[str, tuple[list[str], str | None, bytes, float | None]] = {
    "seconds": (["120"], None, b"", 120.0),
    "the longest of several": (["5", "120", "7"], None, b"", 120.0),
    "longer than any ban": (["99999999"], None, b"", LONGEST_WAIT_S),
    "hundreds of digits": (["9" * 400], None, b"", LONGEST_WAIT_S),
    "a date": ([http_date(NOW + 90)], None, b"", 90.0),
    "a date by the venue's own clock": ([http_date(NOW + 90)], http_date(NOW + 60), b"", 30.0),
    "a date that is over": ([http_date(NOW - 90)], None, b"", None),
    "a date of another year": ([http_date(NOW + 4e8)], None, b"", None),
    "neither number nor date": (["soon", "-5", "1e3", "٣"], "yesterday", b"", None),
    "a ban in the body": ([], None, ban_until(NOW + 45), 45.0),
    "a ban in the body by the venue's own clock": ([], http_date(NOW + 40), ban_until(NOW + 45), 5.0),
    "a ban in the body that is over": ([], None, ban_until(NOW - 1), None),
    "a ban in the body without end": ([], None, ban_until(NOW + 4e8), None),
    "a ban in the body without end, by the venue's own clock": ([], http_date(NOW), ban_until(NOW + 4e8), LONGEST_WAIT_S),
    "a header beside a ban in the body": (["30"], None, ban_until(NOW + 45), 30.0),
    "a body that is not JSON": ([], None, b"<p>IP banned until 1700000045000</p>", 45.0),
    "too many digits": ([], None, b"banned until 17000000450001", None),
    "nothing": ([], None, b"", None),
}


@pytest.mark.parametrize(("retry_after", "date", "body", "wait"), CASES.values(), ids=CASES)
def test_the_wait_that_an_answer_asks_for(retry_after, date, body, wait):
    assert wait_asked_for(retry_after, date=date, body=body, now_s=NOW) == wait


def rest_of(port: int, exchange, clock: ManualClock) -> tuple[RestClient, Gate]:
    gate = Gate(clock)
    context = ssl.create_default_context(cafile=str(exchange.ca_file))
    return RestClient(f"https://localhost:{port}", lambda: context, gate, clock=clock), gate


async def answering(authority, handler) -> tuple[web.AppRunner, int]:
    app = web.Application()
    app.router.add_get("/api/v3/time", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls(authority)).start()
    return runner, runner.addresses[0][1]


@pytest.mark.parametrize(("seconds", "least", "most"), [(40.0, 38.0, 41.0), (900.0, 898.0, 901.0), (-5.0, 120.0, 120.0)])
async def test_ban_without_a_header_lasts_as_its_body_says(authority, exchange, seconds, least, most):
    async def banned(request: web.Request) -> web.Response:
        return web.Response(status=418, body=ban_until(time.time() + seconds))

    runner, port = await answering(authority, banned)
    rest, gate = rest_of(port, exchange, ManualClock())
    with pytest.raises(HttpStatusError) as caught:
        await rest.server_time()
    assert least <= gate.closed_for <= most
    assert classify(caught.value, Phase.REST).kind == "banned"
    assert "IP banned until" in gate.reason
    await rest.close()
    await runner.cleanup()


@pytest.mark.parametrize("status", [500, 503, 404])
async def test_a_fault_of_rest_closes_the_gate_for_5_s_at_most_whatever_it_asks(authority, exchange, status):
    async def faulty(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": "300"})

    runner, port = await answering(authority, faulty)
    rest, gate = rest_of(port, exchange, ManualClock())
    with pytest.raises(HttpStatusError) as caught:
        await rest.server_time()
    assert gate.closed_for == classify(caught.value, Phase.REST).min_wait_s == 5.0
    await rest.close()
    await runner.cleanup()


async def test_no_request_leaves_before_the_ban_body_arrives(authority, exchange):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def banned(request: web.Request) -> web.StreamResponse:
        body = ban_until(time.time() + 40.0)
        response = web.StreamResponse(status=418, headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        begun.set()
        await go_on.wait()
        await response.write(body)
        return response

    runner, port = await answering(authority, banned)
    rest, gate = rest_of(port, exchange, ManualClock())
    asked = asyncio.create_task(rest.server_time())
    await begun.wait()
    async with asyncio.timeout(8):
        while not gate.closed_for:
            await asyncio.sleep(0.01)
    assert gate.closed_for <= 4.0, "until the body has arrived"
    asked.cancel()
    await asyncio.wait([asked])
    assert gate.closed_for == 120.0, "no request read the body"
    go_on.set()
    await rest.close()
    await runner.cleanup()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [({}, ban_until(NOW + 1000 + 45), 45.0), ({"Retry-After": http_date(NOW + 1000 + 90)}, b"", 90.0), ({}, b"", 120.0)],
    ids=["words", "date", "neither"],
)
async def test_a_ban_on_the_upgrade_is_understood_as_on_rest(authority, library, headers, body, wait, tmp_path):
    def refuse(connection, request):
        length = {"Content-Length": str(len(body))}
        return Response(418, HTTPStatus(418).phrase, Headers({**headers, **length}), body)

    context = ssl.create_default_context()
    authority.configure_trust(context)
    transport = ConfiguredTransport(lambda: context, ManualClock())
    async with websocket_server(authority, None, process_request=refuse) as url:
        config = StreamConfig(symbols=(SYMBOL,), ws_url=url, transport=library)
        with pytest.raises(HttpStatusError) as caught:
            await transport.dial(config, Collector(), lambda phase: None)
    failure = classify(caught.value, Phase.UPGRADE)
    assert (failure.kind, failure.min_wait_s) == ("banned", wait)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("then", ["hangs", "hangs up"])
async def test_ban_on_the_upgrade_counts_without_its_body(authority, library, then):
    async def banned(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 I'm a teapot\r\nRetry-After: 130\r\nContent-Length: 500\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(60.0 if then == "hangs" else 0.0)
        writer.close()

    context = ssl.create_default_context()
    authority.configure_trust(context)
    phases: list[Phase] = []
    async with tcp_server(banned, server_tls(authority)) as port:
        config = StreamConfig(symbols=(SYMBOL,), ws_url=f"wss://localhost:{port}", transport=library)
        async with asyncio.timeout(8):
            with pytest.raises(HttpStatusError) as caught:
                await ConfiguredTransport(lambda: context).dial(config, Collector(), phases.append)
    failure = classify(caught.value, phases[-1])
    assert (failure.kind, failure.min_wait_s) == ("banned", 130.0)


async def test_ban_in_the_upgrade_body_blocks_every_dial(exchange, start, clock):
    stream = await start(MemorySink())
    await reaches(stream, StreamState.LIVE)
    exchange.upgrade_status = (418, {"Retry-After": http_date(clock.time() + 200)})
    exchange.cut()
    await reaches(stream, StreamState.BACKOFF)
    await clock.advance(1.0)
    async with asyncio.timeout(8):
        while stream.snapshot().banned_for_s < 190.0:
            await asyncio.sleep(0.01)
    assert "will dial in" in stream.reconnect_now()
