"""Prevents imports from the working folder. It is imported first, so it imports only `os` and `sys`."""

import os
import sys


def forget() -> None:
    """Remove the working folder from sys.path, where `python -m` and empty or relative entries of PYTHONPATH put it.

    This does not affect earlier imports of the interpreter; `python -P` prevents those too.
    """
    try:
        here = os.getcwd()  # noqa: PTH109 - importing pathlib would search the untrusted folder
    except OSError:  # the working folder was deleted, so nothing can be imported from it
        return
    if not sys.flags.safe_path and sys.path and sys.path[0] in {"", here}:
        del sys.path[0]
    if sys.flags.ignore_environment:
        return
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # As `site` writes them into sys.path: "." and "src/.." without their dots.
    relative = {os.path.abspath(entry) for entry in entries if not os.path.isabs(entry)}  # noqa: PTH100, PTH117
    kept = {*entries, os.path.dirname(os.path.dirname(__file__))}  # noqa: PTH120 - the package's own folder
    sys.path[:] = [entry for entry in sys.path if entry not in relative or entry in kept]
