"""Binance's public aggTrades files, as users have them on disk: `.csv`, `.csv.gz` or `.zip`, with or without a header line."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn, cast

from ..symbols import SYMBOL_RULE, is_symbol
from .trades import AggTrade, is_number, trade_id, whole_number

_NAME = re.compile(r"^([^-]+)-aggTrades-", re.IGNORECASE)
_COLUMNS = (8, 7)  # spot; USD-M has no `best match`
_KLINE_COLUMNS = 12
_BOOLEANS = {"true": True, "false": False}
_WANTED = "download an aggTrades file, SYMBOL-aggTrades-YYYY-MM.zip"
_AGAIN = "the file is damaged: download it again"
# Ids rise nearly one by one. A row farther than this from the previous one counts only if a row with a nearby id follows.
_FARTHEST_JUMP = 100_000
_SORTED = f"{_AGAIN}, or sort its lines by id"
# What gzip and zipfile raise for damaged files; undecodable member names raise ValueError.
_UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error)
# The longest line of a valid file has 200 characters. A small file can unpack to lines that fill the memory or take
# hours, because repetitions compress a thousandfold.
_LONGEST_LINE = 2048
_MOST_EMPTY_LINES = 1000
# zipfile unpacks other methods without a limit: 1 kB can become 1 GB.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1  # of a member's flag bits
_UNPACK = "unpack it, and name the .csv file"


class ArchiveError(Exception):
    """A file that cannot be imported: `path`, `line` (0 where no line is to blame), `reason` and `remedy`."""

    def __init__(self, path: Path, line: int, reason: str, remedy: str) -> None:
        where = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{where}: {reason}; {remedy}")
        self.path = path
        self.line = line
        self.reason = reason
        self.remedy = remedy


class NamelessArchiveError(ArchiveError):
    """The file name does not contain the symbol."""


class Archive:
    """One file of trades. `batches` may be called again and again: each call reads the file from its beginning."""

    def __init__(self, path: Path, symbol: str) -> None:
        self.path = path
        self.symbol = symbol
        self.bytes_total = path.stat().st_size
        self.bytes_read = 0  # of the file as it is on disk, by the newest reading

    def batches(self, n: int = 5_000) -> Generator[list[AggTrade], None, None]:
        """Yield trades in file order, about `n` at a time; `time` in the file's own unit. Raises ArchiveError.

        Ids may be out of order and repeated: Binance has published such files. A single id far from all others counts as damage.
        """
        batch: list[AggTrade] = []
        previous, first = -1, 0
        unsure = 0  # the line of a row that lies far from the one before, or is the first, until a row beside it follows
        with _lines(self.path) as (raw, lines):
            for number, line in lines:
                trade = _trade(self.path, number, line, self.symbol)
                first = first or number
                far = previous >= 0 and abs(trade.id - previous) > _FARTHEST_JUMP
                if far and unsure:
                    raise ArchiveError(self.path, unsure, f"aggregate id {previous} is far from those around it", _SORTED)
                unsure = number if far or number == first else 0
                previous = trade.id
                batch.append(trade)
                if len(batch) >= n and not unsure:
                    self.bytes_read = min(raw.tell(), self.bytes_total)
                    yield batch
                    batch = []
        if unsure and unsure != first:
            raise ArchiveError(self.path, unsure, f"aggregate id {previous} is far from those before it", _SORTED)
        self.bytes_read = self.bytes_total
        if batch:
            yield batch


def read_archive(path: Path, symbol: str | None = None) -> Archive:
    """Look at a file of aggregate trades: its first lines are checked at once, the rest as it is read.

    The symbol is taken from the name, `SYMBOL-aggTrades-...`, unless it is given. Raises ArchiveError, NamelessArchiveError.
    """
    path = Path(path)
    if symbol is None:
        named = _NAME.match(path.name)
        if named is None or not is_symbol(named[1].upper()):
            raise NamelessArchiveError(
                path, 0, "the name does not begin with SYMBOL-aggTrades-", "rename it, as in ETHUSDT-aggTrades-2024-06.csv"
            )
        symbol = named[1]
    elif not is_symbol(symbol.upper()):
        raise ArchiveError(path, 0, f"{symbol[:40]!r} is not a symbol", f"use {SYMBOL_RULE}")
    if not path.exists():
        raise ArchiveError(path, 0, "there is no such file", "check the path")
    with _lines(path) as (_, lines):
        first = next(lines, None)
        if first is None:
            raise ArchiveError(path, 0, "the file holds no trades", _AGAIN)
        _trade(path, *first, symbol)
    return Archive(path, symbol.upper())


def file_fingerprint(path: Path) -> str:
    """Twelve hexadecimal digits that change with the file's content. Raises ArchiveError when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        _cannot_read(Path(path), error)


