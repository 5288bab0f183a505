"""What may be configured: every setting with its type, default, unit, range, and what applying a change takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from . import checks
from .field import setting
from .rules import CROSS_RULES

# A loss scale and its reciprocal must both be normal fp32 numbers.
_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-126, 2.0**127

_BASE_PATH = r"(/[^\s?#]*)?"


class Settings(BaseSettings):
    """All settings, under the same flat upper-case names everywhere.

    `Settings()` reads the environment and `.env`, and raises `SettingsProblems` if they are invalid. `settings.load` adds
    `config.toml` and the command line, and records the origin of each value.
    """

    model_config = SettingsConfigDict(
        extra="ignore",
        case_sensitive=True,
        allow_inf_nan=False,
        validate_default=True,
        frozen=True,
        hide_input_in_errors=True,  # it may be a password
    )

    # Market
    SYMBOLS: Annotated[tuple[str, ...], NoDecode] = setting(
        ("ETHUSDT",),
        "Market",
        "Symbols",
        "What to listen to, as Binance spells it; comma-separated.",
        applies="restart",
        min_length=1,
        max_length=100,
    )
    BACKFILL_START: str = setting(
        "now",
        "Market",
        "Backfill start",
        "Where the record of a symbol begins when nothing is stored yet: now, earliest, or an aggregate trade id.",
        pattern=r"now|earliest|[0-9]{1,18}",
        coerce_numbers_to_str=True,  # an id looks like a number, and in TOML it may be one
    )
    BACKFILL_MAX_AGE_H: float = setting(
        24.0,
        "Market",
        "Backfill at most",
        "How old an outage may be and still be repaired; what is older is named unrecoverable by choice.",
        unit="h",
        applies="reconnect",
        gt=0,
    )
    STORE_RETENTION_DAYS: float = setting(
        30.0, "Market", "Keep trades for", "Trades older than this are deleted; 0 keeps all. Bars stay.", unit="days", le=36500
    )
    EXCHANGE_WS_URL: str = setting(
        "wss://stream.binance.com:9443",
        "Market",
        "Stream address",
        "Base address of the market-data stream; TLS only.",
        pattern=r"wss://[^/\s?#]+" + _BASE_PATH,
    )
    EXCHANGE_REST_URL: str = setting(
        "https://api.binance.com",
        "Market",
        "REST address",
        "Base address for history and repair; TLS only.",
        pattern=r"https://[^/\s?#]+" + _BASE_PATH,
    )
    EXCHANGE_CA_FILE: str = setting(
        "", "Market", "Extra CA file", "A PEM file of certificate authorities to trust besides the system's; empty for none."
    )
    PROXY_URL: str = setting(
        "",
        "Market",
        "Proxy",
        "For stream and REST: http://host:port or socks5://host:port; empty: as HTTPS_PROXY and ALL_PROXY say; none: never.",
        applies="restart",
        pattern=r"((?i:https?|socks(5h?)?)://[^/\s?#]+/?|none)?",
        repr=False,  # it may carry a password
    )
    DATA_DIR: str = setting(
        "", "Market", "Data folder", "Where stores, checkpoints and logs live; empty for the system's usual place."
    )

    # Stream
    WS_RECONNECT_INITIAL_DELAY: float = setting(
        1.0, "Stream", "First reconnect delay", "Wait before the first retry.", unit="s", applies="reconnect", gt=0
    )
    WS_RECONNECT_MAX_DELAY: float = setting(
        60.0, "Stream", "Longest reconnect delay", "The backoff stops growing here.", unit="s", applies="reconnect", gt=0
    )
    WS_RECONNECT_BACKOFF_FACTOR: float = setting(
        2.0, "Stream", "Backoff factor", "Each delay is the one before times this.", applies="reconnect", gt=1
    )
    WS_RECONNECT_MAX_RETRIES: int = setting(
        10,
        "Stream",
        "Retries",
        "Failed attempts in a row before the stream cools down, or fails; 0 means unlimited.",
        applies="reconnect",
        ge=0,
    )
    WS_RECONNECT_JITTER: float = setting(
        0.1,
        "Stream",
        "Jitter",
        "Random share of each delay, so that many clients do not return at once.",
        applies="reconnect",
        ge=0,
        le=0.5,
    )
    WS_RECONNECT_COOLDOWN: float = setting(
        300.0,
        "Stream",
        "Cool-down",
        "Time between single probes once the retries are used up; 0 stops for good.",
        unit="s",
        applies="reconnect",
        ge=0,
    )
    WS_PING_INTERVAL: float = setting(
        30.0, "Stream", "Ping every", "Time between our own heartbeats.", unit="s", applies="reconnect", gt=0
    )
    WS_PONG_TIMEOUT: float = setting(
        10.0, "Stream", "Pong within", "No pong for so long and the link is taken for dead.", unit="s", applies="reconnect", gt=0
    )
    WS_SSL_TIMEOUT: float = setting(
        30.0, "Stream", "TLS handshake within", "Limit of the TLS handshake.", unit="s", applies="reconnect", gt=0
    )
    WS_MESSAGE_TIMEOUT: float = setting(
        1200.0, "Stream", "Silence limit", "No data for so long: reconnect.", unit="s", applies="reconnect", gt=0
    )
    WS_MESSAGE_WARNING_TIMEOUT: float = setting(
        600.0, "Stream", "Silence warning", "No data for so long: alert.", unit="s", applies="reconnect", gt=0
    )

    WS_ROTATE_AFTER: float = setting(
        84_600.0,
        "Stream",
        "Replace connections after",
        "A connection so old is replaced by a fresh one without a break; the venue ends each after 24 h (86400 s).",
        unit="s",
        applies="reconnect",
        ge=60,
    )
    WS_TRANSPORT: Literal["auto", "websockets", "picows"] = setting(
        "auto",
        "Stream",
        "Transport",
        "The library that carries the frames; auto is picows where it is installed (the extra `fast`), else websockets.",
        applies="reconnect",
    )
    WS_RECORD_MAX_MB: float = setting(
        256.0,
        "Stream",
        "Recording at most",
        "A recording of the raw stream ends at this size on disk.",
        unit="MB",
        applies="live",
        gt=0,
        le=100_000,
    )

    # Scaler
    GRAD_SCALER_GROWTH_FACTOR: float = setting(
        1.2, "Scaler", "Growth factor", "The scale grows by this after each whole growth interval.", gt=1, le=1024
    )
    GRAD_SCALER_GROWTH_INTERVAL: int = setting(
        2000, "Scaler", "Growth interval", "Steps without overflow before the scale grows.", unit="steps", ge=1
    )
    GRAD_SCALER_MAX_SCALE: float = setting(
        100000.0, "Scaler", "Highest scale", "The scale never exceeds it.", ge=_SMALLEST_SCALE, le=_LARGEST_SCALE
    )
    GRAD_SCALER_MIN_SCALE: float = setting(
        1.0,
        "Scaler",
        "Lowest scale",
        "The scale never falls below it; without a floor 1/scale overflows fp32 and ruins the weights.",
        ge=_SMALLEST_SCALE,
        le=_LARGEST_SCALE,
    )
    GRAD_SCALER_BACKOFF_FACTOR: float = setting(
        0.5, "Scaler", "Backoff factor", "The scale is multiplied by this after an overflow.", gt=0, lt=1
    )
    GRAD_SCALER_POWER_OF_TWO: bool = setting(
        False,
        "Scaler",
        "Powers of two",
        "Keep the scale at powers of two, which scale without rounding: growth by 1.2 becomes growth by 2 four times as rarely.",
    )
    GRAD_SCALER_POLICY: Literal["grow", "amax"] = setting(
        "grow",
        "Scaler",
        "Policy",
        "grow: grow and back off; amax: follow the largest gradient of the last 64 steps, 2 bits below overflow.",
    )
    GRAD_SCALER_CALIBRATE: bool = setting(
        False, "Scaler", "Calibrate", "Measure the first backward pass and start at most a quarter below overflow."
    )
    GRAD_SCALER_AUTO_RESET: bool = setting(
        True, "Scaler", "Automatic resets", "False switches every automatic reset off (the roll-back switch)."
    )
    GRAD_SCALER_RESET_THRESHOLD_EPOCHS: int = setting(
        3, "Scaler", "Abnormal epochs", "So many abnormal epochs in a row reset the scale.", unit="epochs", ge=1
    )
    GRAD_SCALER_MAX_CONSECUTIVE_OVERFLOW: int = setting(
        5, "Scaler", "Overflows in a row", "So many overflows in a row reset the scale.", unit="steps", ge=1
    )

    # Training
    TRAIN_SYMBOL: str = setting("", "Training", "Symbol", "The symbol to learn; empty for the first of SYMBOLS.")
    TRAIN_DEVICE: str = setting("auto", "Training", "Device", "auto, cpu, cuda or cuda:N.")
    TRAIN_PRECISION: Literal["auto", "fp16", "bf16", "fp32"] = setting(
        "auto", "Training", "Precision", "auto is fp16 with the gradient scaler; bf16 and fp32 need no scaler."
    )
    TRAIN_MODEL: Literal["tiny", "small", "medium", "large"] = setting(
        "tiny", "Training", "Model size", "Transformer of about 10 k, under 1 M, 1 to 10 M, or over 10 M parameters."
    )
    BAR_INTERVAL: Literal["1s", "1m", "5m", "15m", "1h"] = setting(
        "1m", "Training", "Bar interval", "Length of the bars that the model reads."
    )
    WARMUP_BARS: int = setting(
        1500, "Training", "Warm-up bars", "Bars of history fetched at the start.", unit="bars", ge=0, le=20000
    )
    TRAIN_BARS: int = setting(
        20000,
        "Training",
        "Bars an epoch",
        "An epoch reads at most so many of the newest bars.",
        unit="bars",
        ge=300,
        le=1_000_000,
    )
    TRAIN_WINDOW: int = setting(32, "Training", "Window", "Bars that the model sees at a time.", unit="bars", ge=4, le=512)
    TRAIN_HORIZON: int = setting(5, "Training", "Horizon", "Bars ahead whose direction it predicts.", unit="bars", ge=1, le=240)
    TRAIN_BATCH_SIZE: int = setting(64, "Training", "Batch size", "Windows in one step.", unit="windows", ge=2, le=4096)
    TRAIN_LEARNING_RATE: float = setting(0.001, "Training", "Learning rate", "Peak rate of AdamW, after warm-up.", gt=0, le=1)
    TRAIN_ACCUMULATION: int = setting(
        1, "Training", "Accumulation", "Batches whose gradients are added up for one step.", unit="batches", ge=1, le=1024
    )
    TRAIN_WARMUP_STEPS: int = setting(
        200, "Training", "Warm-up steps", "Steps over which the learning rate rises to its peak.", unit="steps", ge=0
    )
    TRAIN_SCHEDULE: Literal["auto", "constant", "cosine"] = setting(
        "auto",
        "Training",
        "Schedule",
        "After warm-up: constant, or cosine down to a tenth at TRAIN_EPOCHS; auto: cosine if it has an end.",
    )
    TRAIN_EPOCHS: int = setting(
        0, "Training", "Epochs", "Training ends after so many; 0 goes on with the market.", unit="epochs", ge=0
    )
    TRAIN_CHECKPOINT_EVERY_S: float = setting(
        300.0,
        "Training",
        "Checkpoint every",
        "Time between checkpoints; one more is written at a stop. 0 writes those asked for only.",
        unit="s",
        ge=0,
    )
    TRAIN_CHECKPOINTS_KEPT: int = setting(
        3, "Training", "Checkpoints kept", "The newest so many are kept, and the best one.", unit="files", ge=1, le=1000
    )
    TRAIN_NPROC: int = setting(
        1, "Training", "Processes", "Worker processes on this machine, one per GPU; above 1 they run under torchrun.", ge=1, le=64
    )
    TRAIN_NNODES: int = setting(1, "Training", "Machines", "Machines that train together, this one included.", ge=1, le=1024)
    TRAIN_RDZV_ENDPOINT: str = setting(
        "",
        "Training",
        "Rendezvous",
        "host:port of this machine at which the machines of one run meet; empty for one machine.",
        pattern=r"([^\s:/]+:[0-9]{1,5})?",
    )
    TRAIN_STEPS_PER_S: float = setting(
        0.0, "Training", "Steps per second at most", "Spares a shared machine; 0 for no limit.", unit="1/s", ge=0
    )
    TRAIN_SEED: int = setting(7, "Training", "Seed", "Start of the model's random numbers.", ge=0)
    TRAIN_AUTOSTART: bool = setting(True, "Training", "Start by itself", "Start training together with the engine.")
    DEMO_OVERFLOW_EVERY: float = setting(
        45.0,
        "Training",
        "Demo: overflow every",
        "In the demo an overflow burst is planted so often, and said on the screen; 0 for never.",
        unit="s",
        ge=0,
    )

    # Program
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", "Program", "Log level", "The least severe message that is logged.", applies="live"
    )
    CONFIG_CONFIRM_S: float = setting(
        30.0,
        "Program",
        "Confirm settings within",
        "Saved settings that touch the stream or the worker are undone by themselves unless confirmed in time; 0: never.",
        unit="s",
        applies="live",
        ge=0,
        le=3600,
    )
    THEME: str = setting(
        "", "Program", "Theme", "Name of the dashboard's theme; empty for the default.", applies="live", pattern=r"[a-z0-9-]*"
    )
    KEYS: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Program",
        "Keys",
        "Keys of the dashboard that are not the default: action=key, comma-separated, as in rotate=ctrl+r,quit=x.",
        applies="live",
        max_length=100,
    )

    _check_text = field_validator("*", mode="before")(checks.usable_text)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        kind = cls.model_fields[str(info.field_name)].annotation
        if kind in {int, float} and (isinstance(value, bool) or (isinstance(value, str) and "_" in value)):
            # pydantic would accept true as 1, and the text 1_0 as 10
            raise PydanticCustomError("int_type" if kind is int else "float_type", "must be a number")
        return value

    _any_case = field_validator("LOG_LEVEL", mode="before")(checks.upper)
    _split_lists = field_validator("SYMBOLS", "KEYS", mode="before")(checks.split_list)
    _check_symbols = field_validator("SYMBOLS")(checks.symbols)
    _check_keys = field_validator("KEYS")(checks.moved_keys)
    _check_train_symbol = field_validator("TRAIN_SYMBOL")(checks.symbol_or_none)
    _check_device = field_validator("TRAIN_DEVICE")(checks.device)
    _check_endpoint = field_validator("TRAIN_RDZV_ENDPOINT")(checks.endpoint)
    _check_retention = field_validator("STORE_RETENTION_DAYS")(checks.retention)
    _check_address = field_validator("EXCHANGE_WS_URL", "EXCHANGE_REST_URL", "PROXY_URL")(checks.address)
    _check_proxy = field_validator("PROXY_URL", mode="before")(checks.whole_address)
    _check_venue = field_validator("EXCHANGE_WS_URL", "EXCHANGE_REST_URL", mode="before")(checks.no_credentials)
    _check_ca_file = field_validator("EXCHANGE_CA_FILE")(checks.readable_file)

    @model_validator(mode="after")
    def _check_across(self) -> Self:
        for rule in CROSS_RULES:
            if not rule.holds(self):
                raise PydanticCustomError(
                    "cross_rule", "must be {rule}", {"key": rule.key, "other": rule.other, "rule": rule.text}
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        from .bare import shared_values  # imports the names of this model

        return init_settings, InitSettingsSource(settings_cls, shared_values())

    @property
    def train_symbol(self) -> str:
        """The symbol that training reads, whether or not it is set."""
        return self.TRAIN_SYMBOL or self.SYMBOLS[0]
