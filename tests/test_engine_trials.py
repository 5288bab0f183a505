"""Settings on trial: a bad edit over a flaky line undoes itself, whatever becomes of the dashboard or of the engine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_engine import ask, demo_engine, until

from quantai_tui.engine.desk import SettingsDesk
from quantai_tui.engine.engine import Engine
from quantai_tui.link import CommandName, SaveResult, SettingsPreview, SettingsText
from quantai_tui.settings import Layers, default_config_path, load

TEXT = '# mine\nWS_PING_INTERVAL = 20.0  # seconds\n\n# below\nTHEME = "harbor"\n'
MARK = "config.toml.trial"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def desk(config: Path) -> SettingsDesk:
    return SettingsDesk(config, Layers())


def save(desk: SettingsDesk, **values: str | None) -> SaveResult:
    return desk.save(values, desk.form().revision)[0]


def test_a_preview_says_what_changes_what_it_does_and_writes_nothing(desk: SettingsDesk, config: Path) -> None:
    preview = desk.preview({"WS_PING_INTERVAL": "25", "THEME": None, "LOG_LEVEL": "DEBUG"})
    assert [(change.name, change.old, change.new, change.effect) for change in preview.changes] == [
        ("WS_PING_INTERVAL", "20.0", "25.0", "stream reconnects"),
        ("LOG_LEVEL", "INFO", "DEBUG", "live now"),
        ("THEME", "harbor", "", "live now"),
    ]
    assert "- WS_PING_INTERVAL = 20.0  # seconds" in preview.diff
    assert "+ WS_PING_INTERVAL = 25.0  # seconds" in preview.diff
    assert '- THEME = "harbor"' in preview.diff
    assert preview.on_trial
    assert config.read_text() == TEXT
    assert not desk.preview({"THEME": "beacon"}).on_trial
    assert [problem.name for problem in desk.preview({"WS_PING_INTERVAL": "-1"}).problems] == ["WS_PING_INTERVAL"]


def test_a_preview_shows_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('PROXY_URL = "http://bob:s3cret@proxy:3128"\n')
    preview = SettingsDesk(path, Layers()).preview({"PROXY_URL": "http://eve:hunter2@proxy:3128"})
    said = str(preview)
    assert preview.changes
    assert "s3cret" not in said
    assert "hunter2" not in said


def test_what_touches_the_stream_is_on_trial_until_it_is_confirmed(desk: SettingsDesk, config: Path) -> None:
    result = save(desk, WS_PING_INTERVAL="25")
    assert (result.saved, result.trial_s) == (True, 30.0)
    assert desk.trial is not None
    assert desk.trial.names == ("WS_PING_INTERVAL",)
    mark = config.parent / MARK
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    assert "on trial" in save(desk, THEME="beacon").problems[0].message  # one thing at a time
    desk.confirm()
    assert not mark.exists()
    assert desk.trial is None
    assert "WS_PING_INTERVAL = 25.0  # seconds" in config.read_text()
    assert save(desk, THEME="beacon").trial_id == 0


def test_a_roll_back_puts_back_the_very_bytes_and_the_values_in_force(desk: SettingsDesk, config: Path) -> None:
    config.write_bytes(TEXT.replace("\n", "\r\n").encode())
    before = config.read_bytes()
    save(desk, WS_PING_INTERVAL="25")
    assert desk.settings.WS_PING_INTERVAL == 25.0
    result, changed = desk.roll_back()
    assert (result.saved, changed) == (True, {"WS_PING_INTERVAL"})
    assert config.read_bytes() == before
    assert desk.settings.WS_PING_INTERVAL == 20.0
    assert not (config.parent / MARK).exists()


def test_a_file_that_was_not_there_is_gone_again(tmp_path: Path) -> None:
    desk = SettingsDesk(None, Layers())
    path = default_config_path()
    assert not path.exists()
    save(desk, WS_PING_INTERVAL="25")
    assert path.exists()
    desk.roll_back()
    assert not path.exists()


def test_an_edit_by_somebody_else_during_a_trial_is_not_overwritten(desk: SettingsDesk, config: Path) -> None:
    save(desk, WS_PING_INTERVAL="25")
    config.write_text(TEXT + "LOG_LEVEL = 'DEBUG'\n")
    result, _ = desk.roll_back()
    assert "edited meanwhile" in result.applied["WS_PING_INTERVAL"]
    assert config.read_text().endswith("LOG_LEVEL = 'DEBUG'\n")
    assert desk.settings.WS_PING_INTERVAL == 20.0


def test_without_a_limit_nothing_is_on_trial(desk: SettingsDesk) -> None:
    save(desk, CONFIG_CONFIRM_S="0")
    assert save(desk, WS_PING_INTERVAL="25").trial_id == 0


def test_the_last_saves_are_undone_one_by_one(desk: SettingsDesk, config: Path) -> None:
    save(desk, THEME="beacon")
    save(desk, LOG_LEVEL="DEBUG")
    assert desk.undo()[0].applied == {"LOG_LEVEL": "live now"}
    assert desk.undo()[0].saved
    assert config.read_text() == TEXT
    assert desk.undo()[0].problems[0].message == "there is no save to undo"


def test_an_undo_over_somebody_elses_edit_shows_both(desk: SettingsDesk, config: Path) -> None:
    save(desk, THEME="beacon")
    config.write_text(TEXT + "# theirs\n")
    result, _ = desk.undo()
    assert not result.saved
    assert "# theirs" in result.conflict_text
    assert result.proposed_text == TEXT


def test_a_setting_is_taken_out_of_the_file_and_its_default_holds(desk: SettingsDesk, config: Path) -> None:
    assert save(desk, THEME=None).applied == {"THEME": "live now"}
    assert "THEME" not in config.read_text()
    assert "# below" in config.read_text()
    assert desk.settings.THEME == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("WS_PING_INTERVAL = \n", "line 1"),
        ("\nWS_PING_INTERVAL = -1\n", "line 2"),
        ("WS_PIN_INTERVAL = 3\n", "did you mean WS_PING_INTERVAL"),
        ("WS_RECONNECT_MAX_DELAY = 0.5\n", "WS_RECONNECT_INITIAL_DELAY"),
    ],
)
def test_a_raw_text_that_is_wrong_is_refused_with_its_line(desk: SettingsDesk, config: Path, text: str, said: str) -> None:
    result, _ = desk.write(text, desk.text().revision)
    assert not result.saved
    assert said in str(result.problems)
    assert config.read_text() == TEXT


def test_a_raw_text_is_written_logged_tried_and_undone_like_any_save(
    desk: SettingsDesk, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "quantai_tui")  # an edit is logged all the same
    caplog.handler.setLevel(logging.NOTSET)
    before = desk.text()
    result, _ = desk.write(TEXT.replace("20.0", "22.5"), before.revision)
    assert result.trial_id
    assert "setting WS_PING_INTERVAL: 20.0 -> 22.5" in caplog.text
    desk.confirm()
    stale, _ = desk.write("", before.revision)
    assert "22.5" in stale.conflict_text
    assert desk.undo()[0].saved
    assert config.read_text() == TEXT


def test_an_engine_that_ends_takes_its_trial_with_it(desk: SettingsDesk, config: Path) -> None:
    save(desk, WS_PING_INTERVAL="25")
    desk.close()
    assert config.read_text() == TEXT
    assert SettingsDesk(config, Layers()).settled == ""


_SAVES_AND_HANGS = """
import sys, time
from pathlib import Path
from quantai_tui.engine.desk import SettingsDesk
from quantai_tui.settings import Layers
desk = SettingsDesk(Path(sys.argv[1]), Layers())
result, _ = desk.save({"WS_PING_INTERVAL": "25"}, desk.form().revision)
assert result.trial_id
print("on trial", flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("edited", [False, True], ids=["as it was left", "edited since"])
def test_the_trial_of_a_killed_engine_is_undone_by_the_next_start(config: Path, edited: bool) -> None:
    owner = subprocess.Popen((sys.executable, "-c", _SAVES_AND_HANGS, str(config)), stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "on trial\n"
        beside = SettingsDesk(config, Layers())  # another engine, while the owner lives
        assert "on trial in another engine" in beside.settled
        assert "25.0" in config.read_text()
        mark = (config.parent / MARK).read_text()
        assert "on trial in another engine" in save(beside, WS_PONG_TIMEOUT="7").problems[0].message
        assert (config.parent / MARK).read_text() == mark
        os.kill(owner.pid, signal.SIGKILL)
    finally:
        owner.kill()
        owner.communicate()
    if edited:
        config.write_text(config.read_text() + "# by hand\n")
    after = SettingsDesk(config, Layers())
    assert "not confirmed" in after.settled
    assert not (config.parent / MARK).exists()
    if edited:
        assert "stays as it is" in after.settled
        assert "25.0" in config.read_text()
    else:
        assert config.read_text() == TEXT
        assert after.settings.WS_PING_INTERVAL == 20.0


def test_a_record_that_cannot_be_read_is_put_aside_and_said(config: Path) -> None:
    (config.parent / MARK).write_text("{nonsense")
    desk = SettingsDesk(config, Layers())
    assert "could not be undone" in desk.settled
    assert (config.parent / f"{MARK}.broken").exists()


_NAMES = ["WS_PING_INTERVAL", "LOG_LEVEL", "THEME", "GRAD_SCALER_MAX_SCALE"]
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.sampled_from(_NAMES), st.integers(0, 3)),
        st.tuples(st.sampled_from(["undo", "roll back", "confirm", "raw", "foreign"]), st.just(""), st.integers(0, 3)),
    ),
    max_size=14,
)
_VALUES: dict[str, list[str | None]] = {
    "WS_PING_INTERVAL": ["21", "22", None, "-1"],
    "LOG_LEVEL": ["DEBUG", "WARNING", None, "LOUD"],
    "THEME": ["beacon", "chalk", None, "A B"],
    "GRAD_SCALER_MAX_SCALE": ["90000", "80000", None, "nan"],
}


