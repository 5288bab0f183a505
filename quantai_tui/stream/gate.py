"""When a dial or a REST request may leave at all: bans that the venue has pronounced, and its limit on new connections.

The venue counts by address, for websocket and REST alike, and lengthens a ban that is not respected. So there is one gate for
both, no command of the operator passes it, and all engines of a user share what it knows, over restarts as well.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from msgspec.structs import replace

from ..arguments import check_type, path_from
from ..cleaning import one_line
from ..telemetry import SYSTEM_CLOCK, Clock
from .gate_file import LOCK_WAIT_S, BanEntry, Change, Damaged, GateFile, ScopeEntry, Scopes, boot_id

log = logging.getLogger("quantai_tui.stream")

T = TypeVar("T")

# Binance: 300 new connections per 5 minutes and address, refused ones included. A tenth is left to other programs here.
DIALS_PER_WINDOW = 270
DIAL_WINDOW_S = 300.0
LONGEST_BAN_S = 3 * 24 * 3600.0  # Binance's longest
VENUE = "venue"

_USED_UP = "the venue's limit of new connections per 5 min is used up"
_LOST = "the record of dials and bans was damaged: nothing leaves until its 5 minutes are over"
_MAX_SCOPES = 16
_HEAL_S = 1.0  # times in the file that are further off than this are written anew
_ANSWER_S = LOCK_WAIT_S + 3.0  # a disk that takes longer counts as none
_CLOSE_S = 2.0


def scope_of(ws_url: str) -> str:
    """Whose counting a dial to `ws_url` falls under: the venue's, or that of an exchange on this machine, by host and port.

    An address that cannot be read counts as the venue's.
    """
    try:
        parts = urlsplit(ws_url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        return VENUE
    return f"{host}:{port}" if _is_loopback(host) else VENUE


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@dataclass(frozen=True, slots=True)
class _Ban:
    id: str
    ends: float  # monotonic
    for_s: float
    reason: str


class Gate:
    """Says how long to wait before the next dial or request.

    With a `path` its knowledge is shared: each dial is counted in that file before it leaves, and a ban that another process has
    met is seen before the next dial and the next request. Where the file cannot be used the gate goes on with what it knows
    itself, and `note` says why; `close` it at the end. `scope` keeps venues apart (see `scope_of`).

    What is read is turned into monotonic time when it is first seen, and written back from there. So a wall clock that is set
    forward ends no ban, and one that is set back makes none longer than the venue has said. Where the file was written before
    the machine was started, or on another, that holds for bans that this process knows.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, path: Path | None = None, scope: str = VENUE) -> None:
        self._clock = clock
        check_type("scope", scope, str, "text, as scope_of makes it")
        self._scope = scope
        self._file = GateFile(path_from("path", path)) if path is not None else None
        self._seen: tuple[int, int, int] | None = None
        self._damaged = False
        self._mutex = threading.Lock()  # around all below; held for moments, never while the disk works
        self._ban: _Ban | None = None
        self._dials: dict[str, float] = {}  # identity and monotonic time of the dials within the window
        self._offset = clock.time() - clock.monotonic()  # when the file was last read
        self._unsaved = False
        self._saving: Future[None] | None = None
        self.note = ""

    def close_for(self, seconds: float, reason: str) -> None:
        """Nothing may leave for so long. A ban is only ever made longer, never shorter, by a second verdict."""
        if not seconds > 0:
            return
        with self._mutex:
            if not self._ban_from(min(seconds, LONGEST_BAN_S), min(seconds, LONGEST_BAN_S), uuid.uuid4().hex, reason):
                return
            self._unsaved = True
        self._save_soon()

    @property
    def closed_for(self) -> float:
        """Seconds until the venue's ban is over; 0 when there is none."""
        self._look()
        with self._mutex:
            return self._banned_for()

    @property
    def reason(self) -> str:
        """Why nothing may leave; empty when there is no ban."""
        self._look()
        with self._mutex:
            return self._ban.reason if self._ban is not None and self._banned_for() else ""

    @property
    def dials_left(self) -> int:
        """How many more dials the venue's limit allows now, for all engines of this user together."""
        self._look()
        with self._mutex:
            self._forget_old()
            return max(0, DIALS_PER_WINDOW - len(self._dials))

    def dial_wait(self) -> tuple[float, str]:
        """Seconds until a dial is allowed, and why it is not allowed now. A look only: `take_dial` decides."""
        self._look()
        with self._mutex:
            return self._permit()

    async def take_dial(self) -> tuple[float, str]:
        """Count a dial that leaves now: (0.0, ""). Where none may leave, none is counted: in how many seconds, and why.

        Of all processes that share the file one decides at a time. Cancelled, it may have counted a dial that never leaves.
        """
        return await self._sync(take=True)

    def note_dial(self) -> None:
        """A dial leaves now, whatever the limit says: counted, and made known to others in the background."""
        with self._mutex:
            self._dials[uuid.uuid4().hex] = self._clock.monotonic()
            self._forget_old()
            self._unsaved = True
        self._save_soon()

    async def wait_open(self) -> None:
        """Wait until requests may leave. Returns at once where no ban is known, here or in the file."""
        while True:
            if not self._look():
                await self._sync(take=False)
            elif self._unsaved:
                self._save_soon()
            with self._mutex:
                wait = self._banned_for()
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    async def close(self) -> None:
        """Wait, for 2 s at most, until others can read what is known here. Idempotent; the gate can still be used."""
        if self._unsaved:
            self._save_soon()
        saving = self._saving
        if saving is not None:
            await asyncio.wait([asyncio.wrap_future(saving)], timeout=_CLOSE_S)

    # With the mutex held: what is known, in monotonic time

    def _banned_for(self) -> float:
        return 0.0 if self._ban is None else max(0.0, self._ban.ends - self._clock.monotonic())

    def _ban_from(self, left: float, for_s: float, identity: str, reason: str) -> bool:
        if left <= self._banned_for() or (self._ban is not None and self._ban.id == identity):
            return False
        self._ban = _Ban(identity, self._clock.monotonic() + left, for_s, one_line(reason))
        return True

    def _forget_old(self) -> None:
        since = self._clock.monotonic() - DIAL_WINDOW_S
        kept = sorted(((at, one) for one, at in self._dials.items() if at > since), reverse=True)[:DIALS_PER_WINDOW]
        self._dials = {one: at for at, one in reversed(kept)}  # oldest first

    def _permit(self) -> tuple[float, str]:
        self._forget_old()
        now = self._clock.monotonic()
        budget = 0.0
        if len(self._dials) >= DIALS_PER_WINDOW:
            budget = max(0.0, next(iter(self._dials.values())) + DIAL_WINDOW_S - now)
        banned = self._banned_for()
        if self._ban is not None and banned > 0 and banned >= budget:
            return banned, self._ban.reason
        return (budget, _USED_UP) if budget > 0 else (0.0, "")

    def _learn(self, entry: ScopeEntry) -> None:
        now, wall = self._clock.monotonic(), self._clock.time()
        # What is new to us after the clock was set forward may have been written before: then it is younger than it looks.
        jump, self._offset = wall - now - self._offset, wall - now
        wall = entry.now(now, wall - jump if jump > _HEAL_S else wall)
        for one, stamp in entry.dials.items():
            if one not in self._dials:
                self._dials[one] = now - max(0.0, wall - stamp)
        self._forget_old()
        if entry.ban is not None:
            self._ban_from(_left(entry.ban, wall), entry.ban.for_s, entry.ban.id, entry.ban.reason)

    def _tell(self) -> ScopeEntry:
        now, wall = self._clock.monotonic(), self._clock.time()
        left = self._banned_for()
        ban = None
        if self._ban is not None and left > 0:
            ban = BanEntry(self._ban.id, wall + left, self._ban.for_s, self._ban.reason)
        return ScopeEntry({one: wall - (now - at) for one, at in self._dials.items()}, ban, boot_id(), wall - now)

    def _exchange(self, content: Scopes, lost_at: float | None, *, take: bool) -> tuple[Change, tuple[float, str]]:
        """Take in what the file says, decide, and say what it should say then."""
        with self._mutex:
            if lost_at is not None:
                content = {VENUE: ScopeEntry(ban=_ban_for_loss(lost_at))}
            before = content.get(self._scope, ScopeEntry())
            self._learn(before)
            permit = self._permit()
            if take and permit[0] <= 0:
                self._dials[uuid.uuid4().hex] = self._clock.monotonic()
            after = self._tell()
            stale = lost_at is not None or _differ(before, after)
            self._unsaved = False
            tidied = _tidy(content, self._scope, after, self._clock) if stale else None
            return Change(tidied, durable=after.ban is not None), permit

    def _alone(self, *, take: bool) -> tuple[float, str]:
        """Decide by what this process knows."""
        with self._mutex:
            permit = self._permit()
            if take and permit[0] <= 0:
                self._dials[uuid.uuid4().hex] = self._clock.monotonic()
                self._unsaved = True
            return permit

    # The file

    def _look(self) -> bool:
        """Take in what others have written since the last look: one `stat`, and a small read where it has changed.

        False: the file is damaged, which is a matter for a turn under the lock.
        """
        if self._file is None:
            return True
        signature = self._file.signature()
        if signature is not None and signature != self._seen:
            self._seen = signature
            self._damaged = False
            try:
                content = self._file.read()
            except Damaged:
                self._damaged = True
            except OSError as error:
                self._cannot_use(error)
            else:
                with self._mutex:
                    self._learn(content.get(self._scope, ScopeEntry()))
        return not self._damaged

    async def _sync(self, *, take: bool) -> tuple[float, str]:
        """A turn under the file's lock, in a thread: neither lock nor disk may hold up the event loop."""
        if self._file is None:
            return self._alone(take=take)
        abandoned = threading.Event()
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await asyncio.wrap_future(_in_thread(lambda: self._turn(abandoned, take=take)))
        except OSError as error:  # a TimeoutError is one
            self._cannot_use(error)
            return self._alone(take=take)
        finally:
            abandoned.set()

    def _turn(self, abandoned: threading.Event, *, take: bool) -> tuple[float, str]:
        assert self._file is not None
        decided: tuple[float, str] | None = None

        def change(content: Scopes, lost_at: float | None) -> Change:
            nonlocal decided
            wanted, decided = self._exchange(content, lost_at, take=take)
            return wanted

        try:
            self._file.update(change, abandoned)
        except OSError as error:
            self._cannot_use(error)
            with self._mutex:
                self._unsaved = True
        else:
            if self.note:
                log.info("dials and bans are shared with other engines again")
            self.note = ""
        return decided if decided is not None else self._alone(take=take)

    def _save_soon(self) -> None:
        """Write what is known, in the background."""
        with self._mutex:
            if self._file is None or (self._saving is not None and not self._saving.done()):
                return
            self._saving = _in_thread(self._save)
        self._saving.add_done_callback(_log_fault)

    def _save(self) -> None:
        while True:
            self._turn(threading.Event(), take=False)
            with self._mutex:
                if not self._unsaved or self.note:  # what could not be written now is written with the next dial
                    self._saving = None
                    return

    def _cannot_use(self, error: OSError) -> None:
        assert self._file is not None
        why = error.strerror or str(error) or "the disk does not answer"
        note = (
            f"dials and bans are not shared with other engines: {self._file.path} cannot be used: {why}. "
            "Make its folder writable, or set XDG_STATE_HOME."
        )
        if note != self.note:
            log.warning("%s", note)
        self.note = note


