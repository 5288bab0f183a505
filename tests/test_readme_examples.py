"""What the README shows as code is run: the library example against the embedded exchange, the fault script by its parser."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from exchange_support import child

from quantai_tui.exchange.catalogue import FAULTS
from quantai_tui.exchange.script import load_script
from quantai_tui.stream import StreamConfig
from quantai_tui.stream.advice import RULES
from quantai_tui.ui.format import words
from tests.refresh_docs import README

TEXT = README.read_text(encoding="utf-8")


def block(marker: str, language: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None, f"README.md has no block {marker}"
    return found[1]


async def test_the_library_example_receives_trades_and_tells_its_statistics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example: dict[str, Any] = {"__name__": "example"}
    exec(compile(block("library-example", "python"), "README.md", "exec"), example)
    async with child("--folder", tmp_path / "exchange", "--seed", "7", "--symbols", "ETHUSDT,BTCUSDT") as venue:
        ready = venue.ready
        config = StreamConfig(
            symbols=("ETHUSDT", "BTCUSDT"), ws_url=ready["ws_url"], rest_url=ready["rest_url"], ca_file=ready["ca_file"]
        )
        async with asyncio.timeout(60):
            stats = await example["watch"](config, 12)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 12
    assert all(re.fullmatch(r"(ETHUSDT|BTCUSDT): \d+ trades up to id \d+, price [\d.]+", line) for line in printed), printed
    assert stats["state"] == "live"
    assert stats["symbols"]["ETHUSDT"]["missing"] == 0
    assert stats["reconnect_statistics"]["total_attempts"] == 0


async def test_the_librarys_example_names_the_addresses_that_the_settings_default_to() -> None:
    defaults = StreamConfig(symbols=("ETHUSDT",))
    assert f'ws_url="{defaults.ws_url}"' in block("library-example", "python")
    assert f'rest_url="{defaults.rest_url}"' in block("library-example", "python")


def test_the_fault_script_of_the_readme_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "outage.toml"
    path.write_text(block("fault-script", "toml"), encoding="utf-8")
    script = load_script(path)
    assert script.seed == 7
    assert [fault.kind for fault in script.faults] == ["flip-byte", "black-hole", "http-status", "close"]


def test_every_failure_is_in_the_table_with_all_of_its_advice() -> None:
    table = TEXT.partition("<!-- failures:")[2].partition("<!-- /failures -->")[0]
    rows = {line.split("|")[1].strip(): line.lower() for line in table.splitlines() if line.startswith("| `")}
    for kind, rule in RULES.items():
        line = rows[f"`{words(kind.value)}`"]
        assert ("waits for you" in line) is rule.fatal
        for word in re.findall(r"[\w']+", rule.advice.lower().removesuffix("retrying.")):
            assert word in line, f"{kind}: {word}"


def test_every_kind_of_fault_is_in_the_catalogues_table() -> None:
    for name, kind in FAULTS.items():
        assert f"| `{name}` | {kind.layer} | {kind.text} |" in TEXT
