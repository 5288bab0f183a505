"""Theme files: the shipped ones are complete and readable, broken ones are named and skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from colour_vision import on_256_colours
from textual.color import Color
from ui_support import FakeLink, FrozenClock, dashboard, engine_snapshot, screen_text, until

from quantai_tui.ui.app import DashboardApp
from quantai_tui.ui.theme_files import Shelf, ThemeFiles
from quantai_tui.ui.themes import PLAIN_THEME, TOKENS, ThemeError, few_colors, read_theme, themes_folder

SHIPPED = sorted(themes_folder().glob("*.toml"))
_DECORATION = {"edge", "edge-focus"}


def test_eight_themes_are_shipped_and_the_one_without_colours_stands_behind_them() -> None:
    found = ThemeFiles(themes_folder()).look()
    assert found is not None
    assert found.problems == ()
    shelf = Shelf.of(found.themes, ())
    assert shelf.names == ["harbor", "amber", "beacon", "chalk", "dusk", "heron", "reef", "sixteen", PLAIN_THEME]
    assert [theme.name for theme in shelf.themes if not theme.dark] == ["chalk"]
    assert [theme.name for theme in shelf.themes if theme.ansi] == ["sixteen", PLAIN_THEME]
    assert all(0 < len(theme.about) <= 22 for theme in shelf.themes)


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.stem != "sixteen"], ids=lambda path: path.stem)
def test_every_token_of_a_shipped_theme_is_readable_on_its_background(path: Path) -> None:
    theme = read_theme(path)
    ground = Color.parse(theme.background or "")
    least = 7.0 if theme.name == "beacon" else 4.5
    for token in TOKENS:
        if token not in _DECORATION:
            color = Color.parse(theme.variables[token])
            ratio = min(_contrast(color, ground), _contrast(on_256_colours(color), on_256_colours(ground)))
            assert ratio >= least, f"{theme.name}: {token} stands at {ratio:.1f}:1"
    for raised in (theme.surface, theme.panel):  # dialogs, and the line under the cursor in a list
        for text in (theme.foreground, theme.variables["value"], theme.variables["key"]):
            pair = Color.parse(text or ""), Color.parse(raised or "")
            ratio = min(_contrast(*pair), _contrast(*(on_256_colours(color) for color in pair)))
            assert ratio >= 4.5, f"{theme.name}: {text} on {raised} stands at {ratio:.1f}:1"


def test_the_sixteen_colours_are_readable_on_a_linux_console() -> None:
    """Its palette, from the kernel's drivers/tty/vt/vt.c: 0xaa for a colour, 0x55 more for a bright one."""
    theme = read_theme(themes_folder() / "sixteen.toml")
    for token in TOKENS:
        number = Color.parse(theme.variables[token]).ansi
        assert number is not None
        bright, number = (0x55, number - 8) if number > 7 else (0, 7 if number < 0 else number)
        color = Color(*(bright + 0xAA * (number >> bit & 1) for bit in range(3)))
        if token not in _DECORATION:
            assert _contrast(color, Color(0, 0, 0)) >= 4.5, token


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_colours_of_alarms_are_for_alarms(path: Path) -> None:
    colors = read_theme(path).variables
    alarms = {colors[token] for token in ("state-backoff", "state-failed", "alert-warning", "alert-critical", "overflow")}
    calm = (
        "title",
        "value",
        "muted",
        "edge",
        "state-live",
        "state-idle",
        "spark-rtt",
        "spark-trades",
        "spark-loss",
        "spark-scale",
    )
    assert [token for token in calm if colors[token] in alarms] == []
    assert len({colors[f"state-{state}"] for state in ("live", "pending", "backoff", "failed", "idle")}) == 5


