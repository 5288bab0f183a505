"""A link that is whatever a test says, and snapshots that tell a story."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from textual.app import App
from textual.pilot import Pilot

from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName, SaveResult, SettingField, SettingProblem, SettingsForm
from quantai_tui.telemetry import (
    Alert,
    EngineSnapshot,
    ErrorSnapshot,
    Mode,
    ReconnectSnapshot,
    RttSnapshot,
    SeriesSnapshot,
    Severity,
    StoreSnapshot,
    StreamSnapshot,
    StreamState,
    SymbolSnapshot,
    TrainingSnapshot,
    TrainingState,
)
from quantai_tui.ui.app import DashboardApp

NOW = 1_735_689_600.0  # 2025-01-01 00:00:00 UTC


class FrozenClock:
    """A clock that a test moves by hand."""

    def __init__(self, unix: float = NOW) -> None:
        self.unix = unix
        self.ticks = 1000.0

    def monotonic(self) -> float:
        return self.ticks

    def time(self) -> float:
        return self.unix

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.unix += seconds
        self.ticks += seconds


def series(period_s: float, *values: float | None) -> SeriesSnapshot:
    return SeriesSnapshot(period_s, values)


def wave(count: int, middle: float, swing: float, step: float = 0.7) -> tuple[float, ...]:
    """Values that go up and down, the same in every run."""
    return tuple(middle + swing * (0.6 * math.sin(i * step) + 0.4 * math.sin(i * step * 2.7)) for i in range(count))


def stream_snapshot(**changes: Any) -> StreamSnapshot:
    base = StreamSnapshot(
        state=StreamState.LIVE,
        state_since_s=8_040.0,
        uptime_s=8_040.0,
        endpoint="wss://data-stream.binance.vision:443",
        tls_version="TLSv1.3",
        tls_cipher="TLS_AES_256_GCM_SHA384",
        tls_issuer="Example Trust Services",
        certificate_days=61.4,
        transport="websockets",
        rotates_in_s=76_560.0,
        rotations=3,
        dials_left=268,
        rtt_ms=RttSnapshot(last=24.3, min=21.0, p50=23.8, p95=41.2, ewma=24.9, missed=0),
        max_attempts=10,
        backoff_schedule_s=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0),
        messages=1_203_112,
        messages_per_s=812.4,
        last_message_age_s=0.12,
        reconnects=3,
        success_rate=0.75,
        avg_delay_s=2.3,
        attempts_total=4,
        history=(
            ReconnectSnapshot(NOW - 9_000, 1, False, "NETWORK_ERROR", "Connection reset by peer", 1.0, 5_400.0),
            ReconnectSnapshot(NOW - 8_998, 2, True, "NETWORK_ERROR", "Connection reset by peer", 2.0, None),
            ReconnectSnapshot(NOW - 8_100, 1, True, "TIMEOUT_ERROR", "no pong within 10 s", 1.0, 898.0),
        ),
        last_error=ErrorSnapshot(
            "TIMEOUT_ERROR", "no pong within 10 s", "Nothing to do: the stream reconnected.", "pong timeout", NOW - 8_100
        ),
        symbols={
            "ETHUSDT": SymbolSnapshot(
                last_id=1_823_123_112,
                complete_through_id=1_823_123_112,
                stored=1_203_112,
                repaired=132,
                gap_note="132 ids missed while reconnecting, fetched in 0.8 s",
                price="3512.31",
                trades_per_s=18.2,
            )
        },
    )
    return msgspec.structs.replace(base, **changes)


def training_snapshot(**changes: Any) -> TrainingSnapshot:
    base = TrainingSnapshot(
        state=TrainingState.TRAINING,
        age_s=0.3,
        pid=4243,
        device="cuda:0",
        precision="fp16",
        symbol="ETHUSDT",
        parameters=412_675,
        epoch=12,
        epochs_done=11,
        step=11_340,
        epoch_step=340,
        steps_per_epoch=1_000,
        loss=0.6812,
        grad_norm=1.234,
        learning_rate=1e-3,
        samples_per_s=12_345.0,
        epoch_eta_s=13.2,
        memory_bytes=812_000_000,
        accuracy=0.5214,
        baseline_accuracy=0.5092,
        majority_accuracy=0.5021,
        persistence_accuracy=0.5092,
        validation_samples=4_096,
        data_bars=86_400,
        data_through_time=NOW - 60,
        scale=65_536.0,
        scale_floor=1.0,
        scale_cap=100_000.0,
        scale_max_seen=78_643.2,
        growth_tracker=812,
        growth_interval=2_000,
        scale_growth_rate=0.13,
        overflow_count=12,
        overflow_rate=0.004,
        consecutive_overflow=0,
        resets=2,
        last_event="overflow at step 11,204",
    )
    return msgspec.structs.replace(base, **changes)


def engine_snapshot(**changes: Any) -> EngineSnapshot:
    scale = tuple(32_768.0 * 1.2 ** min(i // 12, 4) if i % 40 != 39 else 16_384.0 for i in range(120))
    base = EngineSnapshot(
        time=NOW,
        name="live-spot",
        mode=Mode.LIVE,
        pid=4242,
        uptime_s=273_600.0,
        stream=stream_snapshot(),
        training=training_snapshot(),
        store=StoreSnapshot(path="/data/live-spot/trades.db", size_bytes=128_400_000, queued=0),
        series={
            "rtt_ms": series(1.0, *wave(60, 26.0, 14.0), None, None, *wave(58, 24.0, 9.0)),
            "trades_per_s": series(1.0, *wave(120, 19.0, 14.0, 0.31)),
            "scale": series(1.0, *scale),
            "overflows": series(1.0, *(3.0 if i % 40 == 39 else 1.0 if i % 17 == 0 else 0.0 for i in range(120))),
            "loss": series(1.0, *(0.69 - i * 0.0001 + 0.001 * math.sin(i) for i in range(120))),
        },
        log=(
            "23:57:41 stream: pong timeout after 10 s, reconnecting",
            "23:57:43 stream: live again, 132 ids to repair",
            "23:57:44 repair: ETHUSDT 132 ids fetched, tape is whole",
            "23:59:02 training: epoch 11 done, accuracy 52.1 %",
            "23:59:40 scaler: overflow at step 11,204, scale 131,072 -> 65,536",
        ),
    )
    return msgspec.structs.replace(base, **changes)


def alert(text: str = "the scale stands at its cap", severity: Severity = Severity.WARNING) -> Alert:
    return Alert(text.replace(" ", "-"), severity, text, "Raise GRAD_SCALER_MAX_SCALE or lower the learning rate.", NOW - 60)


def backoff_snapshot() -> EngineSnapshot:
    """The third attempt is waited for, after a refused connection."""
    error = ErrorSnapshot(
        "NETWORK_ERROR",
        "[Errno 111] Connect call failed ('198.51.100.7', 443)",
        "Check the network of this machine: other hosts answer, this one refuses.",
        "refused",
        NOW - 3,
    )
    stream = stream_snapshot(
        state=StreamState.BACKOFF,
        state_since_s=3.0,
        cause="connection refused",
        uptime_s=0.0,
        tls_version=None,
        rtt_ms=RttSnapshot(missed=1),
        attempt=2,
        backoff_remaining_s=1.2,
        backoff_total_s=4.0,
        backoff_schedule_s=(4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0),
        messages_per_s=0.0,
        last_message_age_s=14.2,
        last_error=error,
        failed_last_5min=3,
        symbols={
            "ETHUSDT": SymbolSnapshot(
                last_id=1_823_123_112, complete_through_id=1_823_122_980, missing=132, gaps=3, price="3512.31", trades_per_s=0.0
            )
        },
    )
    alerts = (
        Alert("reconnects", Severity.CRITICAL, "3 failed reconnects in 5 minutes", "Check the network of this machine.", NOW - 3),
        alert(),
    )
    return engine_snapshot(stream=stream, alerts=alerts)


def _setting(
    name: str, group: str, rule: str, default: str, unit: str = "", kind: str = "float", applies: str = "live", **more: Any
) -> SettingField:
    title = name.split("_", 1)[1].replace("_", " ").capitalize()
    return SettingField(
        name=name,
        title=title,
        description=f"What {title.lower()} is for.",
        group=group,
        unit=unit,
        rule=rule,
        kind=kind,
        choices=more.get("choices", ()),
        applies=applies,
        value=default,
        default=default,
        source="default",
        locked=more.get("locked", ""),
    )


_FIELDS = (
    _setting("WS_RECONNECT_INITIAL_DELAY", "Reconnect", "> 0", "1.0", "s"),
    _setting("WS_RECONNECT_MAX_DELAY", "Reconnect", ">= initial delay", "60.0", "s"),
    _setting("WS_RECONNECT_MAX_RETRIES", "Reconnect", ">= 0; 0 means unlimited", "10", "", "int"),
    _setting("WS_PING_INTERVAL", "Heartbeat", "> 0", "30.0", "s", applies="reconnect"),
    _setting("GRAD_SCALER_MAX_SCALE", "Scaler", "> 0", "100000.0"),
    _setting("GRAD_SCALER_AUTO_RESET", "Scaler", "true or false", "True", kind="bool"),
    _setting("LOG_LEVEL", "Program", "one of the levels", "INFO", kind="choice", choices=("DEBUG", "INFO", "WARNING")),
    _setting(
        "APP_SYMBOLS", "Program", "1 to 20", "ETHUSDT", kind="list", applies="restart", locked="--symbols, the command line"
    ),
)


def settings_form(revision: str = "r1", **values: str) -> SettingsForm:
    """Eight settings of all kinds; `values` stand in the file."""

    def stands(item: SettingField) -> SettingField:
        value = values.get(item.name, item.value)
        source = "default" if value == item.default else "config.toml, line 3"
        return msgspec.structs.replace(item, value=value, source=source)

    return SettingsForm("/home/op/.config/quantai-tui/config.toml", revision, tuple(stands(item) for item in _FIELDS))


@dataclass
class FakeLink:
    """An EngineLink without an engine: settable snapshots, recorded commands, answers that a test chooses."""

    snapshot: EngineSnapshot | None = None
    state: LinkState = LinkState.ATTACHED
    detail: str = ""
    engine_name: str = "live-spot"
    snapshot_age_s: float | None = 0.1
    commands: list[tuple[CommandName, dict[str, Any]]] = field(default_factory=list)
    answers: dict[CommandName, Ack | Callable[[dict[str, Any]], Ack]] = field(default_factory=dict)
    started: bool = False
    closed: bool = False
    exit_code: int | None = None
    hold: asyncio.Event | None = None
    form: SettingsForm = field(default_factory=settings_form)

    async def start(self) -> None:
        self.started = True

    async def command(self, name: CommandName, **args: Any) -> Ack:
        self.commands.append((name, args))
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answers.get(name)
        if callable(answer):
            return answer(args)
        if answer is not None:
            return answer
        if name is CommandName.SETTINGS_DESCRIBE:
            return Ack(1, True, data=msgspec.to_builtins(self.form))
        if name is CommandName.SETTINGS_VALIDATE:
            return Ack(1, True, data=msgspec.to_builtins(self.problems(args["values"])))
        if name is CommandName.SETTINGS_SAVE:
            return Ack(1, True, data=msgspec.to_builtins(self.save(args["values"])))
        return Ack(1, True, f"{name.value} accepted")

    async def close(self) -> None:
        self.closed = True

    @property
    def sent(self) -> list[CommandName]:
        return [name for name, _ in self.commands]

    def problems(self, values: dict[str, str]) -> list[SettingProblem]:
        rules = {item.name: item for item in self.form.fields}
        found = []
        for name, text in values.items():
            if rules[name].kind == "float":
                try:
                    bad = not float(text) > 0
                except ValueError:
                    bad = True
                if bad:
                    found.append(SettingProblem(name, f"{text!r} breaks the rule {rules[name].rule}"))
        return found

    def save(self, values: dict[str, str]) -> SaveResult:
        problems = tuple(self.problems(values))
        if problems:
            return SaveResult(False, problems)
        words = {"live": "live now", "reconnect": "stream reconnects", "restart": "at the next start"}
        applies = {item.name: words[item.applies] for item in self.form.fields}
        self.form = settings_form("r2", **{**{item.name: item.value for item in self.form.fields}, **values})
        return SaveResult(True, applied={name: applies[name] for name in values})


async def until(pilot: Pilot[Any], met: Callable[[], bool], within_s: float = 20.0) -> None:
    """Let the app run until something is so."""
    deadline = time.monotonic() + within_s
    while not met():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within_s:g} s\n{screen_text(pilot.app)}")
        await pilot.pause(0.01)


def screen_text(app: App[Any]) -> str:
    """What a person would read, line by line."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


@asynccontextmanager
async def dashboard(
    link: FakeLink, size: tuple[int, int] = (80, 24), **options: Any
) -> AsyncIterator[tuple[DashboardApp, Pilot[Any], FrozenClock]]:
    clock = FrozenClock()
    app = DashboardApp(link, clock=clock, **options)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: link.started and ("connection" in screen_text(app) or size[0] < 60 or app.view().broken))
        yield app, pilot, clock


def live() -> FakeLink:
    return FakeLink(engine_snapshot())
