"""The shared environment and `.env`: which names count, which of them win, and which only cause warnings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

import quantai_tui
from quantai_tui.cli import cli
from quantai_tui.engine.desk import SettingsDesk
from quantai_tui.settings import Layers, Settings, SettingsProblems, load, names

PLACES = ("environment", ".env")


def give(monkeypatch: pytest.MonkeyPatch, place: str, **variables: str) -> None:
    if place == "environment":
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    else:
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))


def warned() -> list[str]:
    return [str(warning) for warning in load().warnings]


def refused() -> str:
    with pytest.raises(SettingsProblems) as caught:
        load()
    with pytest.raises(SettingsProblems):  # `Settings()` agrees
        Settings()
    return str(caught.value)


def bare() -> Settings:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Settings()


@pytest.mark.parametrize("place", PLACES)
def test_foreign_names_cause_warnings_without_values(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    foreign = {"WS_GATEWAY_PORT": "tcp://10.0.0.1:80", "WS_PORT": "s3cret", "WS_TOKEN": "s3cret", "GRAD_SCALER_SPEED": "s3cret"}
    give(monkeypatch, place, DATABASE_URL="s3cret", **foreign)
    said = warned()
    assert [line.partition(":")[0] for line in said] == list(foreign)
    assert all("it is ignored, because there is no such setting" in line and place in line for line in said)
    assert "s3cret" not in "".join(said)
    with pytest.warns(UserWarning, match="it is ignored") as told:
        assert Settings() == load().settings
    assert [str(warning.message) for warning in told] == said


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["WS_PING_INTERVALL", "WS_PINGINTERVAL", "WS_RECONECT_MAX_DELAY", "GRAD_SCALER_MAX_SCALES"])
def test_misspelt_name_is_an_error_that_names_the_setting(monkeypatch: pytest.MonkeyPatch, place: str, name: str) -> None:
    give(monkeypatch, place, **{name: "5"})
    said = refused()
    meant = re.search(r"did you mean (\w+)\?", said)
    assert meant is not None
    assert meant[1] in names()
    assert said.startswith(f"{name} = 5: there is no such setting")
    monkeypatch.setenv(f"QUANTAI_{meant[1]}", "6")  # the remedy in the message
    assert getattr(load().settings, meant[1]) == 6.0
    assert warned()[0].startswith(f"{name}: it is ignored")


@pytest.mark.parametrize("place", PLACES)
def test_misspelt_name_after_many_foreign_names_is_found(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    foreign = {f"WS_{number}_SERVICE_PORT_HTTP": "1" for number in range(100)}
    give(monkeypatch, place, **foreign)
    assert len(warned()) == 21
    assert "80 more names" in warned()[-1]
    give(monkeypatch, place, **foreign, WS_PING_INTERVALL="1")
    assert refused().startswith("WS_PING_INTERVALL = 1")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("level", ["info", "Info", "INFO", "warning"])
def test_log_level_ignores_case(monkeypatch: pytest.MonkeyPatch, place: str, level: str) -> None:
    give(monkeypatch, place, LOG_LEVEL=level)
    assert warned() == []
    assert load().settings.LOG_LEVEL == bare().LOG_LEVEL == level.upper()


def test_log_level_of_file_and_option_ignores_case(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('LOG_LEVEL = "debug"\n')
    assert load(path).settings.LOG_LEVEL == "DEBUG"
    assert load(path, layers=Layers(overrides=("LOG_LEVEL=error",))).settings.LOG_LEVEL == "ERROR"


COMMON = {"LOG_LEVEL": "trace", "THEME": "Nord Deep", "KEYS": "s3cret"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMON)
def test_invalid_value_of_a_common_name_yields_to_the_next_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, name: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('LOG_LEVEL = "ERROR"\nTHEME = "reef"\nKEYS = "quit=x"\n')
    give(monkeypatch, place, **{name: COMMON[name]})
    loaded = load(path)
    assert (loaded.settings.LOG_LEVEL, loaded.settings.THEME, loaded.settings.KEYS) == ("ERROR", "reef", ("quit=x",))
    assert loaded.origins[name].layer == "file"
    assert [warning.key for warning in loaded.warnings] == [name]
    assert f"QUANTAI_{name}" in str(loaded.warnings[0])
    assert "s3cret" not in str(loaded.warnings[0])
    assert getattr(bare(), name) == Settings.model_fields[name].default


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMON)
def test_a_wrong_value_under_our_own_name_is_an_error(monkeypatch: pytest.MonkeyPatch, place: str, name: str) -> None:
    give(monkeypatch, place, **{f"QUANTAI_{name}": COMMON[name]})
    with pytest.raises(SettingsProblems, match=f"{name} = .*QUANTAI_{name}"):
        load()


def test_a_wrong_value_of_any_other_setting_is_an_error() -> None:
    Path(".env").write_text("SYMBOLS=ETH,ETH\n")
    with pytest.raises(SettingsProblems, match="each symbol at most once"):
        load()


def test_every_setting_has_a_prefixed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in names():
        default = getattr(Settings(), name)
        text = ",".join(default) if isinstance(default, tuple) else str(default)
        monkeypatch.setenv(f"QUANTAI_{name}", text)
    loaded = load()
    assert loaded.settings == Settings()
    assert {name: origin.text for name, origin in loaded.origins.items()} == {
        name: f"environment variable QUANTAI_{name}" for name in names()
    }


def test_the_prefixed_form_wins_in_either_place(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("WS_PING_INTERVAL=1\nQUANTAI_WS_PING_INTERVAL=2\nQUANTAI_WS_PONG_TIMEOUT=3\nTHEME=reef\n")
    monkeypatch.setenv("WS_PING_INTERVAL", "-9")  # ignored without a warning
    monkeypatch.setenv("WS_PONG_TIMEOUT", "4")
    monkeypatch.setenv("QUANTAI_WS_PONG_TIMEOUT", "5")
    monkeypatch.setenv("LOG_LEVEL", "trace")
    monkeypatch.setenv("QUANTAI_LOG_LEVEL", "error")
    loaded = load()
    for settings in (loaded.settings, Settings()):
        assert (settings.WS_PING_INTERVAL, settings.WS_PONG_TIMEOUT, settings.LOG_LEVEL) == (2.0, 5.0, "ERROR")
    assert loaded.warnings == ()
    assert loaded.origins["WS_PING_INTERVAL"].text == ".env, line 2, QUANTAI_WS_PING_INTERVAL"
    assert loaded.origins["WS_PONG_TIMEOUT"].text == "environment variable QUANTAI_WS_PONG_TIMEOUT"
    assert load(layers=Layers(overrides=("WS_PING_INTERVAL=8",))).settings.WS_PING_INTERVAL == 8.0


def test_the_editor_names_the_variable_that_won(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEME", "reef")
    monkeypatch.setenv("QUANTAI_THEME", "dusk")
    field = next(field for field in SettingsDesk(None, Layers()).form().fields if field.name == "THEME")
    assert (field.value, field.source, field.locked) == ("dusk", *["environment variable QUANTAI_THEME"] * 2)


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_name_with_our_prefix_is_an_error(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    give(monkeypatch, place, QUANTAI_WS_PING="s3cret", QUANTAI_THEMES="s3cret")
    said = refused()
    assert "QUANTAI_WS_PING: there is no such setting" in said
    assert "QUANTAI_THEMES: there is no such setting; did you mean QUANTAI_THEME?" in said
    assert "s3cret" not in said


def test_internal_variables_with_our_prefix_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(quantai_tui.__file__).parent
    texts = [path.read_text() for path in package.rglob("*.py") if path.parent.name != "settings"]
    used = set(re.findall(r"\"(QUANTAI_[A-Z_]+)\"", "".join(texts)))
    assert {"QUANTAI_ENGINE", "QUANTAI_NOTIFY"} <= used
    for name in used:
        monkeypatch.setenv(name, "x")
    assert warned() == []


def test_variables_in_dotenv_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE", "/srv/me")
    Path(".env").write_text("SUB=q\nNOTHING\nDATA_DIR=${BASE}/${SUB}/${NONE:-x}${NOTHING}\n")
    assert load().settings.DATA_DIR == Settings().DATA_DIR == "/srv/me/q/x"


def test_a_line_of_dotenv_is_counted_with_the_empty_ones_before_it() -> None:
    Path(".env").write_text("\n\nOTHER=1\n\n# comment\n\n  WS_PING_INTERVAL=0\n")
    with pytest.raises(SettingsProblems, match=r"\.env, line 7"):
        load()


def test_a_line_of_dotenv_that_cannot_be_read_matters_when_it_is_ours() -> None:
    Path(".env").write_text("some words\nWS_PING_INTERVAL 20\nX='open\n\nWS_PING_INTERVALL 9\nQUANTAI_X y\nDATA_DIR: z\n")
    assert refused().splitlines() == [
        f"{name}: the line cannot be read; it must be NAME=VALUE (.env, line {line})"
        for name, line in (("WS_PING_INTERVAL", 2), ("WS_PING_INTERVALL", 5), ("QUANTAI_X", 6), ("DATA_DIR", 7))
    ]


def test_unreadable_foreign_dotenv_line_is_a_warning() -> None:
    Path(".env").write_text("API KEYS go here\nTHEME: dark\nWS_SOON now\n")
    assert warned() == [
        f"{name}: the line cannot be read; it must be NAME=VALUE. It is ignored (.env, line {line})"
        for line, name in enumerate(("KEYS", "THEME", "WS_SOON"), 1)
    ]


def test_a_dotenv_of_unreadable_lines_is_a_short_message() -> None:
    Path(".env").write_text("some KEYS here\n" * 5000)
    assert len(warned()) == 21


def test_a_folder_called_dotenv_is_none_of_ours() -> None:
    Path(".env").mkdir()
    assert load().settings.WS_PING_INTERVAL == Settings().WS_PING_INTERVAL == 30.0


def test_keys_are_pairs_and_a_key_may_be_an_equals_sign() -> None:
    Path(".env").write_text("KEYS=rotate=ctrl+r, quit==,\n")
    assert load().settings.KEYS == ("rotate=ctrl+r", "quit==")


def test_an_old_dotenv_file_goes_on_working() -> None:
    Path(".env").write_text("WS_RECONNECT_MAX_DELAY=30\nGRAD_SCALER_AUTO_RESET=false\nSYMBOLS=ETHUSDT,BTCUSDT\nOTHER=1\n")
    for settings in (load().settings, Settings()):
        assert settings.WS_RECONNECT_MAX_DELAY == 30.0
        assert settings.GRAD_SCALER_AUTO_RESET is False
        assert settings.SYMBOLS == ("ETHUSDT", "BTCUSDT")


class TestWhereWarningsAreSeen:
    @pytest.fixture(autouse=True)
    def foreign(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WS_GATEWAY_PORT", "tcp://10.0.0.1:80")

    @pytest.mark.parametrize("command", [["config", "show"], ["config", "validate"], ["import", "none.csv"]], ids=" ".join)
    def test_on_standard_error_of_a_command(self, command: list[str]) -> None:
        Path("none.csv").write_text("no trades\n")
        done = CliRunner().invoke(cli, command)
        assert done.stderr.startswith("quantai-tui: warning: WS_GATEWAY_PORT: it is ignored")
        assert done.exit_code == (2 if command[0] == "import" else 0)

    def test_unknown_actions_in_a_plain_keys_variable_are_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYS", "no-action=x")
        done = CliRunner().invoke(cli, ["config", "validate"])
        assert (done.exit_code, done.stdout) == (0, "all settings are valid\n")
        assert "warning: KEYS: no-action=x" in done.stderr
        monkeypatch.setenv("QUANTAI_KEYS", "no-action=x")
        assert CliRunner().invoke(cli, ["config", "validate"]).exit_code == 2

    def test_headless_engine_prints_and_logs_warnings(self, own_home: Path) -> None:
        command = (sys.executable, "-m", "quantai_tui", "demo", "--headless", "--json", "--for", "0.1", "--set=TRAIN_AUTOSTART=0")
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("quantai-tui: warning: WS_GATEWAY_PORT: it is ignored")
        assert json.loads(done.stdout.splitlines()[0])
        (log,) = own_home.glob("data/**/engine.log")
        assert "WARNING quantai_tui.engine.desk: settings: WS_GATEWAY_PORT: it is ignored" in log.read_text()
