"""The README says what is: its tables, its picture and its commands are compared with the program."""

from __future__ import annotations

import re

import pytest

from tests.refresh_docs import PICTURES, README, ROOT, refreshed

TEXT = README.read_text(encoding="utf-8")


def test_the_tables_of_keys_and_settings_are_made_from_the_program() -> None:
    assert refreshed(TEXT) == TEXT, "run: python -m tests.refresh_docs"


@pytest.mark.parametrize("marker", ["run-command", "test-command"])
def test_both_commands_are_one_line_and_pin_the_torch_that_is_tested(marker: str) -> None:
    block = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None
    line = block[1].strip()
    assert "\n" not in line
    assert "torch==2.13.0" in line


def test_every_link_and_picture_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_the_picture_shows_the_panes_of_today() -> None:
    svg = (PICTURES / "demo-120x40.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    for pane in ("connection", "heartbeat", "backoff", "market", "training", "gradient scale", "overflow", "reconnects", "log"):
        assert pane in svg, f"{pane}: run python -m tests.refresh_docs --pictures"
    assert "LIVE" in svg
