"""The user's folders for configuration, data and state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import platformdirs

from .textfile import escaped

APP = "quantai-tui"


class PlaceError(Exception):
    """A folder or file that is needed cannot be used; says which, why, and what to do."""


def user_folder(kind: Literal["config", "data", "state"]) -> Path:
    """Our folder below XDG_CONFIG_HOME and so on, or the system's default. Does not make it.

    Raises PlaceError if its name is not UTF-8, or if none is set and the user has no home: containers often run under a uid
    without an account.
    """
    ask = {"config": platformdirs.user_config_path, "data": platformdirs.user_data_path, "state": platformdirs.user_state_path}
    try:
        found = ask[kind](APP, appauthor=False)
    except RuntimeError:
        found = Path("~")
    if str(found).startswith("~"):  # older releases of platformdirs return it unexpanded
        raise PlaceError(f"user {os.getuid()} has no home folder: set HOME, or XDG_{kind.upper()}_HOME, to an absolute path")
    try:
        str(found).encode()
    except UnicodeEncodeError:  # JSON and links cannot hold such a name
        raise PlaceError(
            f"{escaped(str(found))}: its name must be UTF-8 text; set HOME, or XDG_{kind.upper()}_HOME, to another folder"
        ) from None
    return found
