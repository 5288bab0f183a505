"""Validates values, and names the rule that an invalid value breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

from .catalogue import describe, names, shown
from .field import LARGEST_FLOAT, LARGEST_INT
from .model import Settings
from .problems import Origin, Problem

_SAID_BY_PYDANTIC = frozenset(get_args(ErrorType))  # every other type is from `checks`, in our own words
_TYPE_RULES = {"int": "must be a whole number", "float": "must be a number", "bool": "must be True or False"}


def _rule_of(error: Any) -> tuple[str, str]:
    """(key, rule) of one pydantic error, in our own words."""
    if error["type"] == "cross_rule":
        return str(error["ctx"]["key"]), str(error["msg"])
    key = str(error["loc"][0])
    info = describe(key)
    if error["type"] not in _SAID_BY_PYDANTIC:
        return key, str(error["msg"])
    if error["type"] == "finite_number":
        return key, "must be a finite number"
    if error["type"].endswith(("_parsing", "_type")) and info.kind in _TYPE_RULES:
        return key, _TYPE_RULES[info.kind] + (f" {info.rule}" if info.rule and info.kind != "bool" else "")
    if error["type"] == "less_than_equal" and error["ctx"]["le"] in (LARGEST_INT, LARGEST_FLOAT):
        return key, f"must be at most {error['ctx']['le']:.15g}"  # a bound that the rule leaves unsaid
    return key, f"must be {info.rule}" if info.rule else str(error["msg"])


def _source_text(key: str, origins: Mapping[str, Origin]) -> str:
    origin = origins.get(key)
    return origin.text if origin else "default"


class _Exactly(Settings):
    """Settings that read no source of their own."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *others: Any, **named: Any) -> Any:
        return (init_settings,)


def validate(values: Mapping[str, Any], origins: Mapping[str, Origin]) -> tuple[Settings | None, list[Problem]]:
    """Settings made of exactly these values, or what is wrong with them."""
    try:
        checked = _Exactly(**values)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key, rule = _rule_of(item)
            value = shown(key, values.get(key, Settings.model_fields[key].default))
            source = _source_text(key, origins)
            if item["type"] == "cross_rule":
                other = str(item["ctx"]["other"])
                present = shown(other, values.get(other, Settings.model_fields[other].default))
                source = f"{source}; {other} = {present}, {_source_text(other, origins)}"
            problems.append(Problem(key, value, rule, source))
        return None, problems
    return Settings.model_construct(**{name: getattr(checked, name) for name in names()}), []


def broken_rule(name: str, value: str) -> str:
    """The rule that a single value breaks, or nothing."""
    _, problems = validate({name: value}, {})
    return next((problem.rule for problem in problems if problem.key == name), "")
