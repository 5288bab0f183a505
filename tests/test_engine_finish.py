"""When a replay is over, by a snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from quantai_tui.engine.finish import is_finished
from quantai_tui.telemetry import EngineSnapshot, StoreSnapshot, StreamSnapshot, SymbolSnapshot, TrainingSnapshot, TrainingState

LAST_S = 6000.0


def over(
    state: TrainingState, epochs_done: int, *, through: float | None = LAST_S - 60, trains: bool = True, **changes: Any
) -> bool:
    """Whether a replay is over whose file is played and stored, with its last trade at LAST_S."""
    snapshot = EngineSnapshot(
        replay_progress=changes.get("progress", 1.0),
        stream=StreamSnapshot(symbols={"ETHUSDT": SymbolSnapshot(last_trade_time=LAST_S)}),
        store=StoreSnapshot("path", 0, changes.get("queued", 0), False),
        training=TrainingSnapshot(state=state, epochs_done=epochs_done, data_through_time=through),
    )
    return is_finished(snapshot, trains=trains, epochs=changes.get("epochs", 0), symbol="ETHUSDT", interval_s=60)


def test_without_training_a_replay_is_over_once_it_is_stored() -> None:
    assert over(TrainingState.IDLE, 0, through=None, trains=False)
    assert not over(TrainingState.IDLE, 0, trains=False, progress=0.999)
    assert not over(TrainingState.IDLE, 0, trains=False, queued=1)


def test_without_epoch_limit_one_epoch_over_the_last_bar_is_enough() -> None:
    assert over(TrainingState.TRAINING, 1)
    assert not over(TrainingState.TRAINING, 0)
    assert not over(TrainingState.TRAINING, 1, through=None)
    assert not over(TrainingState.TRAINING, 5, through=LAST_S - 300)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_replay_ends_after_all_requested_epochs(done: int) -> None:
    assert not over(TrainingState.TRAINING, done, epochs=3)
    assert not over(TrainingState.STOPPED, done, epochs=3), "stopped by the operator"


def test_replay_waits_for_a_finished_worker_to_end() -> None:
    assert not over(TrainingState.TRAINING, 3, epochs=3)
    assert over(TrainingState.STOPPED, 3, epochs=3)
    # It does not train on data after its last epoch, or trained all epochs in an earlier run.
    assert over(TrainingState.STOPPED, 3, epochs=3, through=LAST_S - 300)
    assert over(TrainingState.STOPPED, 3, epochs=3, through=None)


@pytest.mark.parametrize("state", [TrainingState.STARTING, TrainingState.RESTARTING])
@pytest.mark.parametrize("epochs", [0, 3])
def test_replay_is_not_over_while_the_worker_starts(state: TrainingState, epochs: int) -> None:
    assert not over(state, 3, epochs=epochs)
