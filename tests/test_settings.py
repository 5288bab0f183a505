"""Settings: the fifteen that stay, where values come from, what is said of bad ones, and how a file is saved."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
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
    load_file,
    masked,
    shown,
    validate,
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
    "BACKFILL_START": ["nowhere", "12x", "\u0663", "1" * 19],
    "PROXY_URL": ["foo", "xhttp://proxy:1", "http://proxy:99999", "http://:3128", "http://proxy:3128 x"],
    "THEME": ["NOT A THEME"],
    "KEYS": ["rotate", "=x", "rotate=", "Rotate=x", "rotate=x y", "rotate=x,rotate=y"],
    "EXCHANGE_WS_URL": ["ws://127.0.0.1:9/?wss://x", "wss://x?y", "wss://x:0", "wss://:9"],
    "EXCHANGE_REST_URL": ["http://127.0.0.1:9/?https://x", "https://"],
    "TRAIN_DEVICE": ["cuda:\u0663", "cuda:"],
    "TRAIN_RDZV_ENDPOINT": ["0.0.0.0:29400", "0:29400", "10.0.0.5:0", "10.0.0.5:99999", "10.0.0.5"],
    "STORE_RETENTION_DAYS": ["0.01", "-1", "1e9"],
}

# Whatever a training worker, SQLite, msgpack or a timer could not take.
BEYOND = [
    *(f"{info.name}={2**31}" for info in describe_all() if info.kind == "int"),
    *(f"{info.name}=1.1e9" for info in describe_all() if info.kind == "float" and "SCALE" not in info.name),
    "GRAD_SCALER_MAX_SCALE=2e38",
    "GRAD_SCALER_MIN_SCALE=1e-38",
    "GRAD_SCALER_GROWTH_FACTOR=1e5",
]


def edited(path: Path, changes: Mapping[str, str]) -> ConfigFile:
    """The file saved with these texts."""
    settings, problems = validate(changes, {})
    assert settings is not None, problems
    file = ConfigFile.read(path)
    return file.write(file.propose(settings, changes, file.revision))


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


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("TRAIN_RDZV_ENDPOINT=0.0.0.0:29400", "must be one address of this machine, not all"),
        ("TRAIN_RDZV_ENDPOINT=10.0.0.5:99999", "must have a port from 1 to 65535"),
        ("TRAIN_RDZV_ENDPOINT=10.0.0.5", "must be host:port"),
        ("KEYS=rotate=x,rotate=y", "each action at most once"),
    ],
)
def test_a_refused_value_is_told_the_rule_that_it_breaks(value: str, rule: str) -> None:
    assert rule in problems_of(value)


@pytest.mark.parametrize("setting", BEYOND)
def test_a_number_that_no_part_of_the_program_could_take_is_refused_with_the_bound_it_breaks(setting: str) -> None:
    said = problems_of(setting)
    assert any(bound in said for bound in ("at most", "<=", "from 2^-126 to 2^127", "36500")), said


@pytest.mark.parametrize(("name", "value"), [("BACKFILL_START", "now\n"), ("THEME", "dark\n"), ("TRAIN_DEVICE", "cpu\n")])
def test_a_rule_holds_to_the_very_end_of_a_value(name: str, value: str) -> None:
    _, problems = validate({name: value}, {})
    assert [problem.key for problem in problems] == [name]


def test_validating_makes_no_new_class_each_time() -> None:
    before = Settings.__subclasses__()
    validate({}, {})
    assert Settings.__subclasses__() == before


def test_bounds_that_are_only_technical_stay_out_of_the_rules() -> None:
    for info in describe_all():
        assert "2147483647" not in info.rule
        assert "1e+09" not in info.rule
    assert describe("WS_RECONNECT_MAX_RETRIES").rule == ">= 0"


@pytest.mark.parametrize("name", ["WS_PING_INTERVAL", "WS_RECONNECT_MAX_RETRIES"])
def test_true_is_no_number(tmp_path: Path, name: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"{name} = true\n")
    with pytest.raises(SettingsProblems, match="must be a"):
        load_file(config)


def test_an_id_to_begin_at_may_be_a_number_in_toml(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("BACKFILL_START = 4711\n")
    assert load(config).settings.BACKFILL_START == "4711"


@pytest.mark.parametrize("value", ["0", "0.0416666666666666667", "36500"])
def test_trades_are_kept_for_ever_or_for_an_hour_at_least(value: str) -> None:
    assert float(value) == load(layers=Layers(overrides=(f"STORE_RETENTION_DAYS={value}",))).settings.STORE_RETENTION_DAYS


@pytest.mark.parametrize("kind", ["missing", "folder", "forbidden", "pipe"])
def test_a_ca_file_that_cannot_be_read_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ca.pem"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "forbidden":
        path.write_text("x")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    said = problems_of(f"EXCHANGE_CA_FILE={path}")
    assert said.startswith(f"EXCHANGE_CA_FILE = {path}: must be a file that can be read: ")


@pytest.mark.parametrize("name", [info.name for info in describe_all() if info.kind in {"text", "list", "choice"}])
@pytest.mark.parametrize("value", ["\udcff", "a\0b"], ids=["not UTF-8", "zero byte"])
def test_unusable_text_is_refused_by_setting_name(name: str, value: str) -> None:
    said = problems_of(f"{name}={value}")
    assert said.startswith(f"{name} = ")
    assert "must be UTF-8 text" in said or "must be text without zero bytes" in said
    said.encode()


def test_overlong_text_is_refused_in_a_short_message() -> None:
    said = problems_of(f"DATA_DIR=/{'x' * 100_000}")
    assert said.startswith("DATA_DIR = /xxx")
    assert said.endswith("(100001 characters): must be at most 4096 characters long (--set DATA_DIR)")
    assert len(said) < 400


def test_zero_bytes_in_toml_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('DATA_DIR = "/a\\u0000b"\nKEYS = ["quit=\\u0000"]\n')
    with pytest.raises(SettingsProblems) as caught:
        load(config)
    assert [problem.key for problem in caught.value.problems] == ["DATA_DIR", "KEYS"]
    assert all("must be text without zero bytes" in problem.rule for problem in caught.value.problems)


def test_command_names_a_data_folder_that_is_not_utf8() -> None:
    environment = {**os.environb, b"DATA_DIR": b"/srv/\xff"}
    command = (sys.executable, "-m", "quantai_tui", "config", "validate")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "quantai-tui: DATA_DIR = /srv/\\udcff: must be UTF-8 text (environment variable DATA_DIR)\n"


def test_oversized_ca_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with path.open("wb") as file:
        file.truncate(2**24 + 1)
    assert "it is larger than 16 MiB" in problems_of(f"EXCHANGE_CA_FILE={path}")


def test_a_ca_file_that_is_there_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("x")
    assert str(path) == load(layers=Layers(overrides=(f"EXCHANGE_CA_FILE={path}",))).settings.EXCHANGE_CA_FILE


@pytest.mark.parametrize(
    "setting",
    [
        "PROXY_URL=http://bob:s3cret@proxy:99999",
        "PROXY_URL=http://bob:s3c/s3cret@proxy:1",
        "PROXY_URL=http://bob:s3@s3cret@proxy:0",
        "PROXY_URL=bob:s3cret@proxy:3128",
        "PROXY_URLL=http://bob:s3cret@proxy:3128",
        "PROXY_URLL=bob:s3cret@proxy:3128",
        "http://bob:s3cret@proxy:3128",
    ],
)
def test_no_problem_tells_a_proxys_password(setting: str) -> None:
    said = problems_of(setting)
    assert "s3cret" not in said
    assert "***@proxy" in said


def test_a_password_is_masked_wherever_a_value_is_shown() -> None:
    assert shown("PROXY_URL", "http://bob:s3cret@proxy:3128") == "http://***@proxy:3128"
    assert shown("PROXY_URL", "http://proxy:3128") == "http://proxy:3128"
    assert shown("DATA_DIR", "/home/me@here") == "/home/me@here"
    assert shown("SYMBOLS", ("ETHUSDT", "BTCUSDT")) == "ETHUSDT,BTCUSDT"
    assert masked('# mine\nPROXY_URL = "http://bob:s3cret@p"\nX = 1\n') == '# mine\nPROXY_URL = "http://***@p"\nX = 1\n'
    settings = load(layers=Layers(overrides=("PROXY_URL=http://bob:s3cret@proxy:3128",))).settings
    assert settings.PROXY_URL == "http://bob:s3cret@proxy:3128"
    assert "s3cret" not in repr(settings)


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


def test_a_text_given_stands_in_for_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("WS_PING_INTERVAL = 20\n")
    assert load(path, file_text="WS_PING_INTERVAL = 21\n").settings.WS_PING_INTERVAL == 21.0


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


@pytest.mark.parametrize("text", ["ethusdt,BTCUSDT", " ETHUSDT , btcusdt ,", '["ETHUSDT", "BTCUSDT"]'])
def test_symbols_are_comma_separated_everywhere_and_an_array_is_fine_in_toml(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"SYMBOLS = {text}\n" if text.startswith("[") else f'SYMBOLS = "{text}"\n')
    assert load(config).settings.SYMBOLS == ("ETHUSDT", "BTCUSDT")


def test_saving_keeps_comments_and_order_and_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    before = "# my settings\nWS_PONG_TIMEOUT = 9  # slow line\n\nWS_PING_INTERVAL = 20\n"
    path.write_text(before)
    saved = edited(path, {"WS_PING_INTERVAL": "25", "SYMBOLS": "ETHUSDT,BTCUSDT"})
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
        ConfigFile.read(path).propose(
            load(layers=Layers(overrides=("WS_PING_INTERVAL=25",))).settings, ["WS_PING_INTERVAL"], revision
        )
    assert "21" in caught.value.on_disk
    assert "25" in caught.value.proposed
    assert path.read_text() == "WS_PING_INTERVAL = 21\n"


def test_every_kind_of_value_is_written_in_its_own_type(tmp_path: Path) -> None:
    texts = {"WS_RECONNECT_MAX_RETRIES": "5.0", "GRAD_SCALER_AUTO_RESET": "off", "WS_PING_INTERVAL": "7", "SYMBOLS": "btcusdt"}
    saved = edited(tmp_path / "config.toml", texts)
    assert saved.text == (
        'WS_RECONNECT_MAX_RETRIES = 5\nGRAD_SCALER_AUTO_RESET = false\nWS_PING_INTERVAL = 7.0\nSYMBOLS = "BTCUSDT"\n'
    )


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_saving_through_a_link_writes_its_target_and_keeps_the_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "dotfiles" / "quantai.toml"
    target.parent.mkdir()
    target.write_text("WS_PING_INTERVAL = 20\n")
    target.chmod(mode)
    link = tmp_path / "config.toml"
    link.symlink_to(target)
    edited(link, {"WS_PING_INTERVAL": "25"})
    backup = target.with_suffix(".toml.bak")
    assert link.is_symlink()
    assert target.read_text() == "WS_PING_INTERVAL = 25.0\n"
    assert backup.read_text() == "WS_PING_INTERVAL = 20\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (target, backup)] == [mode, mode]


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    edited(path, {"WS_PING_INTERVAL": "25"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_invalid_edit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("WS_RECONNECT_INITIAL_DELAY = 5\n")
    with pytest.raises(SettingsProblems):
        edited(path, {"WS_RECONNECT_MAX_DELAY": "4"})
    assert path.read_text() == "WS_RECONNECT_INITIAL_DELAY = 5\n"


@given(st.floats(min_value=1e-6, max_value=1e9, allow_nan=False))
def test_a_number_survives_being_saved_and_read(value: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        edited(path, {"WS_PING_INTERVAL": as_text(value)})
        assert value == load(path, environment={}).settings.WS_PING_INTERVAL


def test_describe_tells_rules_from_the_model_itself() -> None:
    assert describe("WS_RECONNECT_MAX_DELAY").rule == "> 0, at least WS_RECONNECT_INITIAL_DELAY"
    assert describe("TRAIN_PRECISION").choices == ("auto", "fp16", "bf16", "fp32")
    assert describe("WS_PING_INTERVAL").unit == "s"


@pytest.mark.parametrize("name", ["SYMBOLS", "TRAIN_SYMBOL"])
def test_a_symbol_that_is_none_is_told_the_whole_rule(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsProblems, match=rf"{name} = ETH-USDT: .*2 to 20 letters, digits and underscores"):
        load(tmp_path / "none.toml", layers=Layers(overrides=(f"{name}=ETH-USDT",)))
