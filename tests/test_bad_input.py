"""With generated bad input every command ends in time, with a documented exit code and without a traceback."""

from __future__ import annotations

import subprocess

import pytest
from bad_input import make_case
from e2e_support import LINUX_ONLY, Stage, stage

__all__ = ["stage"]  # a fixture

pytestmark = LINUX_ONLY

_EXIT_CODES = range(6)
_INTERRUPTED = 130
_WITHIN_S = 60.0
_LONGEST_MESSAGE = 20_000


def check(stage: Stage, seed: int, *, cheap: bool) -> None:
    case = make_case(seed, stage.home, cheap=cheap)
    story = f"seed {seed}: {case.arguments!r:.300}, {', '.join(case.notes)}"
    try:
        done = case.run(_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{story}: no end within {_WITHIN_S:g} s: {error.stderr!r:.2000}") from None
    said = ((done.stdout or b"") + done.stderr).decode(errors="replace")
    assert "Traceback" not in said, f"{story}:\n{said}"
    codes = _EXIT_CODES if case.most_s is None else (*_EXIT_CODES, _INTERRUPTED)
    assert done.returncode in codes, f"{story}: exit code {done.returncode}\n{said}"
    assert done.returncode == 0 or 2 in case.closed or done.stderr, f"{story}: exit code {done.returncode} without a word"
    assert len(done.stderr) < _LONGEST_MESSAGE, f"{story}: a message of {len(done.stderr)} bytes"
    stage.wait_quiet()


@pytest.mark.parametrize("seed", range(30))
def test_bad_input_ends_in_a_message(stage: Stage, seed: int) -> None:
    check(stage, seed, cheap=True)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_bad_input_ends_in_a_message_for_every_command(stage: Stage, seed: int) -> None:
    check(stage, seed, cheap=False)
