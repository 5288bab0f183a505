"""The exchange's folder: what makes it the same exchange after a restart. Mode 0700, its files 0600.

`ca.pem` is what clients trust and `ca.key` its key; both stay as long as the folder. The server's own certificate is made anew at
every start, so none is ever found expired. `state.json` holds ports, seed, epoch, the play clock, a ban
and what was done to the market. `lock` is held while an
exchange runs on the folder.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import ssl
import time
from pathlib import Path
from typing import Any

import msgspec
import trustme

from ..private_files import make_private_folder, open_private
from .alterations import Alterations
from .markets import ExchangeError

_LOCK_WAIT_S = 3.0  # an exchange whose engine was just killed needs a moment to notice
_CERTIFICATE_DAYS = 397  # what browsers accept at most; a process does not run that long


class PlayClock(msgspec.Struct, frozen=True):
    """Where a replay is: at Unix second `started_s` it was at `offset`: seconds of market time, or trades for speed `max`."""

    started_s: float
    offset: float
    speed: float | str


class ExchangeState(msgspec.Struct, frozen=True):
    """`state.json`. `source` says what market the folder belongs to: `seed 7` or `file <fingerprint>`.

    `banned_until_s` (Unix seconds) is the ban in force, 0 for none; `alterations` is what was done to the market.
    """

    source: str
    epoch_s: int
    ws_port: int = 0
    rest_port: int = 0
    play: PlayClock | None = None
    banned_until_s: float = 0.0
    alterations: Alterations = Alterations()
    version: int = 1


class ExchangeFolder:
    """Owns the folder from `__init__` to `close`. Raises ExchangeError when it cannot be used.

    `patience_s` is how long to wait for another exchange to leave it.
    """

    def __init__(self, path: Path, patience_s: float = _LOCK_WAIT_S) -> None:
        self.path = path
        try:
            make_private_folder(path)
            self._lock = open_private(path / "lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ExchangeError(
                f"cannot use the folder {path}: {error.strerror}", "name a folder that you may write to"
            ) from error
        try:
            self._take_lock(patience_s)
        except BaseException:
            self.close()
            raise

    def _take_lock(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ExchangeError(
                        f"another exchange is running on the folder {self.path}", "stop it, or name another folder"
                    ) from None
                time.sleep(0.05)
            else:
                return

    def close(self) -> None:
        os.close(self._lock)  # gives the lock back

    @property
    def ca_file(self) -> Path:
        return self.path / "ca.pem"

    def load(self) -> ExchangeState | None:
        """What was saved, or None in a new folder."""
        file = self.path / "state.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=ExchangeState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ExchangeError(
                f"{file} cannot be read: {error}", "delete it to begin another market, or name another folder"
            ) from error

    def save(self, state: ExchangeState) -> None:
        self._write("state.json", msgspec.json.encode(state) + b"\n")

    def change(self, **changes: Any) -> None:
        """Save the state with these fields changed. There must be one."""
        state = self.load()
        assert state is not None
        self.save(msgspec.structs.replace(state, **changes))

    def server_tls(self) -> tuple[ssl.SSLContext, list[str]]:
        """A context that serves localhost and 127.0.0.1 under this folder's authority, and what is to be said about it."""
        authority, notes = self.authority()
        expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_CERTIFICATE_DAYS)
        leaf = authority.issue_cert("localhost", "127.0.0.1", not_after=expiry)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        return context, notes

    def authority(self) -> tuple[trustme.CA, list[str]]:
        """The authority that clients trust, made if there is none, and what is to be said about it."""
        key_file = self.path / "ca.key"
        notes: list[str] = []
        try:
            certificate, key = self.ca_file.read_bytes(), key_file.read_bytes()
            # Refuses what is no certificate, and a key that is another one's.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.ca_file, key_file)
            return trustme.CA.from_pem(certificate, key), notes
        except FileNotFoundError:
            pass  # a new folder
        except (OSError, ValueError) as error:
            notes.append(
                f"the certificate authority was unusable ({error}) and has been replaced: clients must read ca_file again"
            )
        authority = trustme.CA(organization_name="QuantAI TUI", organization_unit_name="embedded exchange")
        self._write("ca.key", authority.private_key_pem.bytes())
        self._write("ca.pem", authority.cert_pem.bytes())
        return authority, notes

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file in one step, so that a kill leaves the old one or the new one."""
        temporary = self.path / f"{name}.new"
        with open(temporary, "wb", opener=open_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)
