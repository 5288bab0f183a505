"""Binance's public aggTrades files, as users have them on disk: `.csv`, `.csv.gz` or `.zip`, with or without a header line."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, NoReturn, cast

from .trades import AggTrade, is_number, trade_id, whole_number

_NAME = re.compile(r"^([A-Z0-9_]+)-aggTrades-", re.IGNORECASE)
_COLUMNS = (8, 7)  # spot; USD-M has no `best match`
_KLINE_COLUMNS = 12
_BOOLEANS = {"true": True, "false": False}
_WANTED = "download an aggTrades file, SYMBOL-aggTrades-YYYY-MM.zip"
_AGAIN = "the file is damaged: download it again"
# Ids rise one by one. A row farther than this above the one before counts only if another row follows it.
_FARTHEST_JUMP = 100_000
_UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)


class ArchiveError(Exception):
    """A file that cannot be imported: `path`, `line` (0 where no line is to blame), `reason` and `remedy`."""

    def __init__(self, path: Path, line: int, reason: str, remedy: str) -> None:
        where = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{where}: {reason}; {remedy}")
        self.path = path
        self.line = line
        self.reason = reason
        self.remedy = remedy


class Archive:
    """One file of trades. `batches` may be called again and again: each call reads the file from its beginning."""

    def __init__(self, path: Path, symbol: str) -> None:
        self.path = path
        self.symbol = symbol
        self.bytes_total = path.stat().st_size
        self.bytes_read = 0  # of the file as it is on disk, by the newest reading

    def batches(self, n: int = 5_000) -> Generator[list[AggTrade], None, None]:
        """The trades in the file's order, about `n` at a time; `time` in the file's own unit. Raises ArchiveError."""
        batch: list[AggTrade] = []
        previous = -1
        jumped = 0  # the line of a row that lies far above the one before, until another row follows it
        with _lines(self.path) as (raw, lines):
            for number, line in lines:
                trade = _trade(self.path, number, line, self.symbol)
                far = previous >= 0 and trade.id - previous > _FARTHEST_JUMP
                if jumped and (far or trade.id <= previous):
                    raise ArchiveError(self.path, jumped, f"aggregate id {previous} is far from those around it", _AGAIN)
                jumped = number if far else 0
                if trade.id <= previous:
                    raise ArchiveError(
                        self.path, number, f"aggregate id {trade.id} does not rise (before it: {previous})", _AGAIN
                    )
                previous = trade.id
                batch.append(trade)
                if len(batch) >= n and not jumped:
                    self.bytes_read = min(raw.tell(), self.bytes_total)
                    yield batch
                    batch = []
        if jumped:
            raise ArchiveError(self.path, jumped, f"aggregate id {previous} is far from those before it", _AGAIN)
        self.bytes_read = self.bytes_total
        if batch:
            yield batch


def read_archive(path: Path, symbol: str | None = None) -> Archive:
    """Look at a file of aggregate trades: its first lines are checked at once, the rest as it is read.

    The symbol is taken from the name, `SYMBOL-aggTrades-...`, unless it is given. Raises ArchiveError.
    """
    path = Path(path)
    if symbol is None:
        named = _NAME.match(path.name)
        if named is None:
            raise ArchiveError(path, 0, "the name does not begin with SYMBOL-aggTrades-", "say which symbol it is, with --symbol")
        symbol = named[1]
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
        try:
            with zipfile.ZipFile(raw) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
                if len(names) != 1:
                    raise ArchiveError(path, 0, f"holds {len(names)} CSV files instead of one", _WANTED)
                with archive.open(names[0]) as member:
                    yield member
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            _cannot_read(path, error)
    else:
        yield raw


def _numbered(path: Path, text: io.TextIOWrapper) -> Generator[tuple[int, str], None, None]:
    try:
        for number, line in enumerate(text, 1):
            if number == 1 and not line[:1].isdigit() and _is_header(line):
                continue
            if not line.isspace():
                yield number, line
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
