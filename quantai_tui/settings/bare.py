"""The values of `Settings()`: from the environment and `.env`, by the same rules as `load`."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from .problems import Gathered, SettingsProblems
from .shared import gather_shared


def shared_values() -> dict[str, Any]:
    """Values by name. Calls `warnings.warn` for ignored values; raises SettingsProblems for errors."""
    gathered = Gathered()
    gather_shared(gathered, os.environ, Path(".env"))
    if gathered.problems:
        raise SettingsProblems(gathered.problems)
    for warning in gathered.warnings:
        warnings.warn(str(warning), stacklevel=2)
    return gathered.values
