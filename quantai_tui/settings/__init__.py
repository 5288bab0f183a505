"""What may be configured, where each value came from, and how a file of settings is saved.

Names are resolved on first use: pydantic costs 200 ms to import, and the dashboard's first frame must not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalogue import MASK, SettingInfo, as_text, describe, describe_all, masked, names, nearest_name, shown
    from .files import ConfigConflict, ConfigFile, target_of, write_atomically
    from .model import Settings
    from .problems import Origin, Problem, SettingsProblems
    from .sources import Layers, Loaded, default_config_path, load, load_file
    from .validation import validate

_HOMES = {
    "catalogue": ("MASK", "SettingInfo", "as_text", "describe", "describe_all", "masked", "names", "nearest_name", "shown"),
    "files": ("ConfigConflict", "ConfigFile", "target_of", "write_atomically"),
    "model": ("Settings",),
    "problems": ("Origin", "Problem", "SettingsProblems"),
    "sources": ("Layers", "Loaded", "default_config_path", "load", "load_file"),
    "validation": ("validate",),
}

__all__ = [
    "MASK",
    "ConfigConflict",
    "ConfigFile",
    "Layers",
    "Loaded",
    "Origin",
    "Problem",
    "SettingInfo",
    "Settings",
    "SettingsProblems",
    "as_text",
    "default_config_path",
    "describe",
    "describe_all",
    "load",
    "load_file",
    "masked",
    "names",
    "nearest_name",
    "shown",
    "target_of",
    "validate",
    "write_atomically",
]


def __getattr__(name: str) -> Any:
    for module, exported in _HOMES.items():
        if name in exported:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
