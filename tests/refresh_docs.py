"""Brings what the README is generated from up to date: `python -m tests.refresh_docs [--pictures]`.

The tables of keys and settings are made from the action registry and the settings model; a test fails when they differ. With
`--pictures` a real demo is run for a while and photographed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PICTURES = ROOT / "tests" / "pictures"


def settings_table() -> str:
    from quantai_tui.settings import describe_all

    lines = ["| name | default | unit | rule | what it is |", "|---|---|---|---|---|"]
    for info in describe_all():
        default = f"`{info.default}`" if info.default else "(empty)"
        rule = info.rule.replace("|", "\\|")
        lines.append(f"| `{info.name}` | {default} | {info.unit} | {rule} | {info.description} |")
    return "\n".join(lines)


def keys_table() -> str:
    from quantai_tui.ui.actions import markdown_table

    return markdown_table().strip()


def refreshed(text: str) -> str:
    """The README's text with every generated block made anew."""
    for name, made in (("keys", keys_table()), ("settings", settings_table())):
        pattern = re.compile(rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)
        if count != 1:
            raise SystemExit(f"README.md has {count} blocks for {name}, not 1")
    return text


def take_pictures() -> None:
    from .pictures.photographer import photograph

    photograph(PICTURES)


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text(encoding="utf-8")), encoding="utf-8")
    if "--pictures" in sys.argv[1:]:
        take_pictures()
