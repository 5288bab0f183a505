"""Text for a terminal, a pipe or a log has no control characters, forged lines or passwords."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from escape_support import find_control
from hypothesis import given
from hypothesis import strategies as st
from recording_support import a_block, a_file
from ui_support import FakeLink

import quantai_tui
from quantai_tui.cleaning import clean, clean_lines, one_line
from quantai_tui.engine.logs import EngineLog
from quantai_tui.engine.printer import Printer
from quantai_tui.link.base import LinkState
from quantai_tui.output import LogFormatter, json_line, safe_line, safe_lines
from quantai_tui.ui.crash import report_crash
from quantai_tui.ui.plain import run_plain

HOSTILE = "\x1b]0;PWNED\x07 \x9b2J \x7f\r\u202edesrever\u2066\u200b\u2028\udcff\ud800 http://joe:s3cret@h:1"
FORGED = "harmless\n2026-01-01T00:00:00.000Z INFO    quantai_tui: forged"


# The detector and the cleaner


@pytest.mark.parametrize(
    "bad",
    [
        b"a\x1b[2J",
        b"\x07",
        b"\x00",
        b"a\rb",
        b"\t",
        b"\x7f",
        "\x9b2J".encode(),
        b"\x9b2J",
        b"\xff",
        *(char.encode() for char in "\u202e\u2066\u061c\u200f\u2028\u2029\u200b\ufeff\x85\u00ad"),
        b"\xed\xb3\xbf",
    ],
)
def test_the_detector_finds_each_kind_of_character(bad: bytes) -> None:
    assert find_control(b"first line\nbefore " + bad + b" after\n")


def test_the_detector_lets_plain_text_pass() -> None:
    assert find_control("Zoë's café: 100 µs, 😀\nnext\n".encode()) == []
    assert find_control(b"\rbar", allowed=b"\n\r") == []


@given(st.text(st.characters(), max_size=60))
def test_cleaned_text_passes_the_detector(text: str) -> None:
    assert find_control(clean(text).encode(), allowed=b"") == []
    assert find_control(one_line(text).encode(), allowed=b"") == []
    assert find_control(clean_lines(text).encode()) == []
    assert clean_lines(text).count("\n") == text.count("\n")


def test_text_of_any_language_survives_the_cleaner() -> None:
    for text in ("Zoë café", "e\u0301", "हिन्दी", "عربي", "日本語", "😀"):
        assert clean(text) == text
    assert clean("a\tb\nc\udcff") == r"a b c\udcff"


# Logs


def logged(message: str, *args: object, path: Path) -> tuple[list[str], tuple[str, ...]]:
    """Log one record; return the lines of the engine's log and the lines for the screen."""
    log = EngineLog(path, "INFO")
    try:
        try:
            raise ValueError(HOSTILE + FORGED)
        except ValueError:
            logging.getLogger("quantai_tui.test").exception(message, *args)
        return path.read_bytes().decode().splitlines(), log.tail.snapshot()
    finally:
        log.close()


def test_a_record_cannot_forge_another_and_has_no_control_characters(tmp_path: Path) -> None:
    lines, tail = logged("event: %s", HOSTILE + FORGED, path=tmp_path / "engine.log")
    assert [line for line in lines if not line.startswith("    ")] == lines[:1]
    assert any("forged" in line for line in lines[1:])
    assert len(tail) == 1
    for text in ("\n".join(lines), tail[0]):
        assert find_control(text.encode()) == []
        assert "s3cret" not in text
        assert "***@h:1" in text


def test_a_record_with_a_carriage_return_stays_on_its_line() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "one\rtwo\u2028three\n", (), None)
    assert LogFormatter("%(message)s").format(record) == "one two three"


# JSON


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | FLOATS | st.none(), max_size=4))
def test_a_json_line_is_plain_ascii_and_means_the_same(value: dict[str, object]) -> None:
    line = json_line(value)
    assert line.isascii()
    assert find_control(line.encode(), allowed=b"") == []
    assert json.loads(line) == json.loads(json.dumps(value))


def test_a_json_line_with_a_lone_surrogate_is_still_json() -> None:
    assert json.loads(json_line({"path": "a\udcff😀"})) == {"path": r"a\udcff😀"}


# Whole programs


def run(*arguments: str, module: str = "quantai_tui") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )


