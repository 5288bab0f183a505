"""The smaller parts: configuration, the gate on dials, subscription frames, REST, and what importing costs."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from types import SimpleNamespace

import pytest
from stream_support import SYMBOL, ManualClock, ScriptedExchange, authority, exchange

from quantai_tui.market.wire import WireError
from quantai_tui.settings import Settings
from quantai_tui.stream import HttpStatusError, Phase, RestClient, StreamConfig, classify
from quantai_tui.stream.gate import DIAL_WINDOW_S, DIALS_PER_WINDOW, Gate
from quantai_tui.stream.websockets_link import WebsocketsTransport

__all__ = ["authority", "exchange"]  # fixtures


def test_the_config_takes_its_numbers_from_the_settings():
    settings = Settings(SYMBOLS="ethusdt,BTCUSDT", WS_RECONNECT_MAX_RETRIES=3, WS_SSL_TIMEOUT=5, BACKFILL_START="12345")
    config = StreamConfig.from_settings(settings, ws_url="wss://localhost:1", exit_on_failure=True)
    assert config.symbols == ("ETHUSDT", "BTCUSDT")
    assert (config.max_retries, config.ssl_timeout, config.backfill_start) == (3, 5.0, 12345)
    assert (config.ws_url, config.rest_url) == ("wss://localhost:1", "https://api.binance.com")
    assert (config.ca_file, config.proxy, config.exit_on_failure) == (None, None, True)
    assert StreamConfig.from_settings(settings, backfill_start="earliest").backfill_start == "earliest"


@pytest.mark.parametrize("change", [{"symbols": ()}, {"backfill_start": "yesterday"}])
def test_a_config_that_makes_no_sense_names_the_setting(change):
    with pytest.raises(ValueError, match=r"SYMBOLS|BACKFILL_START"):
        StreamConfig(**{"symbols": (SYMBOL,), "ws_url": "wss://x", "rest_url": "https://x", **change})


def test_dials_stay_within_the_venues_limit():
    clock = ManualClock()
    gate = Gate(clock)
    for _ in range(DIALS_PER_WINDOW):
        assert gate.dial_wait()[0] == 0.0
        gate.note_dial()
        clock._now += 0.1
    wait, why = gate.dial_wait()
    assert wait == pytest.approx(DIAL_WINDOW_S - DIALS_PER_WINDOW * 0.1)
    assert "limit of new connections" in why
    clock._now += wait
    assert gate.dial_wait()[0] == pytest.approx(0.0)


def test_a_ban_is_never_made_shorter():
    clock = ManualClock()
    gate = Gate(clock)
    gate.close_for(120.0, "banned")
    gate.close_for(5.0, "too many")
    assert (gate.closed_for, gate.reason) == (120.0, "banned")
    clock._now += 120.0
    assert (gate.closed_for, gate.reason) == (0.0, "")


async def test_rest_speaks_to_the_venue_and_names_what_it_refuses(exchange: ScriptedExchange):
    context = ssl.create_default_context(cafile=str(exchange.ca_file))
    clock = ManualClock()
    gate = Gate(clock)
    rest = RestClient(f"https://localhost:{exchange.rest_port}", lambda: context, gate, clock=clock)
    made = exchange.make(5)
    exchange.rest_headers = {"X-MBX-USED-WEIGHT-1M": "17"}
    assert [one.id for one in await rest.agg_trades(SYMBOL, made[1].id, 2)] == [made[1].id, made[2].id]
    assert [one.id for one in await rest.agg_trades(SYMBOL, None, 1)] == [made[-1].id]
    assert rest.used_weight == 17
    assert await rest.server_time() == exchange.now_ms
    exchange.rest_answers = [(429, {"Retry-After": "3"})]
    with pytest.raises(HttpStatusError) as caught:
        await rest.server_time()
    assert (caught.value.status, caught.value.retry_after_s, caught.value.code) == (429, 3.0, -1003)
    assert gate.closed_for == 3.0, "nobody may ask before, whoever was told"
    clock._now += 3.0
    exchange.rest_answers = [(200, {})]
    with pytest.raises(WireError):
        await rest.agg_trades(SYMBOL, 0)
    await rest.close()
    await rest.close()


@pytest.mark.parametrize(
    ("host", "trusted", "kind"), [("localhost", False, "tls_untrusted"), ("127.0.0.1", True, "tls_hostname")]
)
async def test_a_bad_certificate_on_the_rest_side_is_named_like_one_on_the_stream(exchange, host, trusted, kind):
    context = ssl.create_default_context(cafile=str(exchange.ca_file) if trusted else None)
    rest = RestClient(f"https://{host}:{exchange.rest_port}", lambda: context, Gate())
    with pytest.raises(OSError) as caught:
        await rest.server_time()
    assert classify(caught.value, Phase.REST).kind.value == kind
    await rest.close()


async def test_a_dial_that_is_dropped_just_as_tls_is_done_leaves_nothing_open_beneath_the_next(exchange: ScriptedExchange):
    def drop(phase: Phase) -> None:
        if phase is Phase.UPGRADE:
            dropped.cancel()

    context = ssl.create_default_context(cafile=str(exchange.ca_file))
    receiver = SimpleNamespace(take=lambda data: None, is_full=lambda: False)
    transport = WebsocketsTransport(lambda: context)
    dropped = asyncio.create_task(transport.dial(exchange.config(), receiver, drop))
    with pytest.raises(asyncio.CancelledError):
        await dropped
    link = await transport.dial(exchange.config(), receiver, lambda phase: None)
    assert link.tls is not None
    await link.close()


def test_importing_the_stream_loads_neither_transport_nor_http_nor_torch():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, quantai_tui.stream; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"websockets", "aiohttp", "torch", "textual", "numpy", "pydantic"}
    assert not heavy & {name.partition(".")[0] for name in loaded}
