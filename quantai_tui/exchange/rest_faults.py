"""Faults of REST: no answer, an error instead of one, or one that cannot be relied upon."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from quantai_tui.market.trades import AggTrade

from .budget import RequestBudget
from .fault import Fault
from .faults import Faults
from .markets import Market
from .stream_faults import require_http_status, retry_after

_FOREIGN_BY = 100_000  # ids; out of any page that could have been meant


class RestFaults:
    """Asked at each step of an answer what is wrong with it; mostly nothing."""

    def __init__(self, faults: Faults, budget: RequestBudget) -> None:
        self._faults = faults
        self._budget = budget
        for kind in ("rest-short", "rest-cut", "rest-wrong-rows", "rest-stall", "rest-lag"):
            faults.offer(kind)
        faults.offer("rest-status", self._status)
        faults.offer("rest-limit", self._limit, self._pardon)
        faults.offer("ban", self._ban, self._pardon)

    async def answer(self) -> web.Response | None:
        """What a request is told instead of its answer, if anything; may take its time."""
        await self._faults.until_over("rest-stall")
        fault = self._faults.in_force("rest-status")
        if fault is None:
            return None
        # As a proxy before the venue would say it: no body that the venue's own errors have.
        response = web.Response(status=fault.code, text=f"<html><body>{HTTPStatus(fault.code).phrase}</body></html>")
        response.content_type = "text/html"
        if (after := retry_after(fault, self._faults)) is not None:
            response.headers["Retry-After"] = after
        return response

    def behind_s(self) -> float:
        """How far REST is behind the stream."""
        fault = self._faults.in_force("rest-lag")
        return fault.behind if fault is not None else 0.0

    def page(self, trades: list[AggTrade], market: Market) -> list[AggTrade]:
        """The rows that are sent in place of these."""
        if (fault := self._faults.in_force("rest-short")) is not None:
            trades = trades[: fault.rows]
        if (fault := self._faults.in_force("rest-wrong-rows")) is not None and trades:
            trades = _wrong_rows(fault.how, trades, market)
        return trades

    def body(self, body: bytes) -> bytes:
        """The bytes that are sent in place of these."""
        return body if self._faults.in_force("rest-cut") is None else body[: len(body) // 2]

    async def _status(self, fault: Fault) -> str:
        require_http_status(fault)
        return f"REST answers with HTTP {fault.code}"

    async def _limit(self, fault: Fault) -> str:
        self._budget.exhaust(fault.retry_after, fault.refusals, fault.lifetime)
        return f"no request weight for {fault.retry_after:g} s; banned for {fault.lifetime:g} s after {fault.refusals} refusals"

    async def _ban(self, fault: Fault) -> str:
        self._budget.banish(fault.lifetime)
        return f"banned for {fault.lifetime:g} s"

    async def _pardon(self, _: Fault) -> None:
        self._budget.pardon()


def _wrong_rows(how: str, trades: list[AggTrade], market: Market) -> list[AggTrade]:
    if how == "late":
        return trades[1:]
    if how == "backwards":
        return trades[::-1]
    if how == "gap":
        middle = len(trades) // 2
        return trades[:middle] + trades[middle + 1 :]
    first = market.first_id(trades[0].symbol)
    shift = min(_FOREIGN_BY, max(0, trades[0].id - first)) or -_FOREIGN_BY
    return [
        AggTrade(t.id - shift, t.price, t.quantity, t.first_id - 2 * shift, t.last_id - 2 * shift, t.time, t.buyer_is_maker)
        for t in trades
    ]
