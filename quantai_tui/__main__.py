"""The console script; `python -m quantai_tui` is the same."""

from .interrupts import end_at_once
from .output import guard_streams


def main() -> None:
    guard_streams()
    with end_at_once():
        from .cli import main as run
    run()


if __name__ == "__main__":
    main()