def _contrast(one: Color, other: Color) -> float:
    """WCAG 2.1, relative luminance and contrast ratio."""

    def luminance(color: Color) -> float:
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in color.normalized]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "harbor"', 'name = "my theme"', "name must be one word"),
        ('name = "harbor"', 'name = "plain"', "the name 'plain' is kept for the theme without colours"),
        ('about = "', 'about = 1 # "', "about must be text"),
        ("# Harbor", "#" * 70_000 + "\n# Harbor", "larger than 64 KiB"),
        ("dark = true", 'dark = "yes"', "dark must be true or false"),
        ('primary = "#6db5d8"', "", r"\[colors\] lacks primary"),
        ('primary = "#6db5d8"', 'primary = "bluish"', r"\[colors\] primary must be a colour like '#6db5d8', got 'bluish'"),
        ("dark = true", "dark = true\nansi = true", r"\[colors\] background must be a colour like 'ansi_red', got '#0e151c'"),
        ("state-live =", "state-alive =", r"unknown key \[tokens\] 'state-alive'; did you mean 'state-live'"),
        ("[tokens]", "[token]", "unknown key 'token'; did you mean 'tokens'"),
        ("[tokens]", "[tokens", "not valid TOML"),
        ("[tokens]", f"deep = {'[' * 1000}\n[tokens]", "nested too deeply"),
    ],
)
def test_a_broken_theme_file_says_what_is_wrong_with_it(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((themes_folder() / "harbor.toml").read_text().replace(old, new, 1))
    with pytest.raises(ThemeError, match=f"mine.toml: .*{complaint}"):
        read_theme(path)


def test_tokens_that_a_theme_leaves_out_take_their_base_colours(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((themes_folder() / "harbor.toml").read_text().split("[tokens]")[0])
    assert read_theme(path).variables["state-failed"] == "#f27a72"


async def test_broken_files_are_named_in_one_toast_and_the_rest_is_used(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = [/b]")
    (tmp_path / "worse.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "good.toml").write_text((themes_folder() / "chalk.toml").read_text())
    app = DashboardApp(FakeLink(engine_snapshot()), clock=FrozenClock(), theme="nosuch", themes_folder=tmp_path)
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: len(app._notifications) == 1)
        (toast,) = app._notifications
        assert "bad.toml: is not valid TOML" in toast.message
        assert "worse.toml" in toast.message
        assert "there is no theme 'nosuch'; there are chalk, plain" in toast.message
        assert app.theme == "chalk"


async def test_with_no_theme_at_all_the_terminals_own_colours_are_used(tmp_path: Path) -> None:
    app = DashboardApp(FakeLink(engine_snapshot()), clock=FrozenClock(), themes_folder=tmp_path)
    async with app.run_test() as pilot:
        assert app.theme == PLAIN_THEME
        await pilot.press("T")
        await pilot.pause()
        assert app.theme == PLAIN_THEME


@pytest.mark.parametrize(
    ("environ", "few"),
    [
        ({"TERM": "linux"}, True),
        ({"TERM": "xterm-16color"}, True),
        ({"TERM": "dumb"}, True),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "tmux-256color"}, False),
        ({"TERM": "linux", "COLORTERM": "truecolor"}, False),
    ],
)
def test_a_terminal_of_few_colours_is_known_by_what_will_be_sent_to_it(environ: dict[str, str], few: bool) -> None:
    assert few_colors(environ) is few


async def test_few_colours_begin_with_the_sixteen_of_the_terminal_unless_a_theme_is_asked_for() -> None:
    asked = DashboardApp(FakeLink(engine_snapshot()), clock=FrozenClock(), theme="amber", few_colors=True)
    assert asked.theme == "amber"
    link = FakeLink(engine_snapshot())
    app = DashboardApp(link, clock=FrozenClock(), few_colors=True)
    async with app.run_test() as pilot:
        assert app.theme == "sixteen"
        link.snapshot = engine_snapshot(theme="dusk")
        await until(pilot, lambda: app.theme == "dusk")


def test_no_colour_at_all_is_stronger_than_few_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert DashboardApp(FakeLink(engine_snapshot()), clock=FrozenClock(), few_colors=True).theme == PLAIN_THEME


@pytest.mark.parametrize("theme", ["plain", "sixteen"])
async def test_the_cursor_in_the_settings_is_seen_without_colours_too(theme: str) -> None:
    async with dashboard(FakeLink(engine_snapshot()), theme=theme) as (app, pilot, _):
        await pilot.press("c")
        await until(pilot, lambda: "WS_RECONNECT_MAX_DELAY" in screen_text(app))
        reversed_text = {
            segment.text.strip()
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None and segment.style.reverse
        }
        assert any("WS_RECONNECT_INITIAL_DELAY" in text for text in reversed_text)
        assert not any("WS_RECONNECT_MAX_DELAY" in text for text in reversed_text)
