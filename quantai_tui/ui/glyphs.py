"""Signs for terminals that draw only ASCII: one cell for each glyph of the dashboard and of Textual's own widgets."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from rich.cells import cell_len

_SAME = {
    "-": "─╌—–‐‑‒−▔╶╴⎯",  # noqa: RUF001
    "=": "━═▀╍",
    "|": "│┃║▊▋▍▎▏▐▌▕╎╏┆┇",
    "+": "╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋╔╗╚╝╠╣╦╩╬▛▜▙▟▘▝▖▗",
    ".": "┄┅┈┉",
    ">": "→▶▸►›»⟩▷",  # noqa: RUF001
    "<": "←◀◂◄‹«⟨◁",  # noqa: RUF001
    "^": "↑▲△▴",
    "v": "↓▼▽▾",
    "'": "‘’′",  # noqa: RUF001
    '"': "“”″‖",
}
_OWN = {
    # Heights, from low to high, no two alike.
    "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*", "█": "#",
    "░": ".", "▒": ":", "▓": "%",
    # States. The word beside each says the same.
    "○": "o", "◌": "~", "◔": "c", "◑": "d", "●": "*", "◍": "%", "◕": "e", "◆": "!", "◇": "?", "✗": "x", "✘": "x", "■": "#",
    "✓": "v", "✔": "v", "·": ",", "…": "~", "•": "*", "°": " ", "±": "~", "×": "x", "÷": "/", "≥": ">", "≤": "<", "≈": "~",  # noqa: RUF001
    "≠": "!", "∞": "i", "µ": "u", "μ": "u", "σ": "s", "Δ": "D", "⏎": "<", "⚠": "!", "◉": "@",  # noqa: RUF001
}  # fmt: skip
_BRAILLE = "'.:-=+*%#"


class _Ascii(dict[int, str]):
    """A table for `str.translate` that finds the sign of a character when it first comes."""

    def __missing__(self, code: int) -> str:
        self[code] = sign = _sign(chr(code)) if code > 0x7F else chr(code)
        return sign


def _sign(char: str) -> str:
    width = cell_len(char)
    if width == 0:
        return ""
    if 0x2800 <= ord(char) <= 0x28FF:
        return _BRAILLE[(ord(char) - 0x2800).bit_count()]
    plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return plain if len(plain) == width and plain.isprintable() else "?" * width


_TABLE = _Ascii({ord(char): sign for sign, chars in _SAME.items() for char in chars} | {ord(k): v for k, v in _OWN.items()})


def to_ascii(text: str) -> str:
    """`text` in ASCII, as many cells wide as it was."""
    return text if text.isascii() else text.translate(_TABLE)


def locale_is_utf8(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is to get UTF-8, by the first of LC_ALL, LC_CTYPE and LANG that is set; without any, it is.

    A bare `LANG=C` counts as UTF-8, since Python itself then sets LC_CTYPE; `LC_ALL=C` asks for ASCII whatever else is set.
    """
    value = next((environment[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(name)), "UTF-8")
    return value.upper().replace("-", "").partition("@")[0].endswith("UTF8")
