"""Bad input: one clear message, exit code 2, and nothing is started; the same words with a dashboard and without one."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import LINUX_ONLY, PROGRAM, Stage, stage

__all__ = ["stage"]  # a fixture

pytestmark = LINUX_ONLY

Arrange = Callable[[Stage], tuple[list[str], list[str]]]  # the arguments, and what the message must name


def unknown_setting(stage: Stage) -> tuple[list[str], list[str]]:
    file = stage.home / "config" / "quantai-tui" / "config.toml"
    file.parent.mkdir()
    file.write_text('LOG_LEVEL = "INFO"\nWS_PING_INTERVALL = 5\n')
    return ["demo"], ["WS_PING_INTERVALL", "WS_PING_INTERVAL", str(file), "line 2"]


def negative_delay(stage: Stage) -> tuple[list[str], list[str]]:
    return ["demo", "--set", "WS_RECONNECT_INITIAL_DELAY=-1"], ["WS_RECONNECT_INITIAL_DELAY", "-1", "--set"]


def not_a_number(stage: Stage) -> tuple[list[str], list[str]]:
    return ["demo", "--set", "WS_PONG_TIMEOUT=nan"], ["WS_PONG_TIMEOUT", "nan"]


def longest_delay_below_the_first(stage: Stage) -> tuple[list[str], list[str]]:
    (stage.work / ".env").write_text("WS_RECONNECT_INITIAL_DELAY=30\nWS_RECONNECT_MAX_DELAY=20\n")
    return ["demo"], ["WS_RECONNECT_MAX_DELAY", "20", "WS_RECONNECT_INITIAL_DELAY", ".env"]


def truncated_gzip(stage: Stage) -> tuple[list[str], list[str]]:
    line = b"1,0.5,1.0,1,1,1570752011620,True,True\n"
    packed = gzip.compress(b"".join(line.replace(b"1,", b"%d," % number, 1) for number in range(1, 20_000)))
    file = stage.work / "XRPETH-aggTrades-2019-10-11.csv.gz"
    file.write_bytes(packed[: len(packed) // 2])
    return ["replay", str(file)], [file.name, "ends in the middle"]


def garbage_zip(stage: Stage) -> tuple[list[str], list[str]]:
    file = stage.work / "XRPETH-aggTrades-2019-10-11.zip"
    file.write_bytes(b"this was never a zip file" * 100)
    return ["replay", str(file)], [file.name, "cannot be read"]


def wrong_columns(stage: Stage) -> tuple[list[str], list[str]]:
    file = stage.work / "XRPETH-aggTrades-2019-10-11.csv"
    file.write_text("1,0.5,1.0,1,1,1570752011620,True,True\n2,0.5,1.0\n")
    return ["replay", str(file)], [file.name, "line 2", "3 columns"]


def name_without_a_symbol(stage: Stage) -> tuple[list[str], list[str]]:
    file = stage.work / "trades.csv"
    file.write_text("1,0.5,1.0,1,1,1570752011620,True,True\n")
    return ["replay", str(file)], [file.name, "rename it, as in ETHUSDT-aggTrades-2024-06.csv"]


def missing_file(stage: Stage) -> tuple[list[str], list[str]]:
    return ["replay", "no-such-aggTrades.csv"], ["no-such-aggTrades.csv", "no such file"]


def data_folder_below_a_file(stage: Stage) -> tuple[list[str], list[str]]:
    (stage.work / "taken").write_text("a file, not a folder")
    folder = stage.work / "taken" / "data"
    return ["demo", "--set", f"DATA_DIR={folder}"], [str(folder), "DATA_DIR"]


EVERYTHING = (
    unknown_setting,
    negative_delay,
    not_a_number,
    longest_delay_below_the_first,
    truncated_gzip,
    garbage_zip,
    wrong_columns,
    name_without_a_symbol,
    missing_file,
    data_folder_below_a_file,
)
# One for each place at which a start can fail: at the command line, at the settings, at the folder, at the exchange.
ONE_OF_EACH_KIND = (unknown_setting, truncated_gzip, missing_file, data_folder_below_a_file)


def name_of(arrange: Arrange) -> str:
    return arrange.__name__.replace("_", " ")


def assert_clear(message: str, words: list[str], longest: int) -> None:
    assert "Traceback" not in message, message
    assert len(message.strip().splitlines()) <= longest, message
    flat = " ".join(message.split())
    assert [word for word in words if word not in flat] == [], message


@pytest.mark.parametrize("arrange", EVERYTHING, ids=name_of)
def test_bad_input_without_a_screen_is_one_message_and_exit_code_2(stage: Stage, arrange: Arrange) -> None:
    arguments, words = arrange(stage)
    done = stage.run(*arguments, "--headless")

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert_clear(done.stderr, words, longest=3)
    stage.assert_nothing_left()


@pytest.mark.parametrize("arrange", ONE_OF_EACH_KIND, ids=name_of)
def test_bad_input_with_a_dashboard_leaves_its_message_on_the_normal_screen(stage: Stage, arrange: Arrange) -> None:
    arguments, words = arrange(stage)
    terminal = stage.terminal(*arguments, columns=250)

    assert terminal.wait_exit(20) == 2
    terminal.assert_restored()
    assert_clear(terminal.text, words, longest=3)
    stage.assert_nothing_left()


def test_bad_input_in_process_leaves_its_message_on_the_normal_screen(stage: Stage) -> None:
    arguments, words = truncated_gzip(stage)
    terminal = stage.terminal(*arguments, "--in-process", columns=250)

    assert terminal.wait_exit(20) == 2
    terminal.assert_restored()
    assert_clear(terminal.text, words, longest=3)
    stage.assert_nothing_left()


def test_two_faults_at_once_are_two_lines(stage: Stage) -> None:
    done = stage.run("demo", "--headless", "--set", "WS_PING_INTERVAL=0", "--set", "GRAD_SCALER_GROWTH_FACTOR=1")

    assert done.returncode == 2
    assert_clear(done.stderr, ["WS_PING_INTERVAL", "GRAD_SCALER_GROWTH_FACTOR"], longest=4)


@pytest.mark.parametrize("command", [["demo"], ["demo", "--in-process"], ["attach"]], ids=" ".join)
def test_without_a_terminal_nothing_is_started_and_headless_is_named(stage: Stage, command: list[str]) -> None:
    output = stage.work / "output"
    with output.open("wb") as file:
        done = subprocess.run(
            (*PROGRAM, *command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )

    assert (done.returncode, output.read_bytes()) == (2, b"")
    assert_clear(done.stderr, ["terminal", "--headless"], longest=2)
    stage.assert_nothing_left()


def test_a_terminal_that_cannot_be_drawn_on_is_refused(stage: Stage) -> None:
    terminal = stage.terminal("demo", term="dumb", columns=200)
    assert terminal.wait_exit(20) == 2
    assert_clear(terminal.text, ["TERM", "--headless"], longest=1)
    stage.assert_nothing_left()


def test_json_without_headless_is_refused(stage: Stage) -> None:
    done = stage.run("demo", "--json")
    assert done.returncode == 2
    assert "--json goes with --headless" in done.stderr


def test_a_folder_is_no_archive(stage: Stage, tmp_path: Path) -> None:
    done = stage.run("replay", str(tmp_path), "--headless")
    assert done.returncode == 2
    assert_clear(done.stderr, [str(tmp_path), "is not a file"], longest=2)
