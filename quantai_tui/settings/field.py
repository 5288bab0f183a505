"""How one setting is declared: its default, group, title, description, unit, range, and what applying a change takes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from pydantic.config import JsonDict

Applies = Literal["live", "reconnect", "restart"]

# No rule names these: they only keep a number within what SQLite, msgpack and the clock take. 1e9 s are 31 years.
LARGEST_INT = 2**31 - 1
LARGEST_FLOAT = 1e9


def setting(
    default: Any, group: str, title: str, description: str, *, unit: str = "", applies: Applies = "restart", **limits: Any
) -> Any:
    """A field of `Settings`; `limits` are pydantic's."""
    extra: JsonDict = {"group": group, "unit": unit, "applies": applies}
    if "pattern" in limits:
        limits["pattern"] = f"^(?:{limits['pattern']})$"  # pydantic searches; its `$` is the very end, never before a newline
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        limits.setdefault("le", LARGEST_INT if isinstance(default, int) else LARGEST_FLOAT)
    return Field(default, title=title, description=description, json_schema_extra=extra, **limits)