def assert_safe(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """Return the output after checking it for control characters, passwords and tracebacks."""
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == code, said
    assert find_control(done.stdout + done.stderr) == []
    assert "s3cret" not in said
    assert "Traceback" not in said
    return said


def test_hostile_keys_and_values_of_a_file_are_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\u202e.toml"
    path.write_text(
        'THEME = "\\u001b]0;PWNED\\u0007\\nquantai-tui: all settings are valid"\n"\\u009b2J\\u202e" = "\\u2028"\n'
        'SYMBOLS = ["\\u007f", "http://joe:s3cret@h"]\n'
    )
    said = assert_safe(run("config", "validate", str(path)), 2)
    assert len(said.splitlines()) == 3
    assert "PWNED" in said


def test_a_usage_error_quotes_its_argument_cleaned_and_masked() -> None:
    assert "No such" in assert_safe(run("\x1b]0;P\x07http://joe:s3cret@h:1"), 2)
    assert "***" in assert_safe(run("demo", "--joe:s3cret@h:1\u202e"), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "/a\x1b[2J\n\x9b\u2028b.csv", "--headless"),
        ("import", "/a\x1b[2J\n\x9b\u2028b.csv"),
        ("attach", "--plain", "a\x1b]0;P\x07\u202e"),
        ("stop", "a\x1b]0;P\x07\u202e"),
        ("record", "a\x1b]0;P\x07\u202e"),
    ],
)
def test_hostile_arguments_are_cleaned_on_one_line(arguments: tuple[str, ...]) -> None:
    assert len(assert_safe(run(*arguments), 2).splitlines()) == 1


@pytest.mark.parametrize(
    "command", [(), ("stop",), ("import",), ("replay", "--headless"), ("demo", "--headless", "--config")], ids=" ".join
)
def test_a_very_long_argument_is_told_in_part(command: tuple[str, ...]) -> None:
    assert len(assert_safe(run(*command, "x" * 100_000), 2)) < 9_000


def test_a_very_long_line_among_others_is_cut_short() -> None:
    text = "first\n" + "x" * 100_000 + "\nlast"
    assert safe_lines(text) == f"first\n{'x' * 8_000}… (shortened; it has 100000 characters)\nlast"


def test_error_names_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"quantai_tui", b"replay", bytes(tmp_path) + b"/\xff.csv", b"--headless"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert r"\udcff.csv: there is no such file" in assert_safe(done, 2)


def test_recording_with_hostile_symbols_is_refused_cleanly(tmp_path: Path) -> None:
    path = a_file(tmp_path / "hostile.qrec", a_block(["dial", 0.0, 1, {"symbols": ["\x1b]0;PWNED\x07"]}, False]))
    said = assert_safe(run("replay", str(path), "--headless"), 2)
    assert "PWNED" in said
    assert "symbols has" in said


def test_hostile_fault_script_is_refused_cleanly(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[fault]]\nkind = "\\u001b]0;P\\u0007\\u202e http://joe:s3cret@h"\n')
    assert_safe(run("demo", "--headless", "--faults", str(path)), 2)
    alone = run("--folder", str(tmp_path / "x"), "--faults", str(path), module="quantai_tui.exchange")
    assert alone.stdout.isascii()
    assert find_control(alone.stdout + alone.stderr) == []
    assert "error" in json.loads(alone.stdout)


CRASH = """
import logging, sys, threading, warnings
from quantai_tui.output import guard_streams
guard_streams()
HOSTILE = {hostile!r}
thread = threading.Thread(target=lambda: 1 / 0 if False else int(HOSTILE))
thread.start(); thread.join()
warnings.warn(HOSTILE)
logging.getLogger("somebody.else").error("%s", HOSTILE)
print(HOSTILE)
print(HOSTILE, file=sys.stderr)
raise RuntimeError(HOSTILE)
"""


