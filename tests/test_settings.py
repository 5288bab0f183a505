"""Settings: the fifteen that stay, where values come from, what is said of bad ones, and how a file is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantai_tui.settings import (
    ConfigConflict,
    ConfigFile,
    Layers,
    Settings,
    SettingsProblems,
    as_text,
    describe,
    describe_all,
    load,
    validate_file,
)

FIFTEEN = {
    "WS_RECONNECT_INITIAL_DELAY": 1.0,
    "WS_RECONNECT_MAX_DELAY": 60.0,
    "WS_RECONNECT_BACKOFF_FACTOR": 2.0,
    "WS_RECONNECT_MAX_RETRIES": 10,
    "WS_PING_INTERVAL": 30.0,
    "WS_PONG_TIMEOUT": 10.0,
    "WS_SSL_TIMEOUT": 30.0,
    "WS_MESSAGE_TIMEOUT": 1200.0,
    "WS_MESSAGE_WARNING_TIMEOUT": 600.0,
    "GRAD_SCALER_GROWTH_FACTOR": 1.2,
    "GRAD_SCALER_GROWTH_INTERVAL": 2000,
    "GRAD_SCALER_MAX_SCALE": 100000.0,
    "GRAD_SCALER_AUTO_RESET": True,
    "GRAD_SCALER_RESET_THRESHOLD_EPOCHS": 3,
    "GRAD_SCALER_MAX_CONSECUTIVE_OVERFLOW": 5,
}

BAD_VALUES = {
    "WS_RECONNECT_INITIAL_DELAY": ["0", "-1", "x", "inf", "nan"],
    "WS_RECONNECT_MAX_DELAY": ["0.5", "inf"],
    "WS_RECONNECT_BACKOFF_FACTOR": ["1", "0.5", "inf"],
    "WS_RECONNECT_MAX_RETRIES": ["-1", "1.5", "many"],
    "WS_PING_INTERVAL": ["0", "-3", "nan"],
    "WS_PONG_TIMEOUT": ["0"],
    "WS_SSL_TIMEOUT": ["0", "inf"],
    "WS_MESSAGE_TIMEOUT": ["600", "0"],
    "WS_MESSAGE_WARNING_TIMEOUT": ["0", "1200"],
    "GRAD_SCALER_GROWTH_FACTOR": ["1", "1.0"],
    "GRAD_SCALER_GROWTH_INTERVAL": ["0", "2.5"],
    "GRAD_SCALER_MAX_SCALE": ["0", "inf"],
    "GRAD_SCALER_AUTO_RESET": ["maybe"],
    "GRAD_SCALER_RESET_THRESHOLD_EPOCHS": ["0"],
    "GRAD_SCALER_MAX_CONSECUTIVE_OVERFLOW": ["0"],
}


def problems_of(*overrides: str) -> str:
    with pytest.raises(SettingsProblems) as caught:
        load(layers=Layers(overrides=overrides))
    return str(caught.value)


def test_the_fifteen_settings_keep_names_and_defaults() -> None:
    settings = load().settings
    assert {name: getattr(settings, name) for name in FIFTEEN} == FIFTEEN
    bare = Settings()
    assert {name: getattr(bare, name) for name in FIFTEEN} == FIFTEEN


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values])
def test_a_value_outside_its_rule_is_refused_by_name_value_and_source(name: str, value: str) -> None:
    said = problems_of(f"{name}={value}")
    assert name in said
    assert f"--set {name}" in said
    assert len(said.splitlines()) == 1


def test_every_setting_is_described_in_full() -> None:
    for info in describe_all():
        assert info.title, info.name
        assert info.description.endswith("."), info.name
        assert info.group, info.name
        assert info.applies in {"live", "reconnect", "restart"}, info.name
        if info.kind in {"int", "float"}:
            assert info.rule, info.name


def test_the_command_line_wins_over_environment_over_dotenv_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text("WS_PING_INTERVAL = 1\nWS_PONG_TIMEOUT = 1\nWS_SSL_TIMEOUT = 1\nWS_RECONNECT_MAX_RETRIES = 1\n")
    Path(".env").write_text("WS_PING_INTERVAL=2\nWS_PONG_TIMEOUT=2\nWS_SSL_TIMEOUT=2\n")
    monkeypatch.setenv("WS_PING_INTERVAL", "3")
    monkeypatch.setenv("WS_PONG_TIMEOUT", "3")
    loaded = load(config, layers=Layers(overrides=("WS_PING_INTERVAL=4",)))
    settings = loaded.settings
    assert (settings.WS_PING_INTERVAL, settings.WS_PONG_TIMEOUT, settings.WS_SSL_TIMEOUT) == (4.0, 3.0, 2.0)
    assert settings.WS_RECONNECT_MAX_RETRIES == 1
    assert [loaded.origins[name].layer for name in ("WS_PING_INTERVAL", "WS_PONG_TIMEOUT", "WS_SSL_TIMEOUT")] == [
        "command line",
        "environment",
        ".env",
    ]
    assert loaded.origins["WS_RECONNECT_MAX_RETRIES"].text == f"{config}, line 4"


def test_a_modes_defaults_yield_to_anything_the_user_says(tmp_path: Path) -> None:
    layers = Layers(mode_defaults={"BAR_INTERVAL": "1s", "TRAIN_WINDOW": "16"}, forced={"SYMBOLS": "XRPETH"})
    config = tmp_path / "config.toml"
    config.write_text('BAR_INTERVAL = "5m"\nSYMBOLS = "BTCUSDT"\n')
    loaded = load(config, layers=layers)
    assert (loaded.settings.BAR_INTERVAL, loaded.settings.TRAIN_WINDOW) == ("5m", 16)
    assert loaded.settings.SYMBOLS == ("XRPETH",)
    assert loaded.origins["SYMBOLS"].locks_file


def test_an_unknown_key_in_the_file_is_named_with_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("# mine\nWS_PING_INTERVALL = 20\n")
    with pytest.raises(SettingsProblems) as caught:
        load(config)
    assert str(caught.value) == (
        f"WS_PING_INTERVALL = 20: there is no such setting; did you mean WS_PING_INTERVAL? ({config}, line 2)"
    )


def test_only_unknown_names_of_ours_matter_in_environment_and_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("DATABASE_URL=x\nGRAD_SCALER_SPEED=1\n")
    monkeypatch.setenv("EDITOR_FOO", "1")
    monkeypatch.setenv("WS_NONSENSE", "1")
    said = problems_of()
    assert "WS_NONSENSE = 1" in said
    assert "GRAD_SCALER_SPEED = 1" in said
    assert ".env, line 2" in said
    assert "DATABASE_URL" not in said


def test_a_broken_cross_rule_names_both_sides() -> None:
    said = problems_of("WS_RECONNECT_MAX_DELAY=0.5")
    assert said == (
        "WS_RECONNECT_MAX_DELAY = 0.5: must be at least WS_RECONNECT_INITIAL_DELAY "
        "(--set WS_RECONNECT_MAX_DELAY; WS_RECONNECT_INITIAL_DELAY = 1.0, default)"
    )


def test_all_problems_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("WS_PING_INTERVAL = 'soon'\nNO_SUCH = 1\n")
    with pytest.raises(SettingsProblems) as caught:
        load(config, layers=Layers(overrides=("TRAIN_DEVICE=gpu",)))
    assert {problem.key for problem in caught.value.problems} == {"WS_PING_INTERVAL", "NO_SUCH", "TRAIN_DEVICE"}


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("WS_PING_INTERVAL = = 3\n")
    assert "is not valid TOML" in str(validate_file(broken)[0])
    assert "there is no such file" in str(validate_file(tmp_path / "none.toml")[0])
    assert validate_file(tmp_path / "none.toml")[0].key == str(tmp_path / "none.toml")


@pytest.mark.parametrize("text", ["ethusdt,BTCUSDT", " ETHUSDT , btcusdt ,", '["ETHUSDT", "BTCUSDT"]'])
def test_symbols_are_comma_separated_everywhere_and_an_array_is_fine_in_toml(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"SYMBOLS = {text}\n" if text.startswith("[") else f'SYMBOLS = "{text}"\n')
    assert load(config).settings.SYMBOLS == ("ETHUSDT", "BTCUSDT")


def test_an_old_dotenv_file_goes_on_working() -> None:
    Path(".env").write_text("WS_RECONNECT_MAX_DELAY=30\nGRAD_SCALER_AUTO_RESET=false\nSYMBOLS=ETHUSDT,BTCUSDT\nOTHER=1\n")
    for settings in (load().settings, Settings()):
        assert settings.WS_RECONNECT_MAX_DELAY == 30.0
        assert settings.GRAD_SCALER_AUTO_RESET is False
        assert settings.SYMBOLS == ("ETHUSDT", "BTCUSDT")


def test_saving_keeps_comments_and_order_and_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    before = "# my settings\nWS_PONG_TIMEOUT = 9  # slow line\n\nWS_PING_INTERVAL = 20\n"
    path.write_text(before)
    file = ConfigFile.read(path)
    saved = file.save({"WS_PING_INTERVAL": "25", "SYMBOLS": "ETHUSDT,BTCUSDT"}, file.revision)
    assert path.read_text() == saved.text
    assert saved.text.startswith("# my settings\nWS_PONG_TIMEOUT = 9  # slow line\n\nWS_PING_INTERVAL = 25.0\n")
    assert path.with_suffix(".toml.bak").read_text() == before
    assert load(path).settings.SYMBOLS == ("ETHUSDT", "BTCUSDT")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_file_that_changed_meanwhile_is_not_overwritten_and_both_texts_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("WS_PING_INTERVAL = 20\n")
    revision = ConfigFile.read(path).revision
    path.write_text("WS_PING_INTERVAL = 21\n")
    with pytest.raises(ConfigConflict) as caught:
        ConfigFile.read(path).save({"WS_PING_INTERVAL": "25"}, revision)
    assert "21" in caught.value.on_disk
    assert "25" in caught.value.proposed
    assert path.read_text() == "WS_PING_INTERVAL = 21\n"


def test_an_invalid_edit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("WS_RECONNECT_INITIAL_DELAY = 5\n")
    file = ConfigFile.read(path)
    with pytest.raises(SettingsProblems):
        file.save({"WS_RECONNECT_MAX_DELAY": "4"}, file.revision)
    assert path.read_text() == "WS_RECONNECT_INITIAL_DELAY = 5\n"


@given(st.floats(min_value=1e-6, max_value=1e9, allow_nan=False))
def test_a_number_survives_being_saved_and_read(value: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        ConfigFile.read(path).save({"WS_PING_INTERVAL": as_text(value)}, ConfigFile.read(path).revision)
        assert value == load(path, environment={}).settings.WS_PING_INTERVAL


def test_describe_tells_rules_from_the_model_itself() -> None:
    assert describe("WS_RECONNECT_MAX_DELAY").rule == "> 0, at least WS_RECONNECT_INITIAL_DELAY"
    assert describe("TRAIN_PRECISION").choices == ("auto", "fp16", "bf16", "fp32")
    assert describe("WS_PING_INTERVAL").unit == "s"
