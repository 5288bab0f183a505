"""`python -m quantai_tui` is the command `quantai-tui`."""

from .cli import main

main()
