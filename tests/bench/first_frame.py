"""From starting the program to its first painted frame, beside an empty Textual app that is started the same way."""

from __future__ import annotations

from .report import Options, Row, median, paired, spread
from .surroundings import module, program, stop_engines, wait_for_engines
from .terminal import first_frame_ms

BOUND = 1.6


def run(options: Options) -> list[Row]:
    rounds = 2 if options.quick else 11
    results: dict[str, list[float]] = {"bare alone": [], "demo": [], "bare beside": [], "attach": []}
    for number in range(rounds + 1):
        _round(results)
        if not number:  # it has filled the caches
            for values in results.values():
                values.clear()
    return [
        # The demo's own engine starts at the same time, on the same cores: the empty app has the machine to itself.
        _row("demo 80x24", results["demo"], results["bare alone"]),
        _row("attach 80x24", results["attach"], results["bare beside"]),
    ]


def _round(results: dict[str, list[float]]) -> None:
    """One of each: without an engine, with one that starts, and twice beside one that runs, trains and is left alone."""
    try:
        results["bare alone"].append(first_frame_ms(module("empty_app")))
        results["demo"].append(first_frame_ms(program("demo")))
        wait_for_engines(1)
        results["bare beside"].append(first_frame_ms(module("empty_app")))
        results["attach"].append(first_frame_ms(program("attach")))
    finally:
        stop_engines()


def _row(what: str, ours: list[float], bare: list[float]) -> Row:
    note = f"ours {spread(ours)}, bare {spread(bare)}"
    return Row("first-frame", what, "ms", median(ours), median(bare), BOUND, "ratio", note, paired(ours, bare))