def _left(ban: BanEntry, wall: float) -> float:
    """Seconds until a ban in the file is over. A clock that was set back makes it no longer than the venue has said."""
    return max(0.0, min(ban.until - wall, ban.for_s, LONGEST_BAN_S))


def _ban_for_loss(lost_at: float) -> BanEntry:
    # All that the lost record can have held of the window happened before it was last written.
    return BanEntry(uuid.uuid4().hex, lost_at + DIAL_WINDOW_S, DIAL_WINDOW_S, _LOST)


def _differ(before: ScopeEntry, after: ScopeEntry) -> bool:
    if before.dials.keys() != after.dials.keys() or (before.ban and before.ban.id) != (after.ban and after.ban.id):
        return True
    if before.boot != after.boot and (after.dials or after.ban):
        return True
    pairs = [(stamp, after.dials[one]) for one, stamp in before.dials.items()]
    if before.ban is not None and after.ban is not None:
        pairs.append((before.ban.until, after.ban.until))
    return any(abs(old - new) > _HEAL_S for old, new in pairs)


def _tidy(content: Scopes, scope: str, entry: ScopeEntry, clock: Clock) -> Scopes:
    """The content with our entry, without what is over; the number of scopes is bounded."""
    kept = {name: _without_past(other, other.now(clock.monotonic(), clock.time())) for name, other in content.items()}
    kept[scope] = entry
    # The venue's first, then ours, then those that dialled last.
    order = sorted(kept, key=lambda name: (name != VENUE, name != scope, -max(kept[name].dials.values(), default=0.0)))
    return {name: kept[name] for name in order[:_MAX_SCOPES] if kept[name].dials or kept[name].ban}


def _without_past(entry: ScopeEntry, wall: float) -> ScopeEntry:
    return replace(
        entry,
        dials={one: min(stamp, wall) for one, stamp in entry.dials.items() if stamp > wall - DIAL_WINDOW_S},
        ban=entry.ban if entry.ban is not None and _left(entry.ban, wall) > 0 else None,
    )


def _log_fault(saving: Future[None]) -> None:
    if (error := saving.exception()) is not None:
        log.error("dials and bans could not be written, by a fault of this program or for want of threads", exc_info=error)


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Run `work` in a daemon thread of its own: a disk that hangs holds up neither the event loop's threads nor the exit."""
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the answer
            answer.set_exception(error)
        else:
            answer.set_result(result)

    try:
        threading.Thread(target=run, name="dials and bans", daemon=True).start()
    except RuntimeError as error:
        answer.set_exception(OSError(errno.EAGAIN, str(error)))
    return answer
