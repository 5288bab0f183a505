"""Arguments of the public classes are normalised, or refused by name before anything starts."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from quantai_tui.arguments import typed_number
from quantai_tui.cli import cli
from quantai_tui.settings.model import Settings
from quantai_tui.stream import (
    ExponentialBackoffReconnector,
    Gate,
    ResilientStream,
    RestClient,
    StreamConfig,
    SymbolLedger,
    WebSocketHeartbeat,
)
from quantai_tui.training import DynamicGradScalerConfig, TrainingSupervisor, WorkerConfig

NAN, INF = float("nan"), float("inf")
WRONG = (None, "1", b"1", [], object(), 1 + 2j, np.array(1.0), NAN, INF, -INF, -1, 10**400, np.float64("nan"))


def config(**values: object) -> StreamConfig:
    return StreamConfig(**{"symbols": ("ETHUSDT",), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        ("ethusdt", "BtcUsdt"),
        ["ETHUSDT", "BTCUSDT"],
        (" ETHUSDT", "BTCUSDT\n"),
        (name for name in ("ethusdt", "btcusdt")),
        {"ETHUSDT": 1, "BTCUSDT": 2}.keys(),
    ],
)
def test_symbols_are_normalised(given: object) -> None:
    assert config(symbols=given).symbols == ("ETHUSDT", "BTCUSDT")


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ("ETHUSDT", TypeError, r"symbols must be a tuple.*write symbols=\('ETHUSDT',\)"),
        (b"ETHUSDT", TypeError, "symbols must be a tuple of symbols, got the text b'ETHUSDT'"),
        (None, TypeError, "symbols must be a tuple"),
        (7, TypeError, "symbols must be a tuple"),
        ({"ETHUSDT": 1}, TypeError, "symbols must be a tuple"),
        (("ETHUSDT", None), TypeError, "symbols must hold text"),
        ((), ValueError, "symbols is empty"),
        (iter(()), ValueError, "symbols is empty"),
        (("",), ValueError, "symbols has ''"),
        (("ETH USDT",), ValueError, "symbols has 'ETH USDT'"),
        (("ETHUSDT,BTCUSDT",), ValueError, "symbols has 'ETHUSDT,BTCUSDT'"),
        (("ETHUSDT@aggTrade",), ValueError, "symbols has"),
        (("ETH-USDT",), ValueError, "symbols has 'ETH-USDT'; a symbol is 2 to 20 letters, digits and underscores"),
        (("ETHU\u00dfDT",), ValueError, "symbols has"),
        (("\uff25\uff34\uff28",), ValueError, "symbols has"),
        (("ETHUSDT", "ethusdt"), ValueError, "symbols has ETHUSDT twice"),
        ((f"S{number}" for number in range(10**9)), ValueError, "more than 1024"),
    ],
)
def test_invalid_symbols_are_refused(given: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        config(symbols=given)


NUMBERS = [field.name for field in fields(StreamConfig) if field.type in ("int", "float")]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_of_a_stream_config_is_checked(name: str) -> None:
    for wrong in (*WRONG, True):
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
            config(**{name: wrong})


@pytest.mark.parametrize("name", ["max_retries", "buffer_trades", "reorder_trades"])
def test_counts_must_be_whole_numbers(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a whole number, such as"):
        config(**{name: 1.5})


def test_numpy_numbers_become_python_numbers() -> None:
    made = config(max_retries=np.int64(3), jitter=np.float32(0.25), initial_delay=np.int32(2), backfill_start=np.int64(7))
    assert (made.max_retries, made.jitter, made.initial_delay, made.backfill_start) == (3, 0.25, 2.0, 7)
    kinds = [type(one) for one in (made.max_retries, made.jitter, made.initial_delay, made.backfill_start)]
    assert kinds == [int, float, float, int]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_delay": 0.5}, "max_delay must be .* at least 1"),
        ({"backoff_factor": 1}, "backoff_factor must be .* above 1"),
        ({"jitter": 1.0}, "jitter must be .* below 1"),
        ({"ping_interval": 0}, "ping_interval must be .* above 0"),
        ({"buffer_trades": 0}, "buffer_trades must be .* at least 1"),
        ({"exit_on_failure": 1}, "exit_on_failure must be True or False"),
        ({"exit_on_failure": None}, "exit_on_failure must be True or False"),
        ({"order": "time"}, "order must be one of id, arrival"),
        ({"order": None}, "order must be one of"),
        ({"transport": "curl"}, "transport must be one of auto, websockets, picows"),
        ({"transport": None}, "transport must be text"),
        ({"ws_url": None}, "ws_url must be text"),
        ({"rest_url": b"https://x"}, "rest_url must be text"),
        ({"rest_url": " "}, "rest_url is empty"),
        ({"ca_file": 7}, "ca_file must be a path"),
        ({"ca_file": b"ca.pem"}, "ca_file must be a path"),
        ({"backfill_start": None}, "BACKFILL_START"),
        ({"backfill_start": True}, "BACKFILL_START"),
        ({"backfill_start": 1.0}, "BACKFILL_START"),
        ({"backfill_start": -1}, "BACKFILL_START"),
        ({"backfill_start": "yesterday"}, "BACKFILL_START"),
        ({"backfill_start": "\uff11\uff12"}, "BACKFILL_START"),
        ({"backfill_start": "1_0"}, "BACKFILL_START"),
    ],
)
def test_other_fields_of_a_stream_config_are_checked(changes: dict[str, object], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        config(**changes)


@pytest.mark.parametrize("name", ["proxy", "ws_url", "rest_url"])
def test_a_wrong_address_is_refused_without_being_shown(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be text") as caught:
        config(**{name: b"https://joe:secret@proxy"})
    assert "secret" not in str(caught.value)


def test_paths_and_empty_values_are_normalised() -> None:
    made = config(ca_file=Path("ca.pem"), proxy="", backfill_start="12")
    assert (made.ca_file, made.proxy, made.backfill_start) == ("ca.pem", None, 12)
    assert config(ca_file="").ca_file is None


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ResilientStream(StreamConfig), "config must be a StreamConfig"),  # type: ignore[arg-type]
        (lambda: ResilientStream({"symbols": ("ETHUSDT",)}), "config must be a StreamConfig"),  # type: ignore[arg-type]
        (lambda: ResilientStream(config(), object()), "sink must have the methods of TradeSink; .* lacks append"),  # type: ignore[arg-type]
        (lambda: WebSocketHeartbeat(None), "ping must be a function"),  # type: ignore[arg-type]
        (lambda: WebSocketHeartbeat(lambda payload: None, interval=0), "interval must be"),  # type: ignore[arg-type]
        (lambda: WebSocketHeartbeat(lambda payload: None, timeout=NAN), "timeout must be"),  # type: ignore[arg-type]
        (lambda: ExponentialBackoffReconnector("1"), "initial_delay must be a number"),  # type: ignore[arg-type]
        (lambda: ExponentialBackoffReconnector(max_delay=NAN), "max_delay must be"),
        (lambda: ExponentialBackoffReconnector(max_retries=1.5), "max_retries must be a whole number"),  # type: ignore[arg-type]
        (lambda: ExponentialBackoffReconnector(stable_after=-1.0), "stable_after must be"),
        (lambda: Gate(path=7), "path must be a path"),  # type: ignore[arg-type]
        (lambda: Gate(scope=None), "scope must be text"),  # type: ignore[arg-type]
        (lambda: RestClient(None, lambda: None, Gate()), "base_url must be an address"),  # type: ignore[arg-type, return-value]
        (lambda: SymbolLedger(max_gaps=0), "max_gaps must be"),
        (lambda: SymbolLedger(max_gaps=2.5), "max_gaps must be a whole number"),  # type: ignore[arg-type]
    ],
)
def test_public_classes_of_the_stream_refuse_wrong_arguments(make, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        make()


WORKER_NUMBERS = [name for name, kind in WorkerConfig.__annotations__.items() if kind in ("int", "float")]


@pytest.mark.parametrize("name", WORKER_NUMBERS)
def test_every_number_of_a_worker_config_is_checked(name: str) -> None:
    for wrong in (*WRONG, True):
        with pytest.raises((TypeError, ValueError), match=f"{name}.* must "):
            WorkerConfig(store_path="store.db", symbol="ETHUSDT", **{name: wrong})


@pytest.mark.parametrize("name", ["store_path", "symbol", "device", "policy", "checkpoint_dir", "power_of_two", "auto_reset"])
def test_texts_and_switches_of_a_worker_config_are_checked(name: str) -> None:
    for wrong in (None, 1, b"x", ["x"]):
        with pytest.raises((TypeError, ValueError), match=name):
            WorkerConfig(**{"store_path": "store.db", "symbol": "ETHUSDT", name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["growth_factor", "growth_interval", "max_scale", "min_scale", "backoff_factor", "model_param_count"]
)
def test_every_number_of_a_scaler_config_is_checked(name: str) -> None:
    for wrong in (*WRONG, True):
        with pytest.raises((TypeError, ValueError), match=name):
            DynamicGradScalerConfig(**{"model_param_count": 10, name: wrong})  # type: ignore[arg-type]


def test_a_worker_config_of_numpy_numbers_can_be_sent() -> None:
    import msgspec

    made = WorkerConfig(store_path="store.db", symbol="ETHUSDT", seed=np.int64(3), learning_rate=np.float64(0.5))
    assert msgspec.json.decode(msgspec.json.encode(made), type=WorkerConfig) == made


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": {}}, "config must be a WorkerConfig"),
        ({"socket_path": None}, "socket_path must be a path"),
        ({"log_path": 3}, "log_path must be a path"),
        ({"grace_s": NAN}, "grace_s must be"),
        ({"silence_s": 0}, "silence_s must be"),
        ({"max_restarts": -1}, "max_restarts must be"),
        ({"max_restarts": True}, "max_restarts must be a whole number"),
    ],
)
def test_a_training_supervisor_refuses_wrong_arguments(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    worker = WorkerConfig(store_path="store.db", symbol="ETHUSDT")
    values = {"config": worker, "socket_path": tmp_path / "s", "log_path": tmp_path / "log", **changes}
    with pytest.raises((TypeError, ValueError), match=told):
        TrainingSupervisor(values.pop("config"), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1", "-2", "+3.5", ".5", "5.", "1e3", " 7 ", "1E-2"])
def test_a_typed_number_may_have_sign_point_and_exponent(text: str) -> None:
    assert typed_number(text) == float(text)


@pytest.mark.parametrize("text", ["", "1_0", "\uff11", "\u0661", "inf", "nan", "0x1", "1e999", "1" * 1000, "1 2", "one"])
def test_a_typed_number_is_finite_and_in_plain_digits(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number in plain digits"):
        typed_number(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--for", "1_0"),
        ("demo", "--for", "inf"),
        ("demo", "--for", "nan"),
        ("demo", "--seed", "1_0"),
        ("demo", "--seed", "\uff17"),
        ("record", "--max-mb", "1_0"),
        ("replay", "FILE", "--speed", "1_0"),
        ("replay", "FILE", "--speed", "\uff11"),
    ],
)
def test_command_line_accepts_only_plain_numbers(arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "ETHUSDT-aggTrades-2024-01.csv"
    file.write_text("1,1.0,1.0,1,1,1,true,true\n")
    done = CliRunner().invoke(cli, [str(file) if one == "FILE" else one for one in arguments])
    assert done.exit_code == 2
    assert arguments[-2] in done.output


@pytest.mark.parametrize("name", ["WS_RECONNECT_MAX_RETRIES", "WS_PING_INTERVAL"])
def test_numeric_settings_accept_only_plain_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("1_0", "1_0.5", "\uff11", "inf"):
        monkeypatch.setenv(name, text)
        with pytest.raises(ValueError, match=name):
            Settings()
    monkeypatch.setenv(name, "10")
    assert getattr(Settings(), name) == 10
