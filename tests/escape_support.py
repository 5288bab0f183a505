"""Detects characters that output must not contain: those that control a terminal, or hide, reorder or forge lines.

It shares no code with the cleaner under test: this uses Unicode categories, the cleaner a list of ranges.
"""

from __future__ import annotations

import unicodedata

_LINE_END = b"\n"


def find_control(text: bytes, *, allowed: bytes = _LINE_END) -> list[str]:
    """List each bad character of the output `text` with its position and line. Empty when it is clean.

    Bad are C0 except `allowed`, DEL, C1, bidi controls and all other format characters, line and paragraph separators,
    surrogates, and bytes that are not UTF-8.
    """
    found = []
    decoded = text.decode("utf-8", "surrogateescape")
    passed = allowed.decode("ascii")
    for at, char in enumerate(decoded):
        if char not in passed and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            line = decoded[decoded.rfind("\n", 0, at) + 1 :].partition("\n")[0]
            what = f"byte 0x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else f"U+{ord(char):04X}"
            found.append(f"{what} at {at} in {line[:200]!a}")
    return found