def test_tracebacks_warnings_and_prints_of_libraries_are_cleaned() -> None:
    done = subprocess.run([sys.executable, "-c", CRASH.format(hostile=HOSTILE)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert find_control(done.stdout + done.stderr) == []
    assert done.stderr.count(b"PWNED") >= 5
    assert done.stderr.count(b"Traceback") == 2
    assert b"s3cret" not in done.stdout + done.stderr


def test_unencodable_character_becomes_a_question_mark() -> None:
    code = "from quantai_tui.output import guard_streams, say; guard_streams(); say('a\\u2713b'); print('c\\u2713d')"
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        env={"PATH": "", "PYTHONIOENCODING": "latin-1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"a?b\nc?d\n")


def test_a_headless_run_of_a_file_with_a_hostile_name_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "ETHUSDT-aggTrades-\x1b]0;PWNED\x07\x9b\u202e.csv"
    rows = (f"{id},2000.5,1.0,{id},{id},{1_700_000_000_000 + 100 * id},true,true" for id in range(1, 50))
    path.write_text("\n".join(rows) + "\n")
    done = run("replay", str(path), "--headless", "--json", "--set=TRAIN_AUTOSTART=False")
    assert_safe(done, 0)
    assert done.stdout.isascii()
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["finished"]
    assert "\x1b]0;PWNED" in last["note"], "JSON escapes, and loses nothing"


def test_the_printer_of_status_lines_cleans_them(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("wb") as out:
        printer = Printer(out.fileno())
        printer.put(FORGED + HOSTILE)
        printer.close()
    said = (tmp_path / "lines").read_bytes()
    assert find_control(said) == []
    assert said.count(b"\n") == 1


def test_plain_lines_are_cleaned_and_masked(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_plain(FakeLink(state=LinkState.FAILED, detail=FORGED + HOSTILE)) == 1
    said = capfd.readouterr().out
    assert find_control(said.encode()) == []
    assert "***@h:1" in said
    assert said.count("\n") == 1


def test_a_crash_report_and_its_message_are_cleaned_and_masked(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.log"
    told = report_crash(RuntimeError(HOSTILE + FORGED), path)
    for text in (told, path.read_text()):
        assert "PWNED" in text
        assert find_control(text.encode()) == []
        assert "s3cret" not in text


def test_closed_pipe_prints_no_traceback() -> None:
    program = f"{sys.executable} -m quantai_tui config show"
    done = subprocess.run(
        ["bash", "-c", f"{program} | true; {program} | head -n 2"], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\nMarket\n"


# By construction


_PRINTS = {"print", "pprint", "input"}
_STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
_MODULES = {
    ("click", "echo"),
    ("click", "secho"),
    ("click", "echo_via_pager"),
    ("logging", "basicConfig"),
    ("logging", "Formatter"),
    ("logging", "StreamHandler"),
    ("traceback", "print_exc"),
    ("traceback", "print_exception"),
    ("traceback", "print_stack"),
}
# The dashboard draws, an editor gets the terminal, and the printer of headless lines cleans them itself.
_MAY = {
    ("ui/terminal.py", "__stderr__"),
    ("ui/external.py", "__stderr__"),
    ("ui/running.py", "__stderr__"),
    ("cli/running.py", "stdout"),
    ("cli/importing.py", "stderr"),  # whether it is a terminal
}


def _exits(path: Path, inside: str) -> list[str]:
    """Where a module writes to a terminal directly."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        told = ""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _PRINTS:
            told = f"{node.func.id}()"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if (owner, name) in _MODULES or (owner == "sys" and name in _STREAMS and (inside, name) not in _MAY):
                told = f"{owner}.{name}"
        elif isinstance(node, ast.ImportFrom) and node.module in {"sys", "click", "logging", "traceback"}:
            names = {alias.name for alias in node.names}
            if names & (_STREAMS | {name for _, name in _MODULES}):
                told = f"from {node.module} import"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "write"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "os"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            told = f"os.write({node.args[0].value}, ...)"
        if told:
            found.append(f"{inside}:{getattr(node, 'lineno', 0)}: {told}")
    return found


def test_only_output_module_writes_to_a_terminal() -> None:
    package = Path(quantai_tui.__file__).parent
    found = [
        line
        for path in sorted(package.rglob("*.py"))
        if (inside := path.relative_to(package).as_posix()) != "output.py"
        for line in _exits(path, inside)
    ]
    assert found == [], "use quantai_tui.output: say, say_json, LogFormatter, log_to_stderr"


def test_every_program_of_the_package_guards_its_streams() -> None:
    package = Path(quantai_tui.__file__).parent
    programs = [path for path in package.rglob("*.py") if path.name == "__main__.py" or '"__main__":' in path.read_text()]
    assert len(programs) >= 4
    for path in programs:
        assert "guard_streams()" in path.read_text(), path


def test_a_line_is_cleaned_before_it_is_masked() -> None:
    assert safe_line("http://jo\u200be:s3\x1bcret@h") == "http://***@h"
