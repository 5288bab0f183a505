"""Calls the operator who looks elsewhere: BEL, and a desktop notice where the terminal is known to show one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..telemetry import Clock
from .format import clean

_LEAST_S = 10.0
_LONGEST = 200  # characters; a notice is a line, not a log
_BEL = "\x07"
# By TERM_PROGRAM, or the beginning of TERM. The others print what they do not know, or nothing: they get BEL alone.
_NOTIFY_777 = ("ghostty", "WezTerm", "rxvt", "foot", "contour")
_NOTIFY_9 = ("iTerm.app", "kitty", "xterm-kitty", "WindowsTerminal")


class Bell:
    """Rings at most once in `least_s` seconds. `write` takes the bytes for the terminal, as the driver's does."""

    def __init__(
        self, write: Callable[[str], object], clock: Clock, environment: Mapping[str, str], *, least_s: float = _LEAST_S
    ) -> None:
        self._write = write
        self._clock = clock
        self._through_tmux = bool(environment.get("TMUX"))
        self._notice = _notice_of(environment)
        self._least_s = least_s
        self._rung_at = -math.inf

    def ring(self, title: str, text: str) -> bool:
        """Ring, with a notice where the terminal shows it; False when it rang a moment ago."""
        now = self._clock.monotonic()
        if now - self._rung_at < self._least_s:
            return False
        self._rung_at = now
        self._write(_BEL + self._notice_for(_safe(title).replace(";", ","), _safe(text)))
        return True

    def _notice_for(self, title: str, text: str) -> str:
        if not self._notice:
            return ""
        body = f"777;notify;{title};{text}" if self._notice == 777 else f"9;{title}: {text}"
        sequence = f"\x1b]{body}{_BEL}"
        return f"\x1bPtmux;{sequence.replace(chr(27), chr(27) * 2)}\x1b\\" if self._through_tmux else sequence


def _safe(text: str) -> str:
    return clean(text)[:_LONGEST]


def _notice_of(environment: Mapping[str, str]) -> int:
    """777 or 9, the OSC by which this terminal takes notices; 0: none. QUANTAI_NOTIFY (`777`, `9`, `off`) overrules."""
    wish = environment.get("QUANTAI_NOTIFY", "")
    if wish:
        return int(wish) if wish in ("777", "9") else 0
    # Inside tmux both name tmux itself; LC_TERMINAL is what iTerm2 sends along through ssh.
    names = [environment.get(name, "") for name in ("TERM_PROGRAM", "LC_TERMINAL", "TERM")]
    if environment.get("LC_TERMINAL") == "iTerm2" or any(name.startswith(_NOTIFY_9) for name in names):
        return 9
    return 777 if any(name.startswith(_NOTIFY_777) for name in names) else 0
