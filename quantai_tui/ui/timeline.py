"""The shared time cursor: which moment all panes show, and how much of the past their charts do.

Panes are functions of a view, so the past is a view like any other: the snapshot of then, charts with the cursor in them, and a
header that says so. Moments and charts are asked of the engine, one question at a time: a key that is held asks for the last
place it came to, not for all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..link.messages import Ack, CommandName, HistoryWindow, Moment
from ..telemetry import Clock
from .actions import Handler
from .format import clean, date_and_time, duration, wall_clock
from .view import Past, Status, View

if TYPE_CHECKING:
    from .app import DashboardApp

SPANS_S = (120.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0)  # the first is what every snapshot brings along
_NAMES = ["rtt_ms", "trades_per_s", "scale", "overflows", "loss"]
_POINTS = 240
_STEPS = 120  # cursor steps in a span
_FAR = 12
_REFRESH_S = 2.0
_NEAR_S = 5.0
_MOST_NEAR = 4


class _Wish(Struct, frozen=True):
    """What should be on the screen. `at`: the cursor, None for the present; `until`: the right edge of the charts."""

    at: float | None = None
    until: float | None = None
    span_s: float = SPANS_S[0]

    @property
    def step_s(self) -> float:
        return max(1.0, self.span_s / _STEPS)


class Timeline:
    """Cursor, span and freezing of one dashboard."""

    def __init__(self, app: DashboardApp, ask: Callable[..., Awaitable[Ack]], clock: Clock) -> None:
        self._app = app
        self._ask = ask
        self._clock = clock
        self._wish = self._have = _Wish()
        self._moment: Moment | None = None
        self._window: HistoryWindow | None = None
        self._since: float | None = None
        self._refresh_at = 0.0
        self._asking = False
        self._frozen: View | None = None
        self._changes = 0
        self._last_shape: object = None

    def handlers(self) -> dict[str, Handler]:
        return {
            "cursor-left": lambda: self._move(-1),
            "cursor-right": lambda: self._move(1),
            "cursor-left-far": lambda: self._move(-_FAR),
            "cursor-right-far": lambda: self._move(_FAR),
            "cursor-home": self._home,
            "span-wider": lambda: self._respan(1),
            "span-narrower": lambda: self._respan(-1),
            "go-to-time": self._ask_for_time,
            "freeze": self._toggle_freeze,
        }

    @property
    def past(self) -> bool:
        """Whether something else than the present is on the screen."""
        return self._wish.at is not None or self._frozen is not None

    def go_live(self) -> None:
        """Back to the present, thawed."""
        self._frozen = None
        self._wish = replace(self._wish, at=None, until=None)
        if self._wish.span_s == SPANS_S[0]:
            self._have, self._moment, self._window = self._wish, None, None
        else:
            self._fetch()
        self._app.tick()

    def leave_the_past(self, label: str) -> None:
        """Before a key that acts on the engine: it acts now, and what comes of it must be seen."""
        if self._wish.at is not None:
            self.go_live()
            self._app.say(f"back to the present: {label} acts now")

    # What is shown

    def shown(self, live: View) -> View:
        """The view that the panes get while `live` is how things stand."""
        if self._frozen is None:
            self._keep_up()
        else:
            if self._last_shape != live.shape[4:5]:
                self._changes += self._last_shape is not None
                self._last_shape = live.shape[4:5]
            past = replace(self._frozen.past or Past(), frozen_s=live.clock - self._frozen.clock, changes=self._changes)
            frozen = replace(self._frozen, past=past, status=live.status, clock=live.clock)
            live = replace(_with_trial(frozen, live), link=live.link, detail=live.detail, stale=live.stale, age_s=live.age_s)
        span = "" if self._wish.span_s == SPANS_S[0] else _words(self._wish.span_s)
        if self._moment is None or self._wish.at is None:
            waiting = self._wish.at is not None
            past = replace(live.past or Past(), span=span, waiting=waiting, cursor=self._wish.at)
            return replace(live, charts=self._window or live.charts, past=past) if span or waiting or live.past else live
        moment = self._moment
        past = replace(
            live.past or Past(),
            cursor=self._have.at,
            moment=moment.time,
            ago_s=max(0.0, live.clock - moment.time),
            waiting=self._have != self._wish,
            span=span,
        )
        status = live.status if live.status.text else Status(self._near(moment.time), "text")
        snapshot = replace(moment.snapshot, log=moment.log)
        return replace(
            _with_trial(replace(live, snapshot=snapshot), live),
            stale=False,
            now=moment.time,
            charts=self._window,
            past=past,
            status=status,
        )

    def _near(self, when: float) -> str:
        """What happened around the cursor: whether one thing coincided with another is read off here."""
        if self._window is None:
            return ""
        reach = max(_NEAR_S, self._have.step_s)
        at = self._have.at or when
        near = sorted((event for event in self._window.events if abs(event.time - at) <= reach), key=lambda e: abs(e.time - at))
        if not near:
            return f"nothing happened within {duration(reach)} of {wall_clock(at)}"
        told = sorted(near[:_MOST_NEAR], key=lambda event: event.time)
        more = f" (and {len(near) - len(told)} more)" if len(near) > len(told) else ""
        return "  ".join(f"{wall_clock(event.time)} {clean(event.text)}" for event in told) + more

    # What keys do

    def _move(self, steps: int) -> None:
        now, wish = self._clock.time(), self._wish
        if wish.at is None and steps > 0:
            self._app.say("time: this is the present")
        elif wish.at is None:  # a single step to the left puts the cursor on what stands there now
            self.go_to((self._frozen.clock if self._frozen is not None else now) + (steps if steps < -1 else 0) * wish.step_s)
        elif wish.at + steps * wish.step_s >= now:
            self.go_live()
        else:
            self.go_to(wish.at + steps * wish.step_s)

    def go_to(self, at: float) -> None:
        """Put the cursor there, as far as the engine's memory goes back."""
        now, wish = self._clock.time(), self._wish
        early = self._since is not None and at < self._since
        if self._since is not None:
            at = max(at, self._since)
        until = wish.until if wish.until is not None else now
        if at > until:
            until = min(now, at + wish.span_s / 10)
        elif at < until - wish.span_s:
            until = min(now, at + wish.span_s / 10 * 9)
        self._wish = replace(wish, at=at, until=until)
        self._fetch()
        if early:
            self._app.say(f"time: the engine's memory begins at {date_and_time(at)}", "alert-warning")
        else:
            self._app.say("")  # what happened near the cursor stands there now

    def _respan(self, step: int) -> None:
        index = SPANS_S.index(self._wish.span_s) + step
        if not 0 <= index < len(SPANS_S):
            self._app.say(f"charts: {_words(self._wish.span_s)} is the {'longest' if step > 0 else 'shortest'} span")
            return
        span = SPANS_S[index]
        at, until = self._wish.at, self._wish.until
        if at is not None:  # the cursor stays in the middle of what is shown, as far as there is a future to show
            until = min(self._clock.time(), at + span / 2)
        self._wish = _Wish(at, until, span)
        self._app.say(f"charts: the last {_words(span)}" if at is None else f"charts: {_words(span)} around the cursor")
        if span == SPANS_S[0] and at is None:
            self.go_live()
        else:
            self._fetch()

    def _ask_for_time(self) -> None:
        from .moment_dialog import MomentDialog

        if self._since is None:
            self._fetch(again=True)  # where the memory begins is told along with the charts

        def answered(at: float | None) -> None:
            if at is not None:
                self.go_to(at)
            self._app.tick()

        self._app.push_screen(MomentDialog(self._clock.time, lambda: self._since), answered)

    def _toggle_freeze(self) -> None:
        if self._frozen is not None:
            self._frozen = None
            self._app.say("screen: live again")
            return
        live = self._app.view()
        if live.snapshot is None:
            self._app.say("freeze: there is nothing to see yet")
            return
        self._frozen, self._changes, self._last_shape = live, 0, live.shape[4:5]
        self._app.say("screen: frozen; p thaws it, keys go on acting")

    def _home(self) -> None:
        if not self.past:
            self._app.say("time: this is the present")
        self.go_live()

    # Asking the engine

    def _keep_up(self) -> None:
        """Charts of the present over a longer span follow it, no oftener than a new point can come."""
        if self._wish.at is None and self._wish.span_s != SPANS_S[0] and self._clock.monotonic() >= self._refresh_at:
            self._fetch(again=True)

    def _fetch(self, *, again: bool = False) -> None:
        self._refresh_at = self._clock.monotonic() + max(_REFRESH_S, self._wish.span_s / _POINTS)
        if not self._asking and (again or self._wish != self._have or self._wish.at is None):
            self._asking = True
            self._app.run_worker(self._follow(), group="timeline")

    async def _follow(self) -> None:
        """Until what was wished last is there, or cannot be had."""
        try:
            while True:
                wish = self._wish
                problem = await self._get(wish)
                if problem and self._wish is wish:
                    if wish != self._have:  # charts that only follow the present are silent: the line of alerts names a lost link
                        self._app.say(f"time: {problem}", "state-failed")
                    self._wish = self._have
                if self._wish == self._have:
                    break
        finally:
            self._asking = False
        self._app.tick()

    async def _get(self, wish: _Wish) -> str:
        """Fetch what the wish needs; returns why it cannot be had, or nothing."""
        moment: Moment | None = None
        try:
            if wish.at is not None:
                ack = await self._ask(CommandName.MOMENT, at=wish.at)
                if not ack.ok:
                    return ack.message
                moment = msgspec.convert(ack.data, Moment)
            if self._window is None or (wish.until, wish.span_s) != (self._have.until, self._have.span_s) or wish.until is None:
                ack = await self._ask(CommandName.HISTORY, names=_NAMES, span_s=wish.span_s, points=_POINTS, until=wish.until)
                if not ack.ok:
                    return ack.message
                self._window = msgspec.convert(ack.data, HistoryWindow)
                self._since = self._window.since
        except msgspec.ValidationError as error:
            return f"the engine's answer cannot be read: {error}"
        if self._wish.at is not None or wish.at is None:  # else the operator has come back meanwhile
            self._moment = moment
        self._have = wish
        return ""


def _with_trial(view: View, present: View) -> View:
    """Settings on trial are of the present, whatever is looked at: their time runs now."""
    if view.snapshot is None or present.snapshot is None:
        return view
    return replace(view, snapshot=replace(view.snapshot, trial=present.snapshot.trial))


def _words(span_s: float) -> str:
    return f"{span_s / 3_600:g} h" if span_s >= 3_600 else f"{span_s / 60:g} min"
