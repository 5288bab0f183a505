"""Binance's public files in every packing, and one clear error for each way in which a file can be wrong."""

from __future__ import annotations

import gzip
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from market_support import NO_NUMBERS, walk

from quantai_tui.market import ArchiveError, file_fingerprint, read_archive
from quantai_tui.market.archive import Archive, NamelessArchiveError

_NAME = "XRPETH-aggTrades-2019-10-11"
_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,is_best_match"
_TRADES = walk(30)
_LINES = [f"{t.id},{t.price},{t.quantity},{t.first_id},{t.last_id},{t.time},{t.buyer_is_maker},True" for t in _TRADES]
_KLINE = "1570752000000,0.1,0.2,0.1,0.2,5.0,1570752059999,1.0,3,1.0,1.0,0"


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _csv(folder: Path, content: bytes) -> Path:
    path = folder / f"{_NAME}.csv"
    path.write_bytes(content)
    return path


def _gz(folder: Path, content: bytes) -> Path:
    path = folder / f"{_NAME}.csv.gz"
    path.write_bytes(gzip.compress(content))
    return path


def _zip(folder: Path, content: bytes) -> Path:
    path = folder / f"{_NAME}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{_NAME}.csv", content)
        archive.writestr("CHECKSUM", "0")
    return path


def _all(archive: Archive, n: int = 7) -> list[object]:
    return [trade for batch in archive.batches(n) for trade in batch]


@pytest.mark.parametrize("pack", [_csv, _gz, _zip])
@pytest.mark.parametrize(
    "lines",
    [
        _LINES,
        [_HEADER, *_LINES],
        ["\ufeff" + _HEADER, *_LINES, ""],
        [line.replace("True", "true").replace("False", "FALSE") for line in _LINES],
        [line.rsplit(",", 1)[0] for line in _LINES],
    ],
    ids=["plain", "header", "header behind a byte order mark", "other spelling of true", "seven columns"],
)
def test_a_file_reads_the_same_in_every_packing(pack: Callable[[Path, bytes], Path], lines: list[str], tmp_path: Path) -> None:
    archive = read_archive(pack(tmp_path, _text(lines)))
    assert archive.symbol == "XRPETH"
    assert _all(archive) == _TRADES
    assert archive.bytes_read == archive.bytes_total > 0
    assert _all(archive, 1000) == _TRADES, "a second reading starts at the beginning"


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    assert _all(read_archive(_csv(tmp_path, _text(_LINES).replace(b"\n", b"\r\n")))) == _TRADES


def test_microsecond_stamps_keep_their_unit(tmp_path: Path) -> None:
    path = tmp_path / "ETHUSDT-aggTrades-2025-01.csv"
    path.write_text("5,3000.10,0.5,7,7,1735689600123456,true,true\n")
    (batch,) = read_archive(path).batches()
    assert (batch[0].time, batch[0].time_us, batch[0].symbol) == (1735689600123456, 1735689600123456, "ETHUSDT")


