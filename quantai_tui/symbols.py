"""The syntax of a trading symbol in settings, file names and the embedded exchange.

Imports nothing of ours.
"""

from __future__ import annotations

import re

# Futures with a date have an underscore: BTCUSDT_240628. The venue's own rule for the parameter allows 20 characters.
_SYMBOL = re.compile(r"[A-Z0-9_]{2,20}")
SYMBOL_RULE = "2 to 20 letters, digits and underscores, such as ETHUSDT"


def is_symbol(text: str) -> bool:
    """Whether `text`, in capitals, can be a symbol; a venue need not have it."""
    return _SYMBOL.fullmatch(text) is not None
