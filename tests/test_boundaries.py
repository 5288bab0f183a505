"""Who loads what: each room in a fresh interpreter, and what must not be in `sys.modules` afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "textual", "pydantic", "aiohttp", "websockets", "numpy")
OURS = ("market", "stream", "training", "engine", "exchange", "ui", "cli")


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(chr(10).join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def rooms(modules: set[str]) -> set[str]:
    return {name for name in OURS if f"quantai_tui.{name}" in modules}


@pytest.mark.parametrize(
    ("module", "absent", "reached"),
    [
        ("quantai_tui.telemetry", HEAVY, set()),
        ("quantai_tui.settings", HEAVY, set()),
        ("quantai_tui.link", HEAVY, set()),
        ("quantai_tui.cli", HEAVY, {"cli"}),
        ("quantai_tui.ui.app", ("torch", "pydantic", "aiohttp", "websockets", "numpy"), {"ui"}),
        ("quantai_tui.engine.launch", HEAVY, {"engine"}),
        ("quantai_tui.market", ("torch", "textual", "pydantic", "aiohttp", "numpy"), {"market"}),
        ("quantai_tui.stream", ("torch", "textual", "aiohttp", "numpy"), {"market", "stream"}),
        ("quantai_tui.training", ("torch", "textual"), {"training"}),
        ("quantai_tui.training.supervisor", ("torch", "textual", "numpy"), {"training"}),
        ("quantai_tui.training.reporter", ("torch", "textual", "numpy", "pydantic"), {"training"}),
        ("quantai_tui.engine.engine", ("torch", "textual"), {"market", "stream", "training", "engine"}),
        ("quantai_tui.exchange.process", ("torch", "textual", "pydantic"), {"market", "exchange"}),
    ],
)
def test_a_room_loads_no_more_than_it_may(module: str, absent: tuple[str, ...], reached: set[str]) -> None:
    modules = loaded_by(module)
    assert not modules & set(absent)
    assert rooms(modules) <= reached


def test_the_public_names_stay_where_they_are() -> None:
    from quantai_tui import stream, training

    for name in (
        "ReconnectRecord",
        "WebSocketErrorType",
        "ExponentialBackoffReconnector",
        "WebSocketHeartbeat",
        "ResilientStream",
    ):
        assert hasattr(stream, name), name
    for name in ("ScaleRecord", "DynamicGradScalerConfig", "GradScalerMonitor"):
        assert hasattr(training, name), name
    assert [kind.name for kind in stream.WebSocketErrorType] == [
        "SSL_ERROR",
        "NETWORK_ERROR",
        "TIMEOUT_ERROR",
        "PROTOCOL_ERROR",
        "UNKNOWN_ERROR",
    ]
