"""Which keys can be had: by the registry, and by the operator who moves them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from quantai_tui.cli.configuration import config
from quantai_tui.ui.actions import ACTIONS
from quantai_tui.ui.keymap import TAKEN_ELSEWHERE, check_defaults, named, resolve, spelled


def test_the_registrys_own_keys_pass_the_check_that_the_operators_are_held_to() -> None:
    assert check_defaults() == []


@pytest.mark.parametrize(
    ("pairs", "moved", "said"),
    [
        (("reconnect=ctrl+r",), {"reconnect": "ctrl+r"}, ""),
        (("zoom=?", "help=z"), {"zoom": "question_mark", "help": "z"}, ""),  # two that change places
        (("zoom=Ctrl+X", "rotate=semicolon"), {"zoom": "ctrl+x", "rotate": "semicolon"}, ""),
        (("reconnect=r",), {}, ""),
        (("recnnect=x",), {}, "there is no action 'recnnect'; is it reconnect?"),
        (("reconnect=pageupp",), {}, "there is no key 'pageupp'; is it pageup?"),
        (("reconnect=shift+x",), {}, "write X"),
        (("reconnect=d",), {}, "d is toggle-stream's; reconnect keeps r. Give toggle-stream another key too"),
        (("reconnect=x", "rotate=x"), {"reconnect": "x"}, "x is reconnect's; rotate keeps o"),
        (("reconnect=x", "rotate=x", "zoom=o"), {"reconnect": "x"}, "o is rotate's; zoom keeps z"),
        (("quit=ctrl+b",), {}, "tmux keeps it for itself; quit keeps q"),
        (("quit=ctrl+s",), {}, "flow control"),
        (("zoom=ctrl+m",), {}, "terminals send enter for it"),
        (("zoom=ctrl+[",), {}, "terminals send esc for it"),
        (("interrupt=x",), {}, "interrupt keeps ctrl+c, so that there is always a way out"),
        (("zoom=ctrl+c",), {}, "it always leaves"),
        (("zoom=ctrl+1",), {"zoom": "ctrl+1"}, "is taken, but most terminals send the digit alone"),
        (("zoom=ctrl+shift+k",), {"zoom": "ctrl+shift+k"}, "few terminals send it, and fewer through SSH"),
        (("zoom=alt+z",), {"zoom": "alt+z"}, "use alt themselves"),
        (("quit=super+q",), {}, "quit must be in reach everywhere; it keeps q"),
        (("palette=f13",), {}, "palette must be in reach everywhere; it keeps :"),
    ],
)
def test_keys_that_can_work_are_taken_over_and_the_others_are_named_with_what_to_do(
    pairs: tuple[str, ...], moved: dict[str, str], said: str
) -> None:
    keymap = resolve(pairs)
    assert keymap.moved == moved
    words = "\n".join(keymap.problems + keymap.warnings)
    assert said in words
    assert bool(words) == bool(said)
    assert all(line.startswith("KEYS: ") for line in words.splitlines())


_SOME_KEYS = st.sampled_from(
    ["x", "r", "d", "?", "q", "esc", "f5", "ctrl+s", "ctrl+c", "alt+x", "shift+r", "nosuch", "+", "=", ""]
)
_PAIRS = st.builds("{}={}".format, st.sampled_from([item.id for item in ACTIONS] + ["nosuch"]), _SOME_KEYS | st.text(max_size=12))


@given(st.lists(_PAIRS, max_size=20))
def test_whatever_is_asked_for_each_action_keeps_a_key_of_its_own_that_can_arrive(pairs: list[str]) -> None:
    keymap = resolve(pairs)
    owners: dict[str, str] = {}
    for item in ACTIONS:
        assert keymap.keys(item)
        for key in keymap.keys(item):
            assert owners.setdefault(key, item.id) == item.id
            assert named(key) == key
            assert named(spelled(key)) == key
            assert key not in TAKEN_ELSEWHERE or item.fixed
    assert len(keymap.moved) + len(keymap.problems) <= len(pairs)


def test_config_validate_says_the_same_without_a_dashboard(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for keys, exit_code, said in (
        ("rotate=ctrl+r", 0, "valid"),
        ("rotate=ctrl+s,quit=x", 2, "rotate=ctrl+s: it stops the output"),
    ):
        file.write_text(f'KEYS = "{keys}"\n')
        result = CliRunner().invoke(config, ["validate", str(file)])
        assert (result.exit_code, said in result.output) == (exit_code, True), result.output
