"""Clean text from outside: it cannot control the terminal, forge lines, or hide or reorder characters.

The only such module of the program; `output` applies it to all output. Imports nothing of ours.
"""

from __future__ import annotations

import re

_LONGEST_LINE = 200
# C0, DEL and C1; soft hyphen and zero-width characters; bidi controls; separators of lines and paragraphs; byte order mark,
# interlinear annotation and tags; lone surrogates, which stand for bytes of a file name that are not UTF-8.
_UNSAFE = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f\ud800-\udfff"
)
_IN_A_LINE = re.compile(f"[{_UNSAFE}]")
_IN_LINES = re.compile(f"\r\n|[{_UNSAFE}]")


def clean(text: str) -> str:
    """Return `text` as one line: white space becomes spaces, a lone surrogate an escape; other unsafe characters are removed."""
    if text.isascii() and text.isprintable():
        return text
    return _IN_A_LINE.sub(_replacement, text)


def clean_lines(text: str) -> str:
    """The same, but line feeds stay."""
    return _IN_LINES.sub(lambda match: "\n" if match[0] in ("\n", "\r\n") else _replacement(match), text)


def one_line(text: str, limit: int = _LONGEST_LINE) -> str:
    """Return `text` as one line of at most `limit` characters, with runs of spaces collapsed."""
    line = " ".join(clean(text[: limit * 2]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _replacement(match: re.Match[str]) -> str:
    char = match[0]
    if char.isspace():  # includes line and paragraph separators
        return " "
    return f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else ""
