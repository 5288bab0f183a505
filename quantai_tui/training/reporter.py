"""Reports from a user's own training script to a running engine, if there is one. Free of torch.

Nothing here may hold the script up or end it: a thread of its own looks for an engine, dials, waits for controls and tries again;
the training thread only ever puts a frame into a socket that does not block.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable

import msgspec

from .. import __version__
from ..output import safe_line
from ..whereabouts import Entry, PlaceError, running
from .channel import ChannelClosed, WorkerChannel
from .guest_protocol import EngineWord, GuestHello, Refused, Welcome
from .messages import Ack, Control, ControlKind, EpochDone, Event, Failed, Finished, Metrics, Overflowed, Ranks, Ready, Saved

log = logging.getLogger(__name__)

ENGINE_VARIABLE = "QUANTAI_ENGINE"
LOOK_EVERY_S = 2.0
LONGEST_WAIT_S = 30.0
_FAREWELL_S = 0.3


def find_engine(name: str = "") -> tuple[Entry | None, str]:
    """The running engine of this name, else of the name in QUANTAI_ENGINE, else the only one; or None and, in words, why."""
    try:
        entries = running()
    except (PlaceError, OSError) as error:
        return None, f"no engine can be looked for: {error}"
    wanted = name or os.environ.get(ENGINE_VARIABLE, "")
    names = ", ".join(entry.name for entry in entries)
    if wanted:
        entries = [entry for entry in entries if entry.name == wanted]
        if not entries:
            return None, f"no engine {wanted} runs" + (f"; there is {names}" if names else "")
    if len(entries) > 1:
        return None, f"several engines run ({names}): name one with watch(engine=...) or {ENGINE_VARIABLE}"
    if not entries:
        return None, "no engine runs"
    if not entries[0].guests:
        return None, f"the engine {entries[0].name} is of a release that takes no reports from scripts"
    return entries[0], ""


class EngineReporter:
    """Keeps a connection to an engine while there is one. `metrics` and `send` are for the training thread, and never block.

    `on_found` is called before the first dial, `on_reset` for a manual reset: it returns the answer, or None when it will be sent
    later. Both are called from other threads, and must not hold references to whatever drops this reporter when it dies.
    """

    def __init__(
        self, name: str, ready: Ready, *, engine: str, on_found: Callable[[], None], on_reset: Callable[[int], Ack | None]
    ) -> None:
        self._name, self._ready, self._engine = name, ready, engine
        self._on_found, self._on_reset = on_found, on_reset
        self._decoder = msgspec.msgpack.Decoder(EngineWord)
        self._channel: WorkerChannel | None = None  # while welcome
        self._dialled: WorkerChannel | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self.note = "not looked for an engine yet"  # in words: where it reports to, or why not
        _REPORTERS.add(self)

    def start(self) -> None:
        """Look for an engine, now; then go on looking and reporting in the background."""
        entry, why = find_engine(self._engine)
        if entry is not None:
            self._on_found()
        self._say(logging.INFO, why or f"dialling {entry.name if entry else ''}")
        self._thread = threading.Thread(target=self._run, name="quantai-watch", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        return self._channel is not None

    def metrics(self, metrics: Metrics) -> bool:
        """False when nobody has heard it: what it says of its steps is to be said again with the next."""
        channel = self._channel
        if channel is None:
            return False
        try:
            return channel.send_metrics(msgspec.structs.replace(metrics, dropped=channel.dropped))
        except ChannelClosed:
            self._channel = None  # the thread sees the same, and says it
            return False

    def send(self, message: Ready | EpochDone | Event | Overflowed | Saved | Ranks | Ack | Finished | Failed) -> None:
        """Dropped while there is no engine."""
        channel = self._channel
        if channel is None:
            return
        try:
            channel.send(message)
        except ChannelClosed:
            self._channel = None

    def close(self, farewell: Finished | Failed | None = None) -> None:
        """Take leave of the engine and end the thread. Idempotent; in a forked child it does nothing."""
        if self._closing.is_set() or os.getpid() != self._pid:
            return
        self._closing.set()
        channel = self._channel
        try:
            if channel is not None and farewell is not None:
                channel.send(farewell)
                channel.flush(_FAREWELL_S)
        except ChannelClosed as error:
            log.debug("nobody to take leave of: %s", error)
        finally:
            self._channel = None
            if self._dialled is not None:
                self._dialled.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_FAREWELL_S)

    def _say(self, level: int, note: str) -> None:
        """Once, until there is something else to say."""
        if note != self.note:
            self.note = note
            log.log(level, "%s: %s", safe_line(self._name), safe_line(note))

    def _run(self) -> None:
        wait_s = 0.0
        try:
            while not self._closing.wait(wait_s):
                entry, why = find_engine(self._engine)
                if entry is None:
                    self._say(logging.INFO, why)
                    wait_s = LOOK_EVERY_S
                    continue
                self._on_found()
                welcomed = self._visit(entry)
                wait_s = LOOK_EVERY_S if welcomed else min(max(2 * wait_s, LOOK_EVERY_S), LONGEST_WAIT_S)
        except Exception:
            # Whatever it is, it is no reason for the script to hear of it in any other way.
            log.exception("%s reports no longer", self._name)

    def _visit(self, entry: Entry) -> bool:
        """One connection from end to end; whether the engine took reports."""
        welcomed = False
        try:
            channel = self._dialled = WorkerChannel(entry.guests)
            try:
                channel.send(GuestHello(__version__, self._name, os.getpid()))
                while not self._closing.is_set():
                    for body in channel.receive():
                        match self._decoder.decode(body):
                            case Welcome():
                                welcomed = True
                                channel.send(self._ready)
                                self._channel = channel
                                self._say(logging.INFO, f"reports to the engine {entry.name}")
                            case Refused(text):
                                self._say(logging.WARNING, f"the engine {entry.name} takes no reports: {text}")
                                return False
                            case Control() as control:
                                self._obey(control)
            finally:
                self._channel = None
                channel.close()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            if not self._closing.is_set():
                self._say(logging.INFO, f"the engine {entry.name} hears nothing at present: {error}")
        return welcomed

    def _obey(self, control: Control) -> None:
        if control.kind is ControlKind.RESET_SCALER:
            answer = self._on_reset(control.id)
        else:
            answer = Ack(control.id, False, f"a watched script does not take {control.kind.value}")
        if answer is not None:
            self.send(answer)

    def leave_to_parent(self) -> None:
        """In a forked child: the connection is the parent's, and would otherwise outlive it here."""
        self._channel, dialled = None, self._dialled
        if dialled is not None:
            dialled.leave_to_parent()


_REPORTERS: weakref.WeakSet[EngineReporter] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for reporter in list(_REPORTERS):
        reporter.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)
