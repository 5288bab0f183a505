"""Running a program under a uid without an account, as in many containers."""

from __future__ import annotations

import functools
import shutil
import subprocess

UID = 54321
# In a user namespace the process keeps its access to its own files, but its uid has no account, and root loses its permissions.
WITHOUT_ACCOUNT = ("unshare", "--user", f"--map-user={UID}")


@functools.cache
def has_namespaces() -> bool:
    """Whether this machine allows user namespaces."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*WITHOUT_ACCOUNT, "true"], capture_output=True, check=False).returncode == 0
