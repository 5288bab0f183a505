"""What the dashboard must not bring along: it has to be on the screen before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = (
    "torch",
    "pydantic",
    "websockets",
    "aiohttp",
    "numpy",
    "tomlkit",
    "quantai_tui.settings",
    "quantai_tui.engine",
    "quantai_tui.stream",
    "quantai_tui.market",
    "quantai_tui.training",
    "quantai_tui.exchange",
)


def test_importing_the_dashboard_loads_nothing_heavy_and_none_of_the_rooms_it_shows() -> None:
    code = (
        "import sys, quantai_tui.ui.app, quantai_tui.ui.terminal, quantai_tui.ui.editor, quantai_tui.ui.screenshot;"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_key_opens_is_loaded_when_it_is_pressed() -> None:
    later = [
        f"quantai_tui.ui.{name}" for name in ("editor", "help", "glossary", "dialogs", "palette", "chooser", "faults", "crash")
    ]
    code = f"import sys, quantai_tui.ui.app; print([name for name in {later} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_animations_are_off_unless_the_user_asked_for_them() -> None:
    code = (
        "import os; os.environ.pop('TEXTUAL_ANIMATIONS', None); import quantai_tui.ui.app as it; print(it.App().animation_level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "none"
