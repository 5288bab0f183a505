"""Whatever is typed, saved and changed underneath: the file parses, its comments are there, and unsaved text is kept."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantai_tui.engine.desk import SettingsDesk
from quantai_tui.settings import Layers
from quantai_tui.ui.draft import Draft

BEFORE = '# the first line is mine\nWS_PING_INTERVAL = 20 # so is this\n\n# and this\nLOG_LEVEL = "INFO"\n'
COMMENTS = ("# the first line is mine", "# so is this", "# and this")
NAMES = (
    "WS_PING_INTERVAL",
    "WS_RECONNECT_INITIAL_DELAY",
    "WS_RECONNECT_MAX_DELAY",
    "LOG_LEVEL",
    "GRAD_SCALER_AUTO_RESET",
    "SYMBOLS",
)
AWKWARD = ("", "5", "0.5", "90", "-1", "nan", "DEBUG", "False", "BTCUSDT,ETHUSDT", '"]\n[x', "#", "'''")
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=12))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("type"), st.sampled_from(NAMES), TEXTS),
        st.tuples(st.sampled_from(("undo", "cycle")), st.sampled_from(NAMES), st.just("")),
        st.tuples(st.sampled_from(("save", "others edit", "reread")), st.just(""), st.just("")),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@given(steps=STEPS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_edits_then_a_save_leave_a_good_file_and_lose_no_text(folder: Path, steps: list[tuple[str, str, str]]) -> None:
    path = folder / "config.toml"
    path.write_text(BEFORE)
    desk = SettingsDesk(path, Layers())
    draft = Draft(desk.form())
    others = 0
    for what, name, text in steps:
        kept = draft.edits
        if what == "type":
            draft.type(name, text)
            assert draft.text(name) == text
        elif what in ("undo", "cycle"):
            getattr(draft, what)(name)
        elif what == "others edit":
            others += 1
            path.write_text(f"{path.read_text()}# others {others}\n")
        elif what == "reread":
            draft.rebase(desk.form())
            assert draft.edits == kept
        elif kept:
            result, _ = desk.save(kept, draft.form.revision)
            draft.saved(result, kept)
            assert draft.edits == ({} if result.saved else kept)
            if result.saved:
                draft.rebase(desk.form())
        written = path.read_text()
        tomllib.loads(written)
        assert all(comment in written for comment in COMMENTS)
        assert all(f"# others {number}\n" in written for number in range(1, others + 1))
