"""The console script; `python -m quantai_tui` is the same."""

from .interrupts import end_at_once


def main() -> None:
    with end_at_once():
        from .cli import main as run
    run()


if __name__ == "__main__":
    main()
