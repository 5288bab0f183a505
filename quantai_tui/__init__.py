"""QuantAI TUI: a terminal mission control for training on a live market."""

import sys

if getattr(sys, "argv", [])[:1] == ["-m"]:  # `python -m` is looking for a module of this package; as a library we change nothing
    from .working_folder import forget

    forget()

__version__ = "0.1.0"
