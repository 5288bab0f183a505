"""The settings desk: what is checked before anything is written, what is shown of secrets, what reaches the worker."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantai_tui.engine.desk import SettingsDesk
from quantai_tui.engine.worker_settings import worker_config
from quantai_tui.link import SettingField
from quantai_tui.settings import Layers, Settings, describe_all, validate

SECRET = "http://bob:s3cret@proxy:3128"
MASKED = "http://***@proxy:3128"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'PROXY_URL = "{SECRET}"\nWS_PING_INTERVAL = 20\n')
    return path


def field(desk: SettingsDesk, name: str) -> SettingField:
    return next(field for field in desk.form().fields if field.name == name)


def test_a_save_writes_and_takes_effect(config: Path) -> None:
    desk = SettingsDesk(config, Layers())
    result, changed = desk.save({"WS_PING_INTERVAL": "25", "WS_RECONNECT_MAX_RETRIES": "5.0"}, desk.form().revision)
    assert result.saved
    assert changed == {"WS_PING_INTERVAL", "WS_RECONNECT_MAX_RETRIES"}
    assert desk.settings.WS_RECONNECT_MAX_RETRIES == 5
    assert config.read_text().endswith("WS_PING_INTERVAL = 25.0\nWS_RECONNECT_MAX_RETRIES = 5\n")
    assert desk.loaded.origins["WS_PING_INTERVAL"].text == f"{config}, line 2"


def test_nothing_is_written_when_a_source_changed_since_the_start_makes_the_result_invalid(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = SettingsDesk(config, Layers())
    before = config.read_text()
    monkeypatch.setenv("WS_RECONNECT_INITIAL_DELAY", "50")
    values = {"WS_RECONNECT_MAX_DELAY": "40"}
    assert desk.check(values) == ()
    result, changed = desk.save(values, desk.form().revision)
    assert (result.saved, changed, config.read_text()) == (False, frozenset(), before)
    assert desk.settings.WS_RECONNECT_MAX_DELAY == 60.0
    (problem,) = result.problems
    assert problem.name == "WS_RECONNECT_MAX_DELAY"
    assert "WS_RECONNECT_INITIAL_DELAY = 50, environment variable" in problem.message


def test_a_conflict_is_told_before_the_rules_that_the_other_edit_breaks(config: Path) -> None:
    desk = SettingsDesk(config, Layers())
    revision = desk.form().revision
    config.write_text(f'PROXY_URL = "{SECRET}"\nNONSENSE = 1\n')
    result, _ = desk.save({"WS_PING_INTERVAL": "25"}, revision)
    assert "NONSENSE" in result.conflict_text
    assert "WS_PING_INTERVAL = 25.0" in result.proposed_text
    assert "s3cret" not in result.conflict_text + result.proposed_text


@pytest.mark.parametrize(
    ("name", "text"),
    [("GRAD_SCALER_MAX_SCALE", "1e39"), ("GRAD_SCALER_GROWTH_INTERVAL", str(2**31)), ("TRAIN_SEED", str(2**70))],
)
def test_what_the_worker_would_refuse_is_not_written(config: Path, name: str, text: str) -> None:
    desk = SettingsDesk(config, Layers())
    before = config.read_text()
    assert [problem.name for problem in desk.check({name: text})] == [name]
    result, _ = desk.save({name: text}, desk.form().revision)
    assert [problem.name for problem in result.problems] == [name]
    assert config.read_text() == before


def test_the_form_and_the_log_do_not_tell_a_proxys_password(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = SettingsDesk(config, Layers())
    assert field(desk, "PROXY_URL").value == MASKED
    assert "s3cret" not in repr(desk.form())
    with caplog.at_level(logging.INFO):
        result, _ = desk.save({"PROXY_URL": "http://eve:s3cret2@other:1"}, desk.form().revision)
    assert result.saved
    assert desk.settings.PROXY_URL == "http://eve:s3cret2@other:1"
    assert f"setting PROXY_URL: {MASKED} -> http://***@other:1" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_mask_that_comes_back_as_it_was_sent_changes_nothing(config: Path) -> None:
    desk = SettingsDesk(config, Layers())
    before = config.read_text()
    assert desk.check({"PROXY_URL": MASKED}) == ()
    result, changed = desk.save({"PROXY_URL": MASKED}, desk.form().revision)
    assert (result.saved, result.applied, changed) == (True, {"PROXY_URL": "unchanged"}, frozenset())
    assert config.read_text() == before
    result, changed = desk.save({"PROXY_URL": MASKED, "WS_PING_INTERVAL": "25"}, desk.form().revision)
    assert (result.saved, changed) == (True, frozenset({"WS_PING_INTERVAL"}))
    assert desk.settings.PROXY_URL == SECRET
    assert SECRET in config.read_text()


def test_a_changed_text_that_still_holds_the_mask_is_refused(config: Path) -> None:
    desk = SettingsDesk(config, Layers())
    before = config.read_text()
    values = {"PROXY_URL": "http://***@other:3128"}
    assert "in place of ***" in desk.check(values)[0].message
    result, _ = desk.save(values, desk.form().revision)
    assert not result.saved
    assert config.read_text() == before


def _numbers(kind: str) -> st.SearchStrategy[str]:
    edges = [0, 1, 2, 4, 300, 2**31 - 1, 2**31, 2**63, 2**64, -1]
    whole = st.sampled_from(edges) | st.integers(-10, 2**40)
    if kind == "int":
        return whole.map(str)
    small = st.sampled_from(
        [5e-324, 2.0**-126, 1e-9, 1 + 2**-52, 1 / 24, 1e9, 2.0**127, math.nextafter(2.0**127, math.inf), 1e308]
    )
    return (small | st.floats() | whole).map(str)


@st.composite
def _texts(draw: st.DrawFn) -> dict[str, str]:
    """Some settings of the worker's groups, most of the time near an edge."""
    chosen = draw(st.lists(st.sampled_from([i for i in describe_all() if i.group in {"Scaler", "Training"}]), max_size=6))
    texts = {}
    for info in chosen:
        if info.kind in {"int", "float"}:
            texts[info.name] = draw(_numbers(info.kind))
        elif info.choices:
            texts[info.name] = draw(st.sampled_from(info.choices))
        elif info.name == "TRAIN_DEVICE":
            texts[info.name] = draw(st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:17", "cuda:x"]))
    return texts


@given(_texts())
def test_whatever_settings_are_valid_make_a_config_that_the_worker_takes(texts: dict[str, str]) -> None:
    # One by one, since a single value out of range would hide what the others do.
    valid = {name: text for name, text in texts.items() if validate({name: text}, {})[0] is not None}
    settings, _ = validate(valid, {})
    if settings is not None:
        for demo in (False, True):
            made = worker_config(settings, settings.train_symbol, Path("store.db"), Path("kept"), demo)
            assert made.max_bars >= made.bars_needed


def test_bursts_are_planted_in_the_demo_alone() -> None:
    settings = Settings()
    assert (
        worker_config(settings, "ETHUSDT", Path("s"), Path("k"), demo=True).plant_overflow_every_s
        == settings.DEMO_OVERFLOW_EVERY
        > 0
    )
    assert worker_config(settings, "ETHUSDT", Path("s"), Path("k"), demo=False).plant_overflow_every_s == 0
