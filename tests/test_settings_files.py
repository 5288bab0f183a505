"""For an unreadable settings file each command prints one message that names the file and exits with code 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_textfile import HOSTILE, make

from quantai_tui.cli import cli
from quantai_tui.engine.desk import SettingsDesk
from quantai_tui.settings import ConfigFile, Layers, Settings, SettingsProblems, default_config_path, load, load_file
from quantai_tui.textfile import UnusableFile

pytestmark = pytest.mark.timeout(30)  # a command that waits for a pipe would never end

COMMANDS = (
    ["config", "show"],
    ["config", "validate"],
    ["import", "--symbol", "ETHUSDT", "trades.csv"],
    ["demo", "--headless", "--for", "1"],
)
DEEP = "A = " + "[" * 1000


def run(*arguments: str) -> Result:
    Path("trades.csv").write_text("1,0.5,1.0,1,1,1570752011620,True,True\n")
    return CliRunner().invoke(cli, arguments)


def assert_refused(done: Result, path: str, said: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.startswith(f"quantai-tui: {path}: {said}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "folder"])
def test_a_dotenv_that_cannot_be_read_is_one_message(kind: str) -> None:
    make(Path(".env").absolute(), kind)
    assert_refused(run("config", "show"), ".env", HOSTILE[kind])
    with pytest.raises(SettingsProblems, match=r"\.env"):
        Settings()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_config_file_that_cannot_be_read_is_one_message(tmp_path: Path, kind: str) -> None:
    path = str(make(tmp_path / "config.toml", kind))
    assert_refused(run("config", "show", "--config", path), path, HOSTILE[kind])
    assert_refused(run("config", "validate", path), path, HOSTILE[kind])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", ["pipe", "circle of links", "UTF-16"])
def test_every_command_that_reads_settings_refuses_a_hostile_file(command: list[str], kind: str) -> None:
    path = default_config_path()
    path.parent.mkdir(parents=True)
    make(path, kind)
    assert_refused(run(*command), str(path), HOSTILE[kind])


def test_a_deeply_nested_config_file_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(DEEP)
    assert_refused(run("config", "validate", str(path)), str(path), "is not valid TOML: its values are nested too deeply")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("WS_PING_INTERVAL = = 3\n")
    assert_refused(run("config", "validate", str(broken)), str(broken), "is not valid TOML")
    missing = str(tmp_path / "none.toml")
    assert_refused(run("config", "validate", missing), missing, "there is no such file (configuration file)")


def test_validating_another_file_does_not_read_dotenv(tmp_path: Path) -> None:
    make(Path(".env").absolute(), "UTF-16")
    path = tmp_path / "other.toml"
    path.write_text("WS_PING_INTERVAL = 3\n")
    done = run("config", "validate", str(path))
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{path}: valid\n", "")


def test_a_byte_order_mark_loses_no_setting(tmp_path: Path) -> None:
    Path(".env").write_bytes(b"\xef\xbb\xbfWS_PING_INTERVAL=5\r\nWS_PONG_TIMEOUT=6\r\n")
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfWS_SSL_TIMEOUT = 7\n")
    settings = load(path).settings
    assert (settings.WS_PING_INTERVAL, settings.WS_PONG_TIMEOUT, settings.WS_SSL_TIMEOUT) == (5.0, 6.0, 7.0)
    assert Settings().WS_PING_INTERVAL == 5.0


def test_a_file_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.toml"))
    path.write_text("WS_PING_INTERVAL = 3\n")
    assert "must be UTF-8 text" in run("config", "validate", str(path)).stderr


def test_multiplying_values_in_dotenv_are_refused() -> None:
    Path(".env").write_text("A=xxxxxxxx\n" + "A=${A}${A}\n" * 100 + "DATA_DIR=${A}\n")
    with pytest.raises(SettingsProblems) as refused:
        load()
    assert len(str(refused.value)) < 1000
    assert "must be at most 4096 characters" in str(refused.value)


def test_a_thousand_wrong_names_are_a_short_message(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("".join(f"{'X' * 500}{number} = 1\n" for number in range(1000)))
    with pytest.raises(SettingsProblems) as refused:
        load_file(path)
    assert len(str(refused.value)) < 10_000
    assert "more than 20 names are not settings" in str(refused.value)


class TestAtTheDesk:
    """A file that becomes unusable while the engine runs."""

    @pytest.fixture(autouse=True)
    def folder(self) -> None:
        default_config_path().parent.mkdir(parents=True)

    @pytest.mark.parametrize("ask", [SettingsDesk.form, SettingsDesk.text], ids=["form", "text"])
    def test_reading_an_unusable_file_gives_the_reason(self, ask: Callable[[SettingsDesk], object]) -> None:
        desk = SettingsDesk(None, Layers())
        path = desk.path
        make(path, "pipe")
        with pytest.raises(UnusableFile, match=r"config.toml is a pipe, not a file"):
            ask(desk)

    def test_a_save_and_an_undo_are_refused_with_the_reason(self) -> None:
        desk = SettingsDesk(None, Layers())
        path = desk.path
        assert desk.save({"THEME": "reef"}, desk.form().revision)[0].saved
        path.unlink()
        make(path, "pipe")
        saved, _ = desk.save({"THEME": "dusk"}, "")
        undone, _ = desk.undo()
        assert "is a pipe" in saved.problems[0].message
        assert "is a pipe" in undone.problems[0].message
        assert path.is_fifo()

    def test_closing_ends_a_trial_although_the_file_is_unusable(self) -> None:
        desk = SettingsDesk(None, Layers())
        path = desk.path
        result, _ = desk.save({"WS_PING_INTERVAL": "7"}, desk.form().revision)
        assert result.trial_id
        path.unlink()
        make(path, "pipe")
        desk.close()
        assert desk.settings.WS_PING_INTERVAL == 30.0
        assert desk.trial is None

    def test_unreadable_text_is_not_saved(self) -> None:
        desk = SettingsDesk(None, Layers())
        path = desk.path
        for text, said in (("#" * (2**20 + 1), "is larger than 1 MiB"), (DEEP, "nested too deeply"), ("a\0", "not valid TOML")):
            result, _ = desk.write(text, desk.text().revision)
            assert said in result.problems[0].message
        assert not path.exists()

    def test_pipe_in_place_of_a_trial_record_does_not_block(self) -> None:
        os.mkfifo(default_config_path().with_name("config.toml.trial"))
        assert "is a pipe" in SettingsDesk(None, Layers()).settled

    def test_a_file_is_saved_through_a_link_but_not_in_a_circle(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.symlink_to(tmp_path / "real.toml")
        ConfigFile.read(path).write("THEME = 'reef'\n")
        assert (tmp_path / "real.toml").read_text() == "THEME = 'reef'\n"
        path.unlink()
        path.symlink_to(path)
        with pytest.raises(UnusableFile, match="Too many levels"):
            ConfigFile.read(path)
