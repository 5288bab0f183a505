"""Each setting in words: unit, range, kind and choices, read off the model so that nothing is said twice."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from ..masking import MASK, masked, masked_value
from .checks import RETENTION_RULE
from .field import LARGEST_FLOAT, LARGEST_INT
from .model import Settings
from .rules import CROSS_RULES

__all__ = ["MASK", "SettingInfo", "as_text", "describe", "describe_all", "masked", "names", "shown"]

# Said in words instead of by the model's limits.
_RULES = {
    "GRAD_SCALER_MAX_SCALE": "from 2^-126 to 2^127",
    "GRAD_SCALER_MIN_SCALE": "from 2^-126 to 2^127",
    "STORE_RETENTION_DAYS": RETENTION_RULE,
    "EXCHANGE_CA_FILE": "a file that can be read, or empty",
    "BACKFILL_START": "now, earliest or an id",
    "EXCHANGE_WS_URL": "an address that begins with wss://",
    "EXCHANGE_REST_URL": "an address that begins with https://",
    "PROXY_URL": "http://, https://, socks5:// or socks5h:// and host:port, none, or empty",
    "KEYS": "action=key, comma-separated, each action once",
    "THEME": "lower-case letters, digits and dashes",
    "SYMBOLS": "letters, digits and _, comma-separated, each once",
    "TRAIN_RDZV_ENDPOINT": "host:port of one address",
    "TRAIN_DEVICE": "auto, cpu, cuda or cuda:N",
}


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What there is to know of a setting besides its value."""

    name: str
    title: str
    description: str
    group: str
    unit: str
    rule: str
    kind: str  # "bool", "int", "float", "text", "list" or "choice"
    choices: tuple[str, ...]
    applies: str
    default: str


def as_text(value: object) -> str:
    """A value as it would stand in a file or a variable."""
    if isinstance(value, (tuple, list)):
        return ",".join(str(part) for part in value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}"
    return str(value)


def shown(name: str, value: object) -> str:
    """A value as it may stand on a screen, in a log or in an error: `as_text`, user and password of an address masked.

    This also masks unknown names and invalid values, such as a misspelt PROXY_URL. The content of
    a table is never shown, because its names are unknown.
    """
    if isinstance(value, Mapping):
        return "{...}"
    if isinstance(value, (tuple, list)) and any(isinstance(part, (Mapping, list)) for part in value):
        return "[...]"
    return masked_value(name, as_text(value))


def _kind(annotation: Any) -> tuple[str, tuple[str, ...]]:
    if get_origin(annotation) is Literal:
        return "choice", tuple(str(arg) for arg in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list", ()
    return {bool: "bool", int: "int", float: "float"}.get(annotation, "text"), ()


def _limits(field: FieldInfo) -> list[str]:
    parts = []
    signs = {Gt: ">", Ge: ">=", Lt: "<", Le: "<="}
    for limit in field.metadata:
        if isinstance(limit, (Gt, Ge, Lt, Le)):
            bound = next(getattr(limit, attr) for attr in ("gt", "ge", "lt", "le") if hasattr(limit, attr))
            if bound not in (LARGEST_INT, LARGEST_FLOAT):
                parts.append(f"{signs[type(limit)]} {bound:g}" if isinstance(bound, float) else f"{signs[type(limit)]} {bound}")
    return parts


def _rule(name: str, field: FieldInfo, kind: str, choices: tuple[str, ...]) -> str:
    parts: list[str] = []
    if choices:
        parts.append("one of " + ", ".join(choices))
    elif kind == "bool":
        parts.append("True or False")
    elif name in _RULES:
        parts.append(_RULES[name])
    else:
        parts.extend(_limits(field))
    parts.extend(rule.text for rule in CROSS_RULES if rule.key == name)
    return ", ".join(parts)


def describe(name: str) -> SettingInfo:
    """The description of one setting; KeyError for a name that is none."""
    field = Settings.model_fields[name]
    kind, choices = _kind(field.annotation)
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return SettingInfo(
        name=name,
        title=field.title or name,
        description=field.description or "",
        group=str(extra["group"]),
        unit=str(extra["unit"]),
        rule=_rule(name, field, kind, choices),
        kind=kind,
        choices=choices,
        applies=str(extra["applies"]),
        default=as_text(field.default),
    )


def describe_all() -> tuple[SettingInfo, ...]:
    """Every setting, in the order of the model."""
    return tuple(describe(name) for name in Settings.model_fields)


def names() -> tuple[str, ...]:
    return tuple(Settings.model_fields)


def nearest_name(name: str, prefix: str = "") -> str:
    """`; did you mean X?` when the name nearly matches a setting, else nothing. `prefix` goes before X."""
    near = difflib.get_close_matches(name.upper(), names(), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
