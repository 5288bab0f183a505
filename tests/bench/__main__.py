"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .report import Options, Row, machine, table

# The order in which they run, and the module of each: imported only when asked for, since some load a good deal.
BENCHMARKS = {
    "first-frame": "first_frame",
    "bytes": "steady_bytes",
    "stream": "stream",
    "resilience": "resilience",
    "training-step": "training_step",
    "scaler": "scaler_fault",
    "watch": "watch",
    "key-to-paint": "key_to_paint",
    "learning": "learning",
}

ARCHIVES_VARIABLE = "QUANTAI_BENCH_ARCHIVES"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures against the bare things we wrap. Bounds are told, not enforced: a busy machine is no fault.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which benchmarks: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; all of them in about two minutes")
    parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON object instead of the table")
    parser.add_argument(
        "--archive", action="append", type=Path, dest="archives", metavar="PATH",
        help=f"real trades for `learning`, may be repeated (default: those in {ARCHIVES_VARIABLE}, separated by {os.pathsep!r})",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where the training step runs: cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="where `scaler` draws its SVG (default: the temporary folder)"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if options.archives is None:
        options.archives = [Path(path) for path in os.environ.get(ARCHIVES_VARIABLE, "").split(os.pathsep) if path]
    if missing := [path for path in options.archives if not path.is_file()]:
        parser.error(f"there is no archive {missing[0]}; give the path of a file of trades or of candles")
    options.names = [name for name in BENCHMARKS if not options.names or name in options.names]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    options = Options(
        quick=asked.quick,
        device=asked.device,
        archives=tuple(path.resolve() for path in asked.archives),
        picture=asked.picture and asked.picture.resolve(),
    )
    from .surroundings import own_home

    rows: list[Row] = []
    before, begun = machine(), time.monotonic()
    with own_home():
        for name in asked.names:
            started = time.monotonic()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            rows += importlib.import_module(f".{BENCHMARKS[name]}", __package__).run(options)
            print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    where = {**before, "load_1min_after": machine()["load_1min"], "seconds": time.monotonic() - begun, "quick": asked.quick}
    if asked.as_json:
        print(json.dumps({"machine": where, "rows": [row.as_dict() for row in rows]}))
    else:
        print(table(rows))
        print(
            f"\n{where['system']}, {where['cores']} cores, Python {where['python']}; "
            f"load {where['load_1min']} before, {where['load_1min_after']} after; {where['seconds']:.0f} s"
        )
    return 0


if __name__ == "__main__":
    # As Ctrl-C does: what was started must be ended, and a plain SIGTERM would leave engines behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    raise SystemExit(main())
