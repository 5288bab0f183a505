"""Checks of arguments from callers and the command line. Errors name the argument, the value and the remedy.

A wrong type raises TypeError, a value out of bounds ValueError. NumPy numbers are accepted; True and False are not numbers.
"""

from __future__ import annotations

import functools
import math
import numbers
import operator
import os
import re
import reprlib
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_PLAIN = (int, float)
_TYPED = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def check_number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise unless `value` is a finite number within the bounds."""
    if type(value) not in _PLAIN and not _is_a(numbers.Real, value):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    rules = (
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    )
    asked = [(word, bound, holds(value, bound)) for word, bound, holds in rules if bound is not None]
    if _is_finite(value) and all(held for _, _, held in asked):
        return
    rule = " and ".join(f"{word} {bound:g}" for word, bound, _ in asked)
    raise ValueError(f"{name} must be a finite number{' ' + rule if rule else ''}, got {shown(value)}")


def check_whole(name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None) -> None:
    """Raise unless `value` is a whole number within the bounds."""
    if type(value) is not int and not _is_a(numbers.Integral, value):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    check_number(name, value, at_least=at_least, at_most=at_most)


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `known`."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {shown(value)}")


def check_methods(name: str, value: Any, kind: str, methods: tuple[str, ...]) -> None:
    """Raise unless `value` has all the methods of the protocol `kind`."""
    lacking = [method for method in methods if not callable(getattr(value, method, None))]
    if lacking or isinstance(value, type):
        what = f"{shown(value)} lacks {', '.join(lacking)}" if lacking else f"got the class {value.__name__}; pass an instance"
        raise TypeError(f"{name} must have the methods of {kind}; {what}")


def check_type(name: str, value: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Raise unless `value` is a `kind`, which `what` describes."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, got {_kind_of(value)}")


def typed_number(text: str) -> float:
    """Parse a typed number: ASCII digits, optionally with a sign, a point, an exponent and surrounding spaces.

    `float` and `int` accept more: underscores, digits of other scripts, "inf" and "nan". Raises ValueError for those, and for a
    number outside the range of float.
    """
    text = text.strip()
    if _TYPED.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{shown(text)} is not a number in plain digits")


def path_from(name: str, value: Any) -> Path:
    """Convert text or a path to a path."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} must be a path, got {_kind_of(value)}")
    return Path(value)


def normalise_fields(config: Any, *, leave: frozenset[str] = frozenset()) -> None:
    """Convert the fields of a frozen dataclass or Struct to their declared types.

    Whole numbers become int, other numbers float, because JSON cannot encode NumPy numbers. True, False and text stay. Fields in
    `leave`, and those with other declared types, are not checked. Raises TypeError, or ValueError outside the range of float.
    """
    assign = object.__setattr__ if is_dataclass(config) else msgspec.structs.force_setattr
    made_of: Any = type(config)
    for name, (kind, optional, default) in _declared(made_of).items():
        if name in leave:
            continue
        value = getattr(config, name)
        if value is None and optional:
            continue
        new = _as(kind, name, value, default)
        if new is not value:
            assign(config, name, new)


def shown(value: Any) -> str:
    """Return a short form of a value for an error message."""
    return reprlib.repr(value)


def _kind_of(value: Any) -> str:
    """Describe the type of a value without showing it: an address may hold a password."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    return "None" if value is None else type(value).__name__


def _as(kind: type, name: str, value: Any, default: Any) -> Any:
    if type(value) is kind:
        return value
    like = "" if default is None else f", such as {default!r}"
    if kind is bool:
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    if kind is str:
        if isinstance(value, str):
            return str(value)
        raise TypeError(f"{name} must be text{like if default else ''}, got {_kind_of(value)}")
    if kind is int:
        if _is_a(numbers.Integral, value):
            return int(value)
        raise TypeError(f"{name} must be a whole number{like}, got {shown(value)}")
    if _is_a(numbers.Real, value):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must be a finite number, got {shown(value)}") from None
    raise TypeError(f"{name} must be a number{like}, got {shown(value)}")


@functools.cache
def _declared(kind: Any) -> dict[str, tuple[type, bool, Any]]:
    """The fields that hold one bool, int, float or str: type, whether None is allowed, and the default if there is one."""
    if is_dataclass(kind):
        defaults = {one.name: None if one.default is MISSING else one.default for one in fields(kind)}
    else:
        declared = msgspec.structs.fields(kind)
        defaults = {one.name: None if one.default is msgspec.NODEFAULT else one.default for one in declared}
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        optional = isinstance(hint, types.UnionType) and types.NoneType in typing.get_args(hint)
        alternatives = [one for one in typing.get_args(hint) if one is not types.NoneType] if optional else [hint]
        if name in defaults and len(alternatives) == 1 and alternatives[0] in (bool, int, float, str):
            found[name] = (alternatives[0], optional, defaults[name])
    return found


def _is_a(kind: Any, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number outside the range of float
        return False
