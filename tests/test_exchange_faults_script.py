"""Fault scripts: what they say, what they may not say, and a catalogue that is complete enough to be printed."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from quantai_tui.exchange.catalogue import FAULTS, completed, markdown_table, parse_fault
from quantai_tui.exchange.fault import Fault, FaultError
from quantai_tui.exchange.script import ScriptError, load_script, parse_script

SCRIPT = """
seed = 7

[[fault]]
at = 20.0
kind = "close"
code = 1012
for = 10.0

[[fault]]
at = 5
kind = "silent-symbol"
symbol = "BTCUSDT"
"""


def test_a_script_is_its_faults_with_the_defaults_of_their_kinds(tmp_path: Path) -> None:
    file = tmp_path / "storm.toml"
    file.write_text(SCRIPT)
    script = load_script(file)
    assert script.seed == 7
    assert script.faults == (
        Fault("close", at=20.0, code=1012, for_s=10.0),
        Fault("silent-symbol", at=5.0, for_s=30.0, symbol="BTCUSDT", connections="all"),
    )
    assert parse_script(b"", "empty").faults == ()


@pytest.mark.parametrize(
    ("entry", "said", "remedy"),
    [
        ("at = 3", "a fault without a `kind`", "use one of close, flap"),
        ('kind = "clsoe"', "unknown kind 'clsoe'", "did you mean 'close'"),
        ('kind = "close"\ncoed = 1000', "unknown key 'coed' in close", "did you mean 'code'"),
        ('kind = "close"\ncode = 999', "`code` of close is 999", "a whole number, 1000 to 4999"),
        ('kind = "close"\ncode = "1000"', "`code` of close is '1000'", "a whole number"),
        ('kind = "close"\ncode = true', "`code` of close is True", "a whole number"),
        ('kind = "close"\nat = -1', "`at` of close is -1", "0 to 604800 (in s)"),
        ('kind = "stall"\nfor = nan', "`for` of stall is nan", "0.01 to 604800 (in s)"),
        ('kind = "stall"\nconnections = "some"', "`connections` of stall is 'some'", "all or open"),
        ('kind = "malformed"\nfor = 3', "`for` in malformed", "leave `for` out"),
        ('kind = "malformed"\nreplace = 1', "`replace` of malformed is 1", "true or false"),
        (f'kind = "close"\nreason = "{"x" * 200}"', "`reason` of close", "at most 100 bytes"),
    ],
)
def test_a_mistake_names_file_line_entry_and_key_and_what_to_write(entry: str, said: str, remedy: str) -> None:
    with pytest.raises(ScriptError) as refused:
        parse_script(f'[[fault]]\nkind = "stall"\n\n[[fault]]\n{entry}\n'.encode(), "storm.toml")
    assert str(refused.value).startswith("storm.toml, line 4, fault 2: ")
    assert said in str(refused.value)
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[[fault]\n", "not valid TOML"),
        (b"\xff\xfe", "is UTF-16 text"),
        (b"# one\n# \xff\n", "is not UTF-8 text (line 2)"),
        (b"faults = 3", "unknown key 'faults'"),
        (b"fault = 3", "`fault` is no list of tables"),
        (b"fault = [3]", "`fault` is no list of tables"),
        (b'[fault]\nkind = "close"', "`fault` is no list of tables"),
        (b"seed = -1", "`seed` is no whole number"),
        (b"seed = 1.5", "`seed` is no whole number"),
        (b"seed = true", "`seed` is no whole number"),
        (b"x = " + b"[" * 100_000, "nested too deeply"),
        (b"seed = 1" + b"0" * 10_000, "storm.toml: "),
        (b'fault = [{kind = "close"}, {kind = "x"}]', "storm.toml, fault 2: unknown kind 'x'"),
        (b'fault = [{kind = "clear"}%s]' % (b', {kind = "clear"}' * 10_000), "10001 faults are too many"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_script_is_refused_with_a_reason_and_a_remedy(content: bytes, said: str) -> None:
    with pytest.raises(ScriptError) as refused:
        parse_script(content, "storm.toml")
    assert said in str(refused.value)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.toml", "there is no such file"),
        (".", "is a folder"),
        ("a\0b", "zero byte"),
        ("x" * 300, "File name too long"),
        ("pipe", "is a pipe"),
        ("huge", "is larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, said: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ScriptError, match=said):
        load_script(tmp_path / name)


@settings(deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_a_script_or_a_script_error(content: bytes) -> None:
    with contextlib.suppress(ScriptError):
        parse_script(content, "any")


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=150) | st.datetimes()
_keys = st.sampled_from([*Fault.__struct_encode_fields__, "kinds", ""]) | st.text(max_size=10)
_values = _scalars | st.lists(_scalars, max_size=2)


@settings(deadline=None)
@given(st.dictionaries(_keys, _values, max_size=6), st.sampled_from([*FAULTS]) | st.text(max_size=10))
def test_any_table_is_a_fault_in_range_or_a_fault_error(table: dict[str, object], kind: str) -> None:
    try:
        fault = parse_fault({**table, "kind": kind})
    except FaultError:
        return
    for parameter in FAULTS[kind].parameters:
        value = getattr(fault, parameter.name)
        assert type(value) is type(parameter.default)
        assert value == parameter.default or parameter.check(value) == value


@settings(deadline=None)
@given(st.data())
def test_what_a_catalogue_allows_is_read_back_from_toml(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*FAULTS.values()]))
    table: dict[str, object] = {"kind": kind.name, "at": data.draw(st.floats(0, 1000))}
    for parameter in kind.parameters:
        low, high = parameter.low, min(parameter.high, 2.0**53)
        if parameter.choices:
            table[parameter.name] = data.draw(st.sampled_from(parameter.choices))
        elif isinstance(parameter.default, bool):
            table[parameter.name] = data.draw(st.booleans())
        elif isinstance(parameter.default, str):
            table[parameter.name] = data.draw(st.text("ABC", max_size=8))
        elif isinstance(parameter.default, int):
            table[parameter.name] = data.draw(st.integers(math.ceil(low), math.floor(high)))
        else:
            table[parameter.name] = data.draw(st.floats(low, high))
    [fault] = parse_script(tomlkit.dumps({"fault": [table]}).encode(), "drawn").faults
    assert fault == parse_fault(table)
    for key, value in table.items():
        assert getattr(fault, key) == (value or getattr(fault, key))


def test_defaults_lie_in_their_ranges_and_a_zero_never_means_two_things() -> None:
    for kind in FAULTS.values():
        for parameter in kind.parameters:
            assert parameter.name in Fault.__struct_fields__
            neutral = type(parameter.default)()
            assert parameter.default == neutral or parameter.check(parameter.default) == parameter.default
            if parameter.default != neutral and not parameter.choices:
                with pytest.raises(ValueError):
                    assert parameter.check(neutral) != neutral
        assert completed(Fault(kind.name)) == completed(completed(Fault(kind.name)))


def test_the_catalogue_prints_as_a_table_with_a_row_for_each_kind() -> None:
    rows = markdown_table().splitlines()
    assert len(rows) == len(FAULTS) + 2
    assert {row.count("|") for row in rows} == {5}
    assert any("`close`" in row and "1000 to 4999" in row for row in rows)
