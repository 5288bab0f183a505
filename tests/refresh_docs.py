"""Brings what the README is generated from up to date: `python -m tests.refresh_docs [--pictures]`.

The tables are made from the program: keys from the action registry, settings from their model, failures from the rules of the
stream, causes of overflows from their table, faults from the exchange's catalogue. A test fails when they differ. With
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


def failures_table() -> str:
    """What the backoff pane calls each failure, whether it is retried, and the advice: what it means, then what to do."""
    from quantai_tui.stream.advice import RULES
    from quantai_tui.ui.format import words

    lines = ["| the screen says | then | what it means | what to do |", "|---|---|---|---|"]
    for kind, rule in RULES.items():
        meaning, _, remedy = rule.advice.rstrip(".").partition(": ")
        if not remedy:
            meaning, _, remedy = meaning.partition("; ")
        remedy = remedy.removesuffix("retrying").removesuffix("; ")  # the second column says so
        remedy = f"{remedy[0].upper()}{remedy[1:]}." if remedy else "Nothing."
        then = "waits for you" if rule.fatal else "tried again"
        lines.append(f"| `{words(kind.value)}` | {then} | {meaning}. | {remedy} |")
    return "\n".join(lines)


def causes_table() -> str:
    """What the overflow pane calls each cause, what it means and what to do."""
    from quantai_tui.telemetry import OVERFLOW_CAUSES

    lines = ["| the screen says | what it means | what to do |", "|---|---|---|"]
    lines += [f"| `{cause.name}` | {cause.meaning}. | {cause.remedy}. |" for cause in OVERFLOW_CAUSES.values()]
    return "\n".join(lines)


def faults_table() -> str:
    from quantai_tui.exchange.catalogue import markdown_table

    return markdown_table().strip()


def tokens_table() -> str:
    from quantai_tui.ui.themes import markdown_table

    return markdown_table()


def refreshed(text: str) -> str:
    """The README's text with every generated block made anew."""
    made_of = {
        "keys": keys_table,
        "settings": settings_table,
        "failures": failures_table,
        "causes": causes_table,
        "faults": faults_table,
        "tokens": tokens_table,
    }
    for name, make in made_of.items():
        made = make()
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
