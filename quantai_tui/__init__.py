"""QuantAI TUI: a terminal mission control for training on a live market."""

__version__ = "0.1.0"
