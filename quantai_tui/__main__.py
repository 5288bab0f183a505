"""The console script; `python -m quantai_tui` is the same."""

from .working_folder import forget

forget()  # before anything else is imported

from .interrupts import end_at_once  # noqa: E402
from .output import guard_streams, output_failures_told  # noqa: E402


def main() -> None:
    guard_streams()
    with end_at_once():
        from .cli import main as run
    with output_failures_told():
        run()


if __name__ == "__main__":
    main()
