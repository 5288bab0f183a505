"""For every command and mode: no foreign code runs, no port opens, and no secret or escape sequence is printed."""

from __future__ import annotations

import pytest
from e2e_support import LINUX_ONLY, Stage, stage
from escape_support import find_control
from every_command import C1_ESCAPE, ESCAPE, SECRET, USES, HostileHome, Outcome, Use, carry_out, commands

__all__ = ["stage"]  # a fixture

pytestmark = [LINUX_ONLY, pytest.mark.timeout(150)]

_WITH_EXCHANGE = ("", "demo", "replay", "serve")
_LOGS = ("*.log", "*.out", "*.jsonl")


def test_every_command_is_in_the_table_with_good_and_bad_input() -> None:
    for command in commands():
        codes = [use.codes for use in USES if use.command == command]
        assert any(0 in of for of in codes), f"{command or 'the program alone'}: add a use that succeeds to every_command.USES"
        assert any(of == (2,) for of in codes), (
            f"{command or 'the program alone'}: add a use that is refused to every_command.USES"
        )


@pytest.mark.parametrize("use", USES, ids=lambda use: use.label)
def test_no_command_leaks_or_runs_code_in_a_hostile_home(stage: Stage, use: Use) -> None:
    home = HostileHome(stage)
    outcome = carry_out(use, home)

    assert outcome.code in use.codes, outcome.output.decode(errors="replace")
    assert not home.marker.exists(), f"code from the working folder was run: {home.marker.read_text().split()}"
    assert [listener for listener in outcome.listening if not listener.on_loopback] == []
    if use.codes == (0,) and use.command in _WITH_EXCHANGE:
        assert outcome.listening, "the exchange listens; nobody has looked"
    assert_no_secret(home, outcome)
    assert_no_escape(use, home, outcome)
    home.wait_quiet()


def assert_no_secret(home: HostileHome, outcome: Outcome) -> None:
    secret = SECRET.encode()
    assert secret not in outcome.output, outcome.output.decode(errors="replace")
    assert [command for command in outcome.commands if SECRET in command] == []
    written_by_us = {home.work}  # has the test's own input
    files = [path for path in home.stage.home.rglob("*") if path.is_file() and not written_by_us & {*path.parents}]
    assert [str(path) for path in files if secret in path.read_bytes()] == []


def assert_no_escape(use: Use, home: HostileHome, outcome: Outcome) -> None:
    if use.screen is None:
        assert find_control(outcome.output) == []
    for sequence in (ESCAPE, C1_ESCAPE):  # unlike a dashboard's own sequences
        assert sequence.encode() not in outcome.output
    for pattern in _LOGS:
        for log in home.stage.home.rglob(pattern):
            assert find_control(log.read_bytes()) == [], log
