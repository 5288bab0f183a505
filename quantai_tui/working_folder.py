"""Keeps files that merely lie in the working folder from being imported. It comes first, so it loads `os` and `sys` alone."""

import os
import sys


def forget() -> None:
    """Take the working folder out of sys.path, where `python -m` and empty or relative entries of PYTHONPATH have put it.

    What the interpreter has imported before this call cannot be helped: `python -P` prevents that, too.
    """
    try:
        here = os.getcwd()  # noqa: PTH109 - pathlib would be imported from the folder that is not to be trusted
    except OSError:  # the working folder was deleted: nothing can be imported from it
        return
    if not sys.flags.safe_path and sys.path and sys.path[0] in {"", here}:
        del sys.path[0]
    if sys.flags.ignore_environment:
        return
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    relative = {os.path.join(here, entry).rstrip(os.sep) for entry in entries if not os.path.isabs(entry)}  # noqa: PTH117, PTH118
    kept = {*entries, os.path.dirname(os.path.dirname(__file__))}  # noqa: PTH120 - the package's own folder is found by it
    sys.path[:] = [entry for entry in sys.path if entry not in relative or entry in kept]
