"""Will the system let an engine outlive its login session? Where systemd would kill it at logout, that is said in time."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

_KILLS = re.compile(r"^\s*KillUserProcesses\s*=\s*(\w+)", re.MULTILINE)


def logout_warning(root: Path = Path("/")) -> str:
    """One line of warning, or nothing. `KillUserProcesses` is read as logind does: the last drop-in wins; the default is no."""
    if not (root / "run/systemd/system").is_dir():
        return ""
    files = [root / "etc/systemd/logind.conf", *sorted((root / "etc/systemd/logind.conf.d").glob("*.conf"))]
    kills = False
    for file in files:
        try:
            found = _KILLS.findall(file.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            kills = found[-1].lower() in {"yes", "true", "1", "on"}
    try:
        lingers = (root / "var/lib/systemd/linger" / getpass.getuser()).exists()
    except (KeyError, OSError):  # a uid without an account has no login session
        return ""
    if not kills or lingers:
        return ""
    return "systemd ends this engine at logout: run 'loginctl enable-linger' to keep it"