def test_the_symbol_may_be_given_where_the_name_does_not_tell_it(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_bytes(_text(_LINES))
    assert read_archive(path, "xrpeth").symbol == "XRPETH"


def test_the_real_file_holds_12477_consecutive_trades(xrpeth: Path) -> None:
    trades = [trade for batch in read_archive(xrpeth).batches() for trade in batch]
    assert [trade.id for trade in trades] == list(range(13519807, 13532284))


def test_progress_rises_to_the_files_size(xrpeth: Path) -> None:
    archive = read_archive(xrpeth)
    seen = [archive.bytes_read for _ in archive.batches(500)]
    assert seen == sorted(seen)
    assert archive.bytes_read == archive.bytes_total == xrpeth.stat().st_size


def _with_line(number: int, line: str) -> bytes:
    return _text([*_LINES[: number - 1], line, *_LINES[number:]])


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 0, "holds no trades"),
        (_text([_HEADER]), 0, "holds no trades"),
        (_text([_KLINE]), 1, "klines"),
        (_with_line(5, _KLINE), 5, "klines"),
        (_with_line(3, "1,2,3"), 3, "3 columns"),
        (_with_line(4, "x,1.0,1.0,1,1,1,True,True"), 4, "aggregate id is 'x'"),
        (_with_line(4, "4,abc,1.0,1,1,1,True,True"), 4, "price is 'abc'"),
        (_with_line(4, "4,nan,1.0,1,1,1,True,True"), 4, "price is 'nan'"),
        (_with_line(4, "4,1.0,-1,1,1,1,True,True"), 4, "quantity is '-1'"),
        (_with_line(4, "4,1.0,1.0,1.5,1,1,True,True"), 4, "first id is '1.5'"),
        (_with_line(4, "4,1.0,1.0,1,,1,True,True"), 4, "last id is ''"),
        (_with_line(4, "4,1.0,1.0,1,1,now,True,True"), 4, "timestamp is 'now'"),
        (_with_line(4, "4,1.0,1.0,1,1,1,maybe,True"), 4, "buyer is maker is 'maybe'"),
        (_with_line(4, f"{2**63},1.0,1.0,1,1,1,true,True"), 4, "aggregate id is '9223372036854775808'"),
        (_with_line(4, "-1,1.0,1.0,1,1,1,true,True"), 4, "aggregate id is '-1'"),
        (_with_line(4, f"4,1.0,1.0,1,{2**53},1,true,True"), 4, "last id is"),
        (_with_line(4, f"4,1.0,1.0,1,1,{2**53},true,True"), 4, "timestamp is"),
        (_with_line(4, "4,1.0,1e-1400,1,1,1,true,True"), 4, "quantity is '1e-1400'"),
        (_with_line(4, f"4,{'1' * 41},1.0,1,1,1,true,True"), 4, "price is"),
        (_with_line(1, f"{2**53 - 1},1.0,1.0,1,1,1,True,True"), 1, "far from those around it"),
        (_with_line(8, f"{2**53 - 1},1.0,1.0,1,1,1,True,True"), 8, "far from those around it"),
        (_with_line(30, f"{2**53 - 1},1.0,1.0,1,1,1,True,True"), 30, "far from those before it"),
        (_with_line(4, "4," + "1" * 2100), 4, "2048 characters or more"),
        (_text([*_LINES, *[""] * 1001]), 1031, "more than 1000 lines are empty"),
        (_with_line(9, "9,1.0,1.0,1,1,1,True,True").replace(b"9,1.0", b"9,\xff\xfe"), 9, "price is"),
    ],
)
@pytest.mark.parametrize("pack", [_csv, _gz, _zip])
def test_a_bad_file_names_line_reason_and_remedy(
    pack: Callable[[Path, bytes], Path], content: bytes, line: int, reason: str, tmp_path: Path
) -> None:
    path = pack(tmp_path, content)
    with pytest.raises(ArchiveError, match=reason) as caught:
        _all(read_archive(path))
    assert (caught.value.path, caught.value.line) == (path, line)
    assert caught.value.remedy
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [text for text in NO_NUMBERS if not {",", "\n", "\r"} & set(text)])
@pytest.mark.parametrize(
    ("column", "name"),
    enumerate(["aggregate id", "price", "quantity", "first id", "last id", "timestamp"]),
)
def test_archive_numbers_must_be_plain_digits(column: int, name: str, text: str, tmp_path: Path) -> None:
    fields = ["4", "1.0", "1.0", "1", "1", "1", "true", "True"]
    if name in ("first id", "last id") and text == "-1":
        pytest.skip("the venue's placeholders")
    fields[column] = text
    with pytest.raises(ArchiveError, match=f"line 4: {name} is"):
        _all(read_archive(_csv(tmp_path, _with_line(4, ",".join(fields)))))


@pytest.mark.parametrize("n", [7, 15])
def test_a_row_with_an_id_far_above_the_others_is_in_no_batch(n: int, tmp_path: Path) -> None:
    content = _with_line(15, f"{2**53 - 1},1.0,1.0,1,1,1,True,True")
    read: list[int] = []
    with pytest.raises(ArchiveError, match="line 15"):
        read.extend(trade.id for batch in read_archive(_csv(tmp_path, content)).batches(n) for trade in batch)
    for batch in read_archive(_csv(tmp_path, _text(_LINES[:14]))).batches(n):
        read.extend(trade.id for trade in batch)
    assert max(read) < 2**40


def test_id_jump_confirmed_by_the_next_row_is_read(tmp_path: Path) -> None:
    ids = [1, 2, 500_000, 500_001, 900_000, 900_001]
    lines = [f"{id},1.0,1.0,{id},{id},{1_570_752_000_000 + id},True,True" for id in ids]
    assert [trade.id for batch in read_archive(_csv(tmp_path, _text(lines))).batches(3) for trade in batch] == ids


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    for read in (read_archive, file_fingerprint):
        with pytest.raises(ArchiveError, match="no such file"):
            read(tmp_path / f"{_NAME}.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / f"{_NAME}.csv"
    folder.mkdir()
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_archive(folder)


def test_a_truncated_gzip_is_told_from_a_whole_one(xrpeth: Path, tmp_path: Path) -> None:
    path = tmp_path / xrpeth.name
    path.write_bytes(xrpeth.read_bytes()[:100_000])
    with pytest.raises(ArchiveError, match="ends in the middle"):
        _all(read_archive(path))


def test_a_gzip_that_is_none_and_a_zip_that_is_none_are_refused(tmp_path: Path) -> None:
    for suffix in ("csv.gz", "zip"):
        path = tmp_path / f"{_NAME}.{suffix}"
        path.write_bytes(_text(_LINES))
        with pytest.raises(ArchiveError, match="cannot be read"):
            read_archive(path)


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path, _text(_LINES))
    content = bytearray(path.read_bytes())
    content[80:140] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="cannot be read"):
        _all(read_archive(path))


