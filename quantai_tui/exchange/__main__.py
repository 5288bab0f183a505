"""`python -m quantai_tui.exchange`."""

from __future__ import annotations

import sys

from ..output import guard_streams, say_json
from ..tls_setup import TlsSetupError, client_context


def start() -> int:
    """See `process.main`. Also reports a failure to import it."""
    try:
        client_context()
    except TlsSetupError as error:
        say_json({"error": f"{error}. {error.remedy}"})
        return 2
    from .process import main

    return main()


guard_streams()
sys.exit(start())
