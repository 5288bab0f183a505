"""How this program starts Python again: the engine, the embedded exchange, the training worker and its agents.

`python -m` looks for modules in the working folder first, so a file named `queue.py` or `msgspec.py` there would run
instead of the real one. Every child is started through this module and never looks there. Imports nothing of ours.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Mapping
from pathlib import Path

PYTHON = sys.executable  # no other module may start Python
_PACKAGE = Path(__file__).resolve().parent


def python_command(module: str, *arguments: str, python: str = PYTHON) -> list[str]:
    """The command line that runs a module in a new interpreter. Start it in `python_environment()`."""
    return [python, "-P", "-m", module, *arguments]


def python_environment(environment: Mapping[str, str] = os.environ, *, python: str = PYTHON) -> dict[str, str]:
    """Return an environment in which a child and its children import this package and nothing from the working folder.

    It keeps the user's variables, except for relative and empty entries of PYTHONPATH: their meaning depends on
    the working folder.
    """
    path = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    if python != PYTHON or not _is_installed():
        path.insert(0, str(_PACKAGE.parent))
    changed = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    changed["PYTHONSAFEPATH"] = "1"  # -P for interpreters that torchrun and multiprocessing start
    if path:
        changed["PYTHONPATH"] = os.pathsep.join(path)
    return changed


def _is_installed() -> bool:
    """Whether a new interpreter finds this package without help.

    The first entry of sys.path is ignored: it belongs to the script or to `-m`. An installed package must not get an entry in
    PYTHONPATH: its folder would come before the standard library.
    """
    search = sys.path if sys.flags.safe_path else sys.path[1:]
    spec = importlib.machinery.PathFinder.find_spec(_PACKAGE.name, search)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent == _PACKAGE