def test_lone_low_id_is_damage_but_unordered_blocks_are_not(tmp_path: Path) -> None:
    low, high = ([line.replace(line.split(",")[0], str(n + k), 1) for k, line in enumerate(_LINES)] for n in (1, 900_000))
    read = _all(read_archive(_csv(tmp_path, _text([*high, *low]))))
    assert [trade.id for trade in read] == [*range(900_000, 900_030), *range(1, 31)]
    with pytest.raises(ArchiveError, match=r"line 11: aggregate id 1 is far from those around it; .* or sort its lines by id"):
        _all(read_archive(_csv(tmp_path, _text([*high[:10], low[0], *high[10:]]))))


def test_ids_may_be_unordered_and_repeated(tmp_path: Path) -> None:
    lines = [*_LINES[10:], *_LINES[:10], _LINES[3]]
    assert _all(read_archive(_csv(tmp_path, _text(lines)))) == [*_TRADES[10:], *_TRADES[:10], _TRADES[3]]


@pytest.mark.parametrize(("name", "symbol"), [("BTCUSDT_240628", "BTCUSDT_240628"), ("btcusd_perp", "BTCUSD_PERP")])
def test_a_symbol_with_an_underscore_is_read_from_the_name(name: str, symbol: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}-aggTrades-2024-06-01.csv"
    path.write_bytes(_text(_LINES))
    assert read_archive(path).symbol == symbol


@pytest.mark.parametrize(
    "name", ["trades.csv", "X-aggTrades-2024.csv", f"{'A' * 21}-aggTrades-2024.csv", "ETH.USDT-aggTrades-.csv"]
)
def test_file_name_without_symbol_is_refused_with_a_general_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(_text(_LINES))
    with pytest.raises(NamelessArchiveError, match=r"rename it, as in ETHUSDT-aggTrades-2024-06\.csv$"):
        read_archive(tmp_path / name)


@pytest.mark.parametrize("symbol", ["", "ETH USDT", "ETH/USDT", "A" * 21, "\x1b[31m"])
def test_invalid_symbol_is_refused(symbol: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is not a symbol"):
        read_archive(_csv(tmp_path, _text(_LINES)), symbol)


def test_macos_files_in_a_zip_are_ignored(tmp_path: Path) -> None:
    path = _zip(tmp_path, _text(_LINES))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"__MACOSX/._{_NAME}.csv", b"\x00\x05\x16\x07")
        archive.writestr(f"._{_NAME}.csv", b"\x00\x05\x16\x07")
    assert _all(read_archive(path)) == _TRADES


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("damaged", [False, True])
def test_zip_with_another_compression_is_refused_before_unpacking(method: int, damaged: bool, tmp_path: Path) -> None:
    path = tmp_path / f"{_NAME}.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{_NAME}.csv", _text(_LINES))
    if damaged:
        content = bytearray(path.read_bytes())
        content[100:140] = bytes(40)
        path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"compressed in another way than Binance's files; unpack it, and name the \.csv file"):
        read_archive(path)


def test_an_encrypted_zip_is_not_told_as_damage(tmp_path: Path) -> None:
    path = _zip(tmp_path, _text(_LINES))
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag bits of the first member, before its content
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"is encrypted; unpack it, and name the \.csv file"):
        read_archive(path)


def test_zip_with_an_undecodable_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{_NAME}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\u00e9\u00e9.csv", _text(_LINES))
    path.write_bytes(path.read_bytes().replace("\u00e9\u00e9".encode(), b"\xff\xfe\xff\xfe"))
    with pytest.raises(ArchiveError, match=r"whose name is not UTF-8; unpack it, and name the \.csv file"):
        read_archive(path)


def test_line_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = _gz(tmp_path, b"1" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="2048 characters or more"):
            read_archive(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("names", [[], ["a.csv", "b.csv"]])
def test_a_zip_must_hold_one_csv_file(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / f"{_NAME}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ["readme.txt", *names]:
            archive.writestr(name, _text(_LINES))
    with pytest.raises(ArchiveError, match=f"holds {len(names)} CSV files"):
        read_archive(path)


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = _csv(tmp_path, b"a")
    before = file_fingerprint(path)
    assert len(before) == 12
    path.write_bytes(b"b")
    assert file_fingerprint(path) != before
