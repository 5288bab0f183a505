"""Processor time per trade on one TLS link: the bare library, the stream into nothing by either library, into bars and SQLite."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from .children import Child
from .report import Options, Row, interleaved, median, number, paired, spread

BOUNDS = {"sink": 1.25, "store": 1.6, "fast": 0.7}
LAG_BOUND_MS = 10.0
RATE = 20_000
_BLOCK = 20_000  # trades, the batch of a second: short blocks in turn meet the same weather
_WHAT = {"sink": "into nothing", "store": "into bars and SQLite", "fast": "into nothing, by picows"}


def run(options: Options) -> list[Row]:
    rounds, paced_rounds, paced_s, minute_s = (4, 1, 1.5, 3.0) if options.quick else (60, 7, 3.0, 60.0)
    with ExitStack() as stack:
        venue = stack.enter_context(Child("venue", "."))
        told = venue.hear()
        floods: dict[str, Flood] = {}
        for mode in ("bare", *BOUNDS):
            client = stack.enter_context(Child("client", mode, f"{told['url']}/told/{mode}", told["ca_file"], "."))
            client.hear()
            floods[mode] = Flood(venue, client, mode)
        costs = interleaved(rounds, {mode: flood.once for mode, flood in floods.items()})
        paced: dict[str, list[dict[str, Any]]] = {mode: [] for mode in floods}
        for _ in range(paced_rounds):
            for mode, flood in floods.items():
                paced[mode].append(_paced(venue, flood.client, mode, paced_s))
        whole = _paced(venue, floods["store"].client, "store", minute_s)
        sent = venue.ask(count="store")["sent"]
        floods["store"].client.ask(until=sent)
        floods["store"].client.hear()  # all that was sent has been stored, or there is no answer and an error
    rows = []
    for mode, bound in BOUNDS.items():
        ours, bare = costs[mode], costs["bare"]
        rates = f"{number(median(floods[mode].rates))} trades/s, bare {number(median(floods['bare'].rates))}"
        note = f"{rates}; ours {spread(ours)}, bare {spread(bare)}"
        what = f"cpu per trade, {_WHAT[mode]}"
        rows.append(Row("stream", what, "us", median(ours), median(bare), bound, "ratio", note, paired(ours, bare)))
    note = f"p50 {number(whole['lag_p50_ms'])}, max {number(whole['lag_max_ms'])} ms; {number(whole['per_s'])} trades/s; lost 0"
    what = f"loop lag p99 of {minute_s:g} s at {RATE:,}/s, {_WHAT['store']}"
    rows.append(Row("stream", what, "ms", whole["lag_p99_ms"], None, LAG_BOUND_MS, note=note))
    return rows + [row for mode in BOUNDS for row in _paced_rows(mode, _over(paced[mode]), _over(paced["bare"]))]


def _paced_rows(mode: str, ours: dict[str, float], bare: dict[str, float]) -> list[Row]:
    what = f"at {RATE:,}/s, {_WHAT[mode]}"
    note = f"p50 {number(ours['lag_p50_ms'])}, max {number(ours['lag_max_ms'])} ms; {number(ours['per_s'])} trades/s taken"
    return [
        Row("stream", f"cpu per trade {what}", "us", ours["cpu_us"], bare["cpu_us"]),
        Row("stream", f"loop lag p99 {what}", "ms", ours["lag_p99_ms"], bare["lag_p99_ms"], LAG_BOUND_MS, note=note),
    ]


class Flood:
    """One client, sent block after block, each of which is all there from its first moment."""

    def __init__(self, venue: Child, client: Child, mode: str) -> None:
        self._venue = venue
        self.client = client
        self._mode = mode
        self._sent = 0
        self.rates: list[float] = []

    def once(self) -> float:
        """Microseconds of processor time per trade."""
        self._sent += _BLOCK
        self._venue.ask(prepare=_BLOCK, to=self._mode)
        self.client.ask(until=self._sent)
        self._venue.tell(go=self._mode)
        result = self.client.hear()
        self.rates.append(result["per_s"])
        cost: float = result["cpu_us"]
        return cost


def _paced(venue: Child, client: Child, mode: str, seconds: float) -> dict[str, Any]:
    """Cost and lag while the trades come one by one."""
    venue.tell(pace=RATE, to=mode)
    client.ask(listen=0.5)  # until the pace is reached
    client.tell(listen=seconds)
    result = client.hear(seconds + 60)
    venue.tell(pace=0, to=mode)
    return result


def _over(results: list[dict[str, Any]]) -> dict[str, float]:
    """The medians over all rounds; the greatest lag is the greatest of all."""
    over = {name: median([result[name] for result in results]) for name in results[0]}
    return {**over, "lag_max_ms": max(result["lag_max_ms"] for result in results)}
