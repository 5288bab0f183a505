"""Where an engine's market data comes from: the live venue, or an embedded exchange that plays a synthetic or recorded market."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..telemetry import Mode
from ..textfile import escaped

ExchangeCommand = Callable[[Path, tuple[str, ...]], list[str]]


@dataclass(frozen=True, slots=True)
class Source:
    """One source of data. Its `name` names the engine and its folder.

    `exchange_command(folder, symbols)` gives the command line of the embedded exchange; None for the live venue. The engine never
    imports the exchange: whoever starts it hands the command over. `recording` is played in place of any exchange, at `speed`: so
    many times as fast as it was, or "max".
    """

    mode: Mode
    name: str
    note: str = ""
    exchange_command: ExchangeCommand | None = None
    mode_defaults: Mapping[str, str] = field(default_factory=dict)
    forced: Mapping[str, str] = field(default_factory=dict)
    recording: Path | None = None
    speed: str = "max"


def live() -> Source:
    """Binance spot, as configured."""
    return Source(Mode.LIVE, "live-spot")


def demo(seed: int, exchange_command: ExchangeCommand) -> Source:
    """A synthetic market. Its defaults make a small screen lively: second bars, quick growth of the scale, a gentle pace."""
    return Source(
        Mode.DEMO,
        f"demo-{seed}",
        note=f"demo: synthetic market, seed {seed}",
        exchange_command=exchange_command,
        mode_defaults={
            "BAR_INTERVAL": "1s",
            "WARMUP_BARS": "6000",  # fewer, and even ten thousand parameters learn them by heart within minutes
            # 10 ms a step on one core instead of 29, and twenty of them a second: a demo should not heat a laptop.
            "TRAIN_WINDOW": "16",
            "TRAIN_BATCH_SIZE": "32",
            "TRAIN_STEPS_PER_S": "20",
            "WS_PING_INTERVAL": "5",
            # A planted burst costs six octaves; at 2000 steps a growth they would not be back within the hour.
            "GRAD_SCALER_GROWTH_INTERVAL": "25",
            "GRAD_SCALER_GROWTH_FACTOR": "1.5",
        },
    )


def replay(file_name: str, fingerprint: str, speed: str, exchange_command: ExchangeCommand) -> Source:
    """A recorded market, from its first trade on. Its trades are as old as the file, so no age limit applies to them."""
    return Source(
        Mode.REPLAY,
        f"replay-{fingerprint}",
        note=_replay_note(file_name, speed),
        exchange_command=exchange_command,
        mode_defaults={"BACKFILL_START": "earliest", "DEMO_OVERFLOW_EVERY": "0", "WS_PING_INTERVAL": "5"},
        forced={"BACKFILL_MAX_AGE_H": "1e9", "STORE_RETENTION_DAYS": "0"},
    )


def recording(file: Path, fingerprint: str, speed: str) -> Source:
    """What a stream met, message by message: its trades are as old as the file, and what it lost is not to be had elsewhere."""
    return Source(
        Mode.REPLAY,
        f"replay-{fingerprint}",
        note=_replay_note(file.name, speed),
        mode_defaults={"DEMO_OVERFLOW_EVERY": "0"},
        forced={"BACKFILL_MAX_AGE_H": "1e9", "STORE_RETENTION_DAYS": "0"},
        recording=file,
        speed=speed,
    )


def _replay_note(file_name: str, speed: str) -> str:
    return f"replay of {escaped(file_name)} at {speed if speed == 'max' else speed + 'x'}"
