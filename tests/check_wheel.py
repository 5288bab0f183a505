"""Is a wheel whole? Installs it into an empty virtual environment and uses it there: `python tests/check_wheel.py WHEEL`.

The libraries it needs are lent by the environment that runs this script, so that nothing is downloaded twice; the package
itself and its themes can only come from the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

_PROBE = """
import pathlib, quantai_tui
from quantai_tui.ui.themes import themes_folder
home = pathlib.Path(quantai_tui.__file__).parent
assert "site-packages" in str(home), home
themes = sorted(path.name for path in themes_folder().glob("*.toml"))
assert str(themes_folder()).startswith(str(home)), themes_folder()
assert len(themes) >= 3, themes
assert (home / "py.typed").exists()
print("package", home.parent.name, "themes", themes)
"""


def main(wheel: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = place / "venv" / "bin" / "python"
        run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel.resolve()], place)
        inside = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True, capture_output=True, check=True
        ).stdout.strip()
        # Behind the wheel's own folder on the path, and without the .pth files that would bring in an editable checkout.
        (Path(inside) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run([python, "-c", _PROBE], place)
        script = place / "venv" / "bin" / "quantai-tui"
        run([script, "--version"], place)
        run([script, "config", "validate"], place)
        run([script, "demo", "--headless", "--for", "4"], place)
    return 0


def run(command: list[str | Path], place: Path) -> None:
    homes = {f"XDG_{kind}_HOME": str(place / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    subprocess.run([str(part) for part in command], cwd=place, env={**os.environ, **homes}, check=True, timeout=120)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
