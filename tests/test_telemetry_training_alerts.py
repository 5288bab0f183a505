"""Alerts about training: what raises each, what it says, and that it neither flickers nor stays for ever."""

from __future__ import annotations

import pytest

from quantai_tui.telemetry import (
    TOO_HOT,
    Alert,
    AlertBook,
    EngineSnapshot,
    GpuSnapshot,
    OverflowSnapshot,
    RankSnapshot,
    Severity,
    TrainingSnapshot,
    TrainingState,
)

STUCK = "100 losses in a row were not finite: no scale cures that. Look for NaN or Inf in data and weights"


def book() -> AlertBook:
    return AlertBook(lambda: 600.0)


def at(uptime_s: float = 100.0, **training: object) -> EngineSnapshot:
    known = {"state": TrainingState.TRAINING, **training}
    return EngineSnapshot(time=1e9 + uptime_s, uptime_s=uptime_s, training=TrainingSnapshot(**known))  # type: ignore[arg-type]


def the_one(alerts: tuple[Alert, ...]) -> Alert:
    (alert,) = alerts
    return alert


def test_a_pause_that_training_made_itself_is_critical_with_what_was_seen_and_goes_when_it_goes_on() -> None:
    alerts = book()
    assert alerts.evaluate(at(state=TrainingState.PAUSED)) == ()  # the operator's own pause is no news
    raised = the_one(alerts.evaluate(at(state=TrainingState.PAUSED, paused_because=STUCK)))
    assert raised.key == "training-paused"
    assert raised.severity is Severity.CRITICAL
    assert raised.text == f"training has paused itself: {STUCK}"
    assert "space goes on" in raised.remedy
    assert the_one(alerts.evaluate(at(900.0, state=TrainingState.PAUSED, paused_because=STUCK))).since == raised.since
    assert alerts.evaluate(at(901.0)) == ()


def ranks(*slow: int, count: int = 4) -> tuple[RankSnapshot, ...]:
    return tuple(RankSnapshot(rank, f"host{rank}", 10 + rank, "cuda:0", 5, 20.0, 0, rank in slow) for rank in range(count))


def test_a_rank_that_is_slow_for_ten_seconds_is_a_warning_and_one_slow_moment_is_none() -> None:
    alerts = book()
    assert alerts.evaluate(at(100.0, ranks=ranks(2))) == ()
    assert alerts.evaluate(at(109.0, ranks=ranks())) == ()  # it caught up: counted from the beginning again
    assert alerts.evaluate(at(110.0, ranks=ranks(2))) == ()
    assert alerts.evaluate(at(119.9, ranks=ranks(2))) == ()
    raised = the_one(alerts.evaluate(at(120.0, ranks=ranks(2))))
    assert (raised.text, raised.severity) == ("rank 2 on host2 holds the other ranks up", Severity.WARNING)


def test_the_warning_of_a_slow_rank_stands_until_it_has_kept_up_for_half_a_minute() -> None:
    alerts = book()
    for uptime_s in (100.0, 110.0):
        alerts.evaluate(at(uptime_s, ranks=ranks(1)))
    raised = the_one(alerts.evaluate(at(120.0, ranks=ranks(1, 3))))
    assert raised.text == "rank 1 on host1 holds the other ranks up"
    assert the_one(alerts.evaluate(at(130.0, ranks=ranks(3)))).text.startswith("rank 1 on host1, rank 3 on host3 hold the other")
    assert the_one(alerts.evaluate(at(149.9, ranks=ranks(3)))).since == raised.since
    assert the_one(alerts.evaluate(at(150.0, ranks=ranks(3)))).text == "rank 3 on host3 holds the other ranks up"
    assert alerts.evaluate(at(180.0, ranks=ranks())) == ()


def test_slow_ranks_of_a_worker_that_has_gone_are_no_longer_told() -> None:
    alerts = book()
    alerts.evaluate(at(100.0, ranks=ranks(1)))
    assert alerts.evaluate(at(111.0, ranks=ranks(1))) != ()
    assert alerts.evaluate(at(112.0, ranks=())) == ()


def gpu(uuid: str = "GPU-1a2b3c4d-ffff", *throttle: str, ecc: int | None = 0) -> GpuSnapshot:
    return GpuSnapshot(uuid, "NVIDIA A100", ecc_errors=ecc, throttle=throttle)


def test_a_card_that_is_slowed_by_heat_is_told_until_it_has_been_cool_for_a_minute() -> None:
    alerts = book()
    assert alerts.evaluate(at(gpus=(gpu("GPU-1", "power limit", "clocks set by hand"),))) == ()
    raised = the_one(alerts.evaluate(at(100.0, gpus=(gpu("GPU-1a2b3c4d-ffff", f"{TOO_HOT} (driver)"),))))
    assert (raised.text, raised.severity) == ("NVIDIA A100 (1a2b3c4d) is too hot and slowed down", Severity.WARNING)
    assert the_one(alerts.evaluate(at(130.0, gpus=(gpu(),)))) == raised
    assert the_one(alerts.evaluate(at(140.0, gpus=(gpu("GPU-1a2b3c4d-ffff", f"{TOO_HOT} (driver)"),)))) == raised
    assert the_one(alerts.evaluate(at(199.0, gpus=(gpu(),)))) == raised
    assert alerts.evaluate(at(200.0, gpus=(gpu(),))) == ()


def test_only_memory_errors_since_the_start_are_told_and_they_stay() -> None:
    alerts = book()
    assert alerts.evaluate(at(gpus=(gpu(ecc=7),))) == ()
    assert alerts.evaluate(at(gpus=(gpu(ecc=None),))) == ()
    raised = the_one(alerts.evaluate(at(gpus=(gpu(ecc=9), gpu("GPU-other")))))
    assert raised.text == "uncorrected memory errors since the start: 2 on NVIDIA A100 (1a2b3c4d)"
    assert raised.severity is Severity.WARNING
    assert the_one(alerts.evaluate(at(gpus=(), gpu_note="n/a"))) == raised
    assert the_one(alerts.evaluate(at(9e5, gpus=(gpu(ecc=9),)))) == raised


def test_a_driver_that_was_loaded_anew_counts_memory_errors_from_zero() -> None:
    alerts = book()
    assert alerts.evaluate(at(gpus=(gpu(ecc=7),))) == ()
    assert alerts.evaluate(at(gpus=(gpu(ecc=0),))) == ()
    assert "1 on NVIDIA A100" in the_one(alerts.evaluate(at(gpus=(gpu(ecc=1),)))).text


def test_of_many_hot_cards_three_are_named() -> None:
    hot = tuple(gpu(f"GPU-{index:08d}-x", f"{TOO_HOT} (hardware)") for index in range(8))
    text = the_one(book().evaluate(at(gpus=hot))).text
    assert text.endswith("NVIDIA A100 (00000002) and 5 more are too hot and slowed down")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("data", "; the last: input not finite"),
        ("target", "; the last: target or loss"),
        ("forward", "; the last: forward pass"),
        ("scale", ""),
        ("gradient", ""),
    ],
)
def test_what_is_not_finite_names_its_cause_where_the_data_or_the_model_is_to_blame(cause: str, words: str) -> None:
    last = OverflowSnapshot(1e9, 812, cause)
    text = the_one(book().evaluate(at(nonfinite_loss=3, last_overflow=last))).text
    assert text == f"3 steps with NaN or Inf in loss or data{words}"
    assert the_one(book().evaluate(at(nonfinite_loss=3))).text == "3 steps with NaN or Inf in loss or data"
