"""Masks user names and passwords in everything that is shown, logged or saved.

The only module that masks. `masked` takes text of any kind, `masked_value` a value whose name is known. Text may be long and
hostile: every pattern here runs in linear time. Imports nothing of ours.
"""

from __future__ import annotations

import re

MASK = "***"

_SCHEME = r"\w[\w+.-]*://"
_NAMES_ADDRESS = re.compile("URL|PROXY", re.IGNORECASE)
_NAMES_SECRET = re.compile("PASS|SECRET|TOKEN|CREDENTIAL|API_?KEY|PRIVATE", re.IGNORECASE)

# A line NAME = VALUE of a settings file, or one that is commented out.
_ASSIGNMENT = re.compile(
    r"""^([ \t]*(?:#[# \t]*)?(?:export[ \t]+)?["']?([\w.-]{1,100})["']?[ \t]*=[ \t]*)([^\n]+)""", re.MULTILINE
)
_QUOTED = re.compile(rf"""^(["'])(\1\1)?({_SCHEME})?(?:(?!\1).)*@""")
_WORD = re.compile(r"\S+")
# user:password without a scheme. `"stream":"ethusdt@aggTrade"` does not match: its colon follows a quote.
_BEFORE_USER = "\"'=([{,<>/@:"
_USER_ENDS = re.compile(rf"[^{re.escape(_BEFORE_USER)}](?=:[^@])")

_TO_LAST_AT = re.compile(rf"^({_SCHEME})?.*@", re.DOTALL)
# A colon without a port after it: user and password, but no host.
_NO_PORT = re.compile(rf"^({_SCHEME})?(?!\[)[^:/?#]*:(?!\d*(?:[/?#]|$)).*", re.DOTALL)
_QUERY = re.compile(r"\?.*", re.DOTALL)


def masked(text: str) -> str:
    """Mask user and password of every address in a text."""
    if "=" in text:
        text = _ASSIGNMENT.sub(_masked_assignment, text)
    return _WORD.sub(_masked_word, text) if "@" in text else text


def _masked_assignment(match: re.Match[str]) -> str:
    begin, name, value = match.groups()
    if _NAMES_SECRET.search(name):
        return f"{begin}{MASK}"
    if _NAMES_ADDRESS.search(name):  # within its quotes a password may have spaces
        value = _QUOTED.sub(rf"\1\2\3{MASK}@", value)
    return f"{begin}{value}"


def _masked_word(match: re.Match[str]) -> str:
    """Mask up to the last @: an @ in a password makes the address unusable, but the rest must not be shown."""
    head, at, rest = match[0].rpartition("@")
    if not at:
        return match[0]
    before, slashes, _ = head.partition("://")
    user_ends = _USER_ENDS.search(before if slashes else head)
    if user_ends is not None:
        begin = max(head.rfind(char, 0, user_ends.end()) for char in _BEFORE_USER) + 1
        return f"{head[:begin]}{MASK}@{rest}"
    return f"{before}://{MASK}@{rest}" if slashes else match[0]


def masked_value(name: str, text: str) -> str:
    """Mask the value of a setting or variable. Unknown names are masked too, such as a misspelt PROXY_URL."""
    if _NAMES_SECRET.search(name):
        return MASK
    if not _NAMES_ADDRESS.search(name):
        return masked(text)
    text = _TO_LAST_AT.sub(rf"\1{MASK}@", text) if "@" in text else _NO_PORT.sub(rf"\1{MASK}", text)
    return _QUERY.sub(f"?{MASK}", text)


def masked_deep(value: object) -> object:
    """Mask every text in a value of dicts, lists and scalars."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_deep(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked_deep(part) for part in value]
    return value


def is_cut_short(url: str) -> bool:
    """Whether `#`, `/` or `?` in the user or password ends the authority early and makes the rest the path."""
    _, slashes, rest = url.partition("://")
    _, *cut = re.split("[/?#]", rest if slashes else url, maxsplit=1)
    return bool(cut) and "@" in cut[0]
