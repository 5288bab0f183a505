"""How this program starts Python again: the engine, the embedded exchange, the training worker and its agents.

`python -m` looks for modules in the working folder first, so a file named `queue.py` or `msgspec.py` that lies there would run
in place of the real one. Every child is started through here and never looks there. Imports nothing of ours.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Mapping
from pathlib import Path

PYTHON = sys.executable  # no other module may start it by itself
_PACKAGE = Path(__file__).resolve().parent


def python_command(module: str, *arguments: str, python: str = PYTHON) -> list[str]:
    """The command line that runs a module in a new interpreter. Start it in `python_environment()`."""
    return [python, "-P", "-m", module, *arguments]


def python_environment(environment: Mapping[str, str] = os.environ, *, python: str = PYTHON) -> dict[str, str]:
    """`environment`, changed so that a child and all that it starts run this very package and nothing of the working folder.

    What the user has set is kept, except for relative entries of PYTHONPATH, the empty one included: what they mean depends on
    the working folder.
    """
    path = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    if python != PYTHON or not _is_installed():
        path.insert(0, str(_PACKAGE.parent))
    changed = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    changed["PYTHONSAFEPATH"] = "1"  # -P for interpreters that others start: torchrun its ranks, multiprocessing its processes
    if path:
        changed["PYTHONPATH"] = os.pathsep.join(path)
    return changed


def _is_installed() -> bool:
    """Whether a new interpreter finds this package by itself.

    The first entry of sys.path is left out: it belongs to the script or to `-m`. What an installed package needs no entry in
    PYTHONPATH for must not get one: its folder would come before the standard library.
    """
    search = sys.path if sys.flags.safe_path else sys.path[1:]
    spec = importlib.machinery.PathFinder.find_spec(_PACKAGE.name, search)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent == _PACKAGE
