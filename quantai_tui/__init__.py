"""QuantAI TUI: a terminal mission control for training on a live market."""

import sys

if getattr(sys, "argv", [])[:1] == ["-m"]:  # `python -m` imports this package; a library user's sys.path stays unchanged
    from .working_folder import forget

    forget()

__version__ = "0.1.0"
