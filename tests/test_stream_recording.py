"""Recording what a stream receives: a file that is complete, bounded and without secrets, and a stream that does not notice."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_support import CONFIG, MB, Basket, Begin, MemoryTransport, a_block, a_file, a_link, begin, frame, frames_of
from stream_support import FIRST_ID, MemorySink, authority, eventually, exchange, reaches, trade

from quantai_tui.stream import LinkFault, StreamConfig, recorded
from quantai_tui.stream.advice import FailureKind
from quantai_tui.stream.recorded import Recording
from quantai_tui.stream.recording import Recorder, RecordingTransport
from quantai_tui.stream.recording_file import MAGIC, RecordingError, RecordingReader, is_recording
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "begin", "exchange"]  # fixtures

ODD = [b"", b"\xff\xfe not text", b'{"stream":', b"\x00" * 70_000]


async def test_every_message_is_kept_byte_for_byte_and_nobody_else_may_read_it(tmp_path):
    path = tmp_path / "frames.qrec"
    recorder, basket = Recorder(), Basket()
    begun = recorder.start(path, MB)
    assert (begun.path, begun.limit_bytes, begun.frames, begun.ended) == (str(path), MB, 0, "")
    link, inner = await a_link(recorder, basket)
    sent = [*ODD, *(frame(trade(id)) for id in range(50))]
    for data in sent:
        inner.deliver(memoryview(data) if data else data)
    await link.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
    done = await recorder.stop()
    assert done is not None
    assert (done.frames, done.ended, done.size_bytes) == (len(sent), "stopped", path.stat().st_size)
    assert basket.taken == sent == frames_of(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_recording(path)
    assert Recording.open(path).links[0].tls == inner.tls


async def test_while_nothing_is_recorded_a_message_takes_the_way_it_would_take_without_a_recorder(tmp_path):
    recorder, basket = Recorder(), Basket()
    _, inner = await a_link(recorder, basket)
    assert inner.receiver.take == basket.take
    recorder.start(tmp_path / "a.qrec", MB)
    assert inner.receiver.take != basket.take
    inner.deliver(b"recorded")
    await recorder.stop()
    assert inner.receiver.take == basket.take
    inner.deliver(b"not recorded")
    recorder.start(tmp_path / "b.qrec", MB)
    inner.deliver(b"recorded again")
    await recorder.stop()
    assert frames_of(tmp_path / "a.qrec") == [b"recorded"]
    assert frames_of(tmp_path / "b.qrec") == [b"recorded again"]
    assert basket.taken == [b"recorded", b"not recorded", b"recorded again"]


async def test_the_decorators_hide_nothing(tmp_path):
    inner = MemoryTransport()
    transport = RecordingTransport(inner, Recorder())
    assert (transport.name, transport.colour) == ("memory", "green")
    link = await transport.dial(CONFIG, Basket(), lambda phase: None)
    await link.send("hello")
    assert (link.tls, link.sent) == (inner.links[0].tls, ["hello"])
    pong = await link.ping(b"x")
    assert pong is inner.links[0].pongs[0]


async def test_one_recording_at_a_time_and_no_file_is_overwritten(tmp_path):
    path = tmp_path / "once.qrec"
    recorder = Recorder()
    assert recorder.snapshot() is None
    assert await recorder.stop() is None
    recorder.start(path, MB)
    with pytest.raises(RecordingError, match=r"recording already, into .*once\.qrec"):
        recorder.start(tmp_path / "twice.qrec", MB)
    await recorder.stop()
    kept = path.read_bytes()
    with pytest.raises(RecordingError, match="exists already"):
        recorder.start(path, MB)
    assert path.read_bytes() == kept
    with pytest.raises(RecordingError, match="cannot be made"):
        recorder.start(tmp_path / "nowhere" / "x.qrec", MB)
    assert not (tmp_path / "twice.qrec").exists()


async def test_a_recording_ends_at_its_limit_and_says_so_while_the_messages_go_on(tmp_path):
    path = tmp_path / "full.qrec"
    recorder, basket = Recorder(), Basket()
    recorder.start(path, 60_000)
    _, inner = await a_link(recorder, basket)
    sent = 0
    while not recorder.snapshot().ended:
        inner.deliver(os.urandom(1000))
        sent += 1
        await asyncio.sleep(0.001)
        assert sent < 5000
    done = await recorder.stop()
    assert "the limit of 0.06 MB is reached" in done.ended
    assert done.size_bytes == path.stat().st_size <= 60_000
    kept = frames_of(path)
    assert kept == basket.taken[: len(kept)]
    assert len(basket.taken) == sent
    assert inner.receiver.take == basket.take
    assert Recording.open(path).closing == done.ended


async def test_when_the_disk_does_not_keep_up_the_recording_loses_and_not_the_stream(tmp_path):
    path = tmp_path / "slow.qrec"
    recorder, basket = Recorder(queue_bytes=20_000), Basket()
    recorder.start(path, MB)
    _, inner = await a_link(recorder, basket)
    sent = [frame(trade(id)) for id in range(500)]
    for data in sent:  # in one turn: the thread has no chance
        inner.deliver(data)
    assert basket.taken == sent
    await eventually(lambda: recorder.snapshot().ended)
    assert recorder.snapshot().ended == "disk too slow"
    kept = frames_of(path)
    assert 0 < len(kept) < 500
    assert kept == sent[: len(kept)]


async def test_a_disk_that_refuses_ends_the_recording_and_says_why(tmp_path):
    recorder, basket = Recorder(), Basket()
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder.start(tmp_path / "refused.qrec", 10 * MB)
    _, inner = await a_link(recorder, basket)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        for _ in range(100):
            inner.deliver(os.urandom(1000))
        await eventually(lambda: recorder.snapshot().ended)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert recorder.snapshot().ended == "cannot be written: File too large"
    assert len(basket.taken) == 100


async def test_no_secret_gets_into_a_recording(tmp_path):
    path = tmp_path / "secret.qrec"
    config = StreamConfig(
        symbols=("ETHUSDT",),
        ws_url="wss://user:hunter2@venue.example:9443/x?token=hunter2",
        rest_url="https://hunter2@venue.example?key=hunter2",
        proxy="http://me:hunter2@proxy.example:3128",
        ca_file="/home/hunter2/ca.pem",
    )
    recorder = Recorder()
    recorder.start(path, MB)
    inner = MemoryTransport()
    inner.failure = LinkFault(
        FailureKind.PROXY,
        "http://me:hunter2@proxy.example:3128 is no good, nor socks5://me:hunter2@other, nor wss://venue.example/x?token=hunter2",
    )
    with pytest.raises(LinkFault):
        await RecordingTransport(inner, recorder).dial(config, Basket(), lambda phase: None)
    await recorder.stop()
    with RecordingReader(path) as reader:
        everything = repr([msgspec.msgpack.decode(msgspec.msgpack.encode(block)) for _, block in reader])
    assert "venue.example:9443" in everything
    assert "hunter2" not in everything
    assert b"hunter2" not in path.read_bytes()


CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from recording_support import MB, Basket, a_link
from quantai_tui.stream.recording import Recorder

async def main():
    recorder = Recorder()
    recorder.start(Path(sys.argv[1]), MB)
    _, inner = await a_link(recorder, Basket())
    for number in range(10**6):
        inner.deliver(b"message %d" % number)
        print(number, flush=True)
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


def test_after_a_kill_all_but_the_last_second_is_there(tmp_path):
    path = tmp_path / "killed.qrec"
    command = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while (number := int(child.stdout.readline())) < 200:
            pass
        child.send_signal(signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().split()]
    last = max([number, *said])
    kept = frames_of(path)
    assert kept == [b"message %d" % n for n in range(len(kept))]
    assert last - len(kept) <= 100, "a hundred messages a second, and at least a block a second"
    assert Recording.open(path).closing == ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[bytes, list[bytes]]:
    """A recording of several blocks, and the messages in it."""
    path = tmp_path_factory.mktemp("whole") / "whole.qrec"
    sent = [frame(trade(id)) for id in range(1500)]

    async def record() -> None:
        recorder = Recorder()
        recorder.start(path, MB)
        _, inner = await a_link(recorder, Basket())
        for data in sent:
            inner.deliver(data)
        await recorder.stop()

    asyncio.run(record())
    return path.read_bytes(), sent


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_off_or_damaged_anywhere_gives_its_beginning_or_one_clear_error(tmp_path_factory, whole, data):
    content, sent = whole
    place = data.draw(st.integers(0, len(content) - 1))
    broken = bytearray(content[:place]) if data.draw(st.booleans()) else bytearray(content)
    if len(broken) == len(content):
        broken[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("cut") / "cut.qrec"
    path.write_bytes(broken)
    refused: list[str] = []
    kept: list[bytes] = []
    try:
        kept = frames_of(path)
    except RecordingError as error:
        refused.append(str(error))
    assert kept == sent[: len(kept)]
    assert all(str(path) in text for text in refused)


async def test_a_damaged_tail_is_reported(tmp_path, whole):
    path = tmp_path / "tail.qrec"
    path.write_bytes(whole[0][:-1])
    assert "no whole block" in Recording.open(path).damage


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file; check the path"),
        (b"", "the file is empty"),
        (b"timestamp,price\n1,2\n", "is not a recording; make one with 'quantai-tui record'"),
        (MAGIC, "is not a recording"),
        (MAGIC + b"\x00\x02\x00\x00\x00\x00", "version 2, this program reads 1; replay it with the release that recorded it"),
        (MAGIC + b"\x00\x01\x00\x00\x00\x04abcd", "header is damaged"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_words(tmp_path, content, says):
    path = tmp_path / "file.qrec"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError, match=str(path)) as refused:
        Recording.open(path)
    assert says in str(refused.value)


async def test_a_recording_without_a_connection_is_called_empty(tmp_path):
    recorder = Recorder()
    recorder.start(tmp_path / "empty.qrec", MB)
    await recorder.stop()
    with pytest.raises(RecordingError, match="the recording is empty"):
        Recording.open(tmp_path / "empty.qrec")


def test_a_block_that_would_unpack_to_more_than_memory_is_not_unpacked(tmp_path, whole):
    header_end = 14 + int.from_bytes(whole[0][10:14], "big")
    bomb = zlib.compress(bytes(64 * MB), 9)
    path = tmp_path / "bomb.qrec"
    block = len(bomb).to_bytes(4, "big") + zlib.crc32(bomb).to_bytes(4, "big") + bomb
    path.write_bytes(whole[0][:header_end] + block)
    with RecordingReader(path) as reader:
        assert list(reader) == []
        assert "no whole block" in reader.damage


@pytest.mark.parametrize("text", ["1_0", " 1 ", "-1", "nan", "1e5"])
def test_fetched_rows_with_invalid_numbers_are_damage(tmp_path, text):
    good = [7, "2.5", "1.0", 1, 1, 1_700_000_000_000, True, "ETHUSDT"]
    bar = [0, 60, "1", "1", "1", "1", "1", "1", "1", 1, True]
    for at in (1, 2):
        row = {**dict(zip("apqflTms", good, strict=True)), "apqflTms"[at]: text}
        trades = a_file(tmp_path / "trades.qrec", a_block(_DIAL), a_block(["trades", 1.0, 1, "ETHUSDT", [row]]))
        with RecordingReader(trades) as reader:
            assert (len(list(reader)), "no whole block" in reader.damage) == (1, True)
    names = ("open_time_us", "interval_s", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "trades")
    row = {**dict(zip(names, bar[:-1], strict=True)), "close": text}
    bars = a_file(tmp_path / "bars.qrec", a_block(_DIAL), a_block(["bars", 1.0, 1, "ETHUSDT", "1m", [row]]))
    with RecordingReader(bars) as reader:
        assert (len(list(reader)), "no whole block" in reader.damage) == (1, True)


def test_fetched_rows_with_numbers_are_read(tmp_path):
    row = dict(zip("apqflTms", [7, "2.5", "1.0", 1, 1, 1_700_000_000_000, True, "ETHUSDT"], strict=True))
    trades = a_file(tmp_path / "trades.qrec", a_block(_DIAL), a_block(["trades", 1.0, 1, "ETHUSDT", [row]]))
    with RecordingReader(trades) as reader:
        assert (len(list(reader)), reader.damage) == (2, "")


_DEEP = b"\x91" * 100_000 + b"\xc0"
_DIAL = ["dial", 0.0, 1, {"symbols": ["ETHUSDT"]}, False]


def test_nesting_without_end_is_damage_and_no_crash(tmp_path):
    deep = a_file(tmp_path / "deep.qrec", a_block(_DIAL), b"\x94" + a_block(_DIAL)[1:] + _DEEP)
    recording = Recording.open(deep)
    assert (len(recording.links), "no whole block" in recording.damage) == (1, True)
    recording.close()
    header = a_file(tmp_path / "header.qrec", header=b"\x82\xa7started\x01\xa1x" + _DEEP)
    with pytest.raises(RecordingError, match=r"header\.qrec.*header is damaged"):
        Recording.open(header)


@pytest.mark.parametrize("change", [{"buffer_trades": "many"}, {"ws_url": 7}, {"symbols": []}, {"symbols": 5}, {"jitter": None}])
def test_a_configuration_that_is_none_is_refused_in_words(tmp_path, change):
    path = a_file(tmp_path / "odd.qrec", a_block(["dial", 0.0, 1, {"symbols": ["ETHUSDT"], **change}, False]))
    recording = Recording.open(path)
    with pytest.raises(RecordingError, match=r"odd\.qrec.*configuration.*record again"):
        _ = recording.config
    recording.close()


def test_what_a_later_release_knows_beside_is_left_out(tmp_path):
    config = {"symbols": ["ETHUSDT"], "of_tomorrow": [1], "ping_interval": 7}
    path = a_file(
        tmp_path / "new.qrec", a_block(["dial", 0.0, 1, config, False], ["phase", 0.0, 1, "warp"], ["phase", 0.0, 1, "live"])
    )
    recording = Recording.open(path)
    assert recording.config == StreamConfig(symbols=("ETHUSDT",), ping_interval=7)
    assert [phase for _, phase in recording.links[0].phases] == ["live"]
    recording.close()


def test_a_small_file_cannot_bring_connections_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "_MOST_LINKS", 50)
    for count in (50, 51):
        path = a_file(tmp_path / f"{count}.qrec", a_block(*(["dial", 0.0, link, {}, False] for link in range(count))))
        if count > 50:
            with pytest.raises(RecordingError, match="more than 50 connections"):
                Recording.open(path)
        else:
            Recording.open(path).close()


async def test_a_stream_says_what_it_records_and_goes_on_when_the_recording_ends(exchange, begin: Begin, tmp_path):
    sink = MemorySink()
    stream = begin(sink)
    stream.start_recording(tmp_path / "stream.qrec", MB)
    await stream.start()
    await reaches(stream, StreamState.LIVE)
    await exchange.trade(5)
    await eventually(lambda: sink.appended == 5)
    shown = stream.snapshot().recording
    assert (shown.path, shown.frames, shown.ended) == (str(tmp_path / "stream.qrec"), 6, "")
    await stream.stop_recording()
    assert stream.snapshot().recording.ended == "stopped"
    await exchange.trade(5)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 9))
    recording = Recording.open(tmp_path / "stream.qrec")
    link = recording.links[0]
    assert (link.transport, link.tls.version, link.frames) == (stream.snapshot().transport, "TLSv1.3", 6)
    assert [one.ok for one in link.replies["SUBSCRIBE"]] == [True]
    assert recording.config.symbols == ("ETHUSDT",)
    recording.close()
