"""What other programs that people keep open cost beside the dashboard, where they are installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from .terminal import Terminal

Size = tuple[int, int]

NAMES = ("btop", "htop")


@contextmanager
def monitors(sizes: Mapping[Size, object]) -> Iterator[dict[tuple[str, Size], Terminal]]:
    """Those that are installed, one at each size, with their own defaults: btop repaints every 2 s, htop every 1.5 s."""
    with ExitStack() as stack:
        yield {
            (name, size): stack.enter_context(Terminal([path], size))
            for name in NAMES
            if (path := shutil.which(name)) is not None
            for size in sizes
        }