@contextmanager
def _lines(path: Path) -> Iterator[tuple[IO[bytes], Iterator[tuple[int, str]]]]:
    """The lines below the header, numbered, and the file itself, whose position tells the progress."""
    try:
        raw = path.open("rb")
    except OSError as error:
        _cannot_read(path, error)
    with raw, _content(path, raw) as content:
        # Bytes that are no UTF-8 become fields that are no numbers, and so are blamed on their line.
        text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace")
        numbered = _numbered(path, text)
        with closing(numbered), text:
            yield raw, numbered


@contextmanager
def _content(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".gz":
        with gzip.open(raw) as unpacked:
            yield cast("IO[bytes]", unpacked)
    elif path.suffix.lower() == ".zip":
        with _zip_member(path, raw) as member:
            yield member
    else:
        yield raw


def _zip_member(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """The one CSV file of a ZIP, ignoring the files that macOS adds."""
    try:
        archive = zipfile.ZipFile(raw)
        found = [member for member in archive.infolist() if _is_csv(PurePosixPath(member.filename))]
        if len(found) != 1:
            raise ArchiveError(path, 0, f"holds {len(found)} CSV files instead of one", _WANTED)
        if found[0].flag_bits & _ENCRYPTED:
            raise ArchiveError(path, 0, "is encrypted", _UNPACK)
        if found[0].compress_type not in _ZIP_METHODS:
            raise ArchiveError(path, 0, "is compressed in another way than Binance's files", _UNPACK)
        return archive.open(found[0])
    except UnicodeDecodeError as error:
        raise ArchiveError(path, 0, "holds a file whose name is not UTF-8", _UNPACK) from error
    except _UNREADABLE as error:
        _cannot_read(path, error)


def _is_csv(name: PurePosixPath) -> bool:
    return name.suffix.lower() == ".csv" and not name.name.startswith("._") and "__MACOSX" not in name.parts


def _numbered(path: Path, text: io.TextIOWrapper) -> Generator[tuple[int, str], None, None]:
    empty = 0
    try:
        for number, line in enumerate(iter(partial(text.readline, _LONGEST_LINE), ""), 1):
            if len(line) == _LONGEST_LINE:
                raise ArchiveError(path, number, f"the line has {_LONGEST_LINE} characters or more", _WANTED)
            if number == 1 and not line[:1].isdigit() and _is_header(line):
                continue
            if not line.isspace():
                yield number, line
            elif (empty := empty + 1) > _MOST_EMPTY_LINES:
                raise ArchiveError(path, number, f"more than {_MOST_EMPTY_LINES} lines are empty", _WANTED)
    except _UNREADABLE as error:
        _cannot_read(path, error)


def _is_header(line: str) -> bool:
    return all(field.strip().replace("_", "").isalpha() for field in line.split(","))


def _trade(path: Path, number: int, line: str, symbol: str) -> AggTrade:
    fields = line.rstrip().split(",")
    try:
        id, price, quantity, first_id, last_id, time, buyer_is_maker = fields[:7]
        if len(fields) in _COLUMNS and is_number(price) and is_number(quantity):
            return AggTrade(
                whole_number(id),
                price,
                quantity,
                trade_id(first_id),
                trade_id(last_id),
                whole_number(time),
                _BOOLEANS[buyer_is_maker.lower()],
                symbol,
            )
    except (ValueError, KeyError):
        pass  # named field by field below
    raise _what_is_wrong(path, number, fields)


def _what_is_wrong(path: Path, number: int, fields: list[str]) -> ArchiveError:
    if len(fields) == _KLINE_COLUMNS:
        return ArchiveError(path, number, "these are klines, not trades", _WANTED)
    if len(fields) not in _COLUMNS:
        return ArchiveError(path, number, f"{len(fields)} columns where an aggTrades file has 8 or 7", _WANTED)
    names = ("aggregate id", "price", "quantity", "first id", "last id", "timestamp", "buyer is maker")
    for name, field in zip(names, fields, strict=False):
        if not _field_is_good(name, field):
            return ArchiveError(path, number, f"{name} is {field[:40]!r}", f"{_AGAIN}, or {_WANTED}")
    return ArchiveError(path, number, "not a trade", _WANTED)


def _field_is_good(name: str, field: str) -> bool:
    if name in ("price", "quantity"):
        return is_number(field)
    if name == "buyer is maker":
        return field.lower() in _BOOLEANS
    try:
        (trade_id if name in ("first id", "last id") else whole_number)(field)
    except ValueError:
        return False
    return True


def _cannot_read(path: Path, error: BaseException) -> NoReturn:
    if isinstance(error, EOFError):
        raise ArchiveError(path, 0, "the file ends in the middle", _AGAIN) from error
    if isinstance(error, FileNotFoundError):
        raise ArchiveError(path, 0, "there is no such file", "check the path") from error
    if isinstance(error, (PermissionError, IsADirectoryError)):
        raise ArchiveError(path, 0, f"cannot be read ({error.strerror})", "give the path of a file that you may read") from error
    raise ArchiveError(path, 0, f"cannot be read ({error})", _AGAIN) from error