@given(_steps)
def test_whatever_is_done_the_file_is_whole_and_what_is_in_force_is_what_it_says(steps: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(TEXT)
        desk = SettingsDesk(path, Layers())
        foreign = False
        for what, name, number in steps:
            if what == "save":
                desk.save({name: _VALUES[name][number]}, desk.form().revision)
            elif what == "raw":
                desk.write(path.read_text() + f"# raw {number}\n", desk.text().revision)
            elif what == "foreign":
                path.write_text(path.read_text() + f"# theirs {number}\n")
                foreign = True
            elif what == "confirm":
                desk.confirm()
            else:
                desk.undo() if what == "undo" else desk.roll_back()
            text = path.read_text()
            assert all(comment in text for comment in ("# mine", "# below"))
            assert (desk.trial is not None) == (path.parent / MARK).exists()
            if not foreign:
                assert load(path).settings == desk.settings
        desk.close()
        assert not (path.parent / MARK).exists()


# -- in a running engine -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    default_config_path().parent.mkdir(parents=True, exist_ok=True)
    engine = demo_engine("TRAIN_AUTOSTART=False")
    await engine.start()
    yield engine
    await engine.stop()


async def asked(engine: Engine, name: CommandName, kind: type[Any], **args: object) -> Any:
    done, message, data = await ask(engine, name, **args)
    assert done, message
    return msgspec.convert(data, kind)


async def test_an_unconfirmed_edit_is_undone_in_the_running_engine_and_everybody_sees_the_countdown(engine: Engine) -> None:
    text = await asked(engine, CommandName.SETTINGS_TEXT, SettingsText)
    preview = await asked(engine, CommandName.SETTINGS_PREVIEW, SettingsPreview, values={"WS_PONG_TIMEOUT": "7"})
    assert preview.on_trial
    done, _, _ = await ask(engine, CommandName.SETTINGS_WRITE, text="CONFIG_CONFIRM_S = 0.4\n", revision=text.revision)
    assert done
    revision = (await asked(engine, CommandName.SETTINGS_TEXT, SettingsText)).revision
    result = await asked(engine, CommandName.SETTINGS_SAVE, SaveResult, values={"WS_PONG_TIMEOUT": "7"}, revision=revision)
    assert result.trial_id
    trial = engine.snapshot().trial
    assert trial is not None
    assert trial.names == ("WS_PONG_TIMEOUT",)
    assert 0.0 <= trial.left_s <= 0.4
    await until(lambda: engine.snapshot().trial is None)
    assert engine.desk.settings.WS_PONG_TIMEOUT == 10.0
    await until(lambda: any("not confirmed within 0.4 s" in line for line in engine.snapshot().log))
    done, message, _ = await ask(engine, CommandName.SETTINGS_CONFIRM, save=result.trial_id)
    assert (done, message) == (False, "these settings are not on trial any more")


async def test_a_confirmed_edit_stays_and_undo_brings_the_former_back(engine: Engine) -> None:
    revision = (await asked(engine, CommandName.SETTINGS_TEXT, SettingsText)).revision
    result = await asked(engine, CommandName.SETTINGS_SAVE, SaveResult, values={"WS_PONG_TIMEOUT": "7"}, revision=revision)
    assert (await ask(engine, CommandName.SETTINGS_CONFIRM, save=result.trial_id + 1))[0] is False
    assert (await ask(engine, CommandName.SETTINGS_CONFIRM, save=result.trial_id))[0] is True
    assert engine.snapshot().trial is None
    await asked(engine, CommandName.SETTINGS_UNDO, SaveResult)
    assert engine.desk.settings.WS_PONG_TIMEOUT == 10.0
    result = await asked(
        engine, CommandName.SETTINGS_SAVE, SaveResult, values={"WS_PONG_TIMEOUT": "8"}, revision=engine.desk.form().revision
    )
    await asked(engine, CommandName.SETTINGS_ROLLBACK, SaveResult, save=result.trial_id)
    assert engine.desk.settings.WS_PONG_TIMEOUT == 10.0


async def test_an_engine_that_stops_during_a_trial_leaves_the_file_as_it_was() -> None:
    path = default_config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT)
    engine = demo_engine("TRAIN_AUTOSTART=False")
    await engine.start()
    try:
        result = await asked(
            engine, CommandName.SETTINGS_SAVE, SaveResult, values={"WS_PONG_TIMEOUT": "7"}, revision=engine.desk.form().revision
        )
        assert result.trial_id
        assert path.read_text() != TEXT
    finally:
        await asyncio.shield(engine.stop())
    assert path.read_text() == TEXT
