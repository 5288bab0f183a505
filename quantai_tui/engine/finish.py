"""When a replay is over."""

from __future__ import annotations

from ..telemetry import EngineSnapshot, TrainingState

# The present worker has not reported yet: training shows the state of the previous one.
_NOT_UP = (TrainingState.STARTING, TrainingState.RESTARTING)


def is_finished(snapshot: EngineSnapshot, *, trains: bool, epochs: int, symbol: str, interval_s: int) -> bool:
    """Whether everything played is stored and training, if on, has finished.

    Training finishes after `epochs` epochs, when the worker ends. With 0 (no limit) it finishes after one epoch that included the
    last whole bar of `symbol`.
    """
    if snapshot.replay_progress is None or snapshot.replay_progress < 1.0 or snapshot.store.queued:
        return False
    training = snapshot.training
    if not trains:
        return True
    if epochs:
        return training.state is TrainingState.STOPPED and training.epochs_done >= epochs
    known = snapshot.stream.symbols.get(symbol)  # a dashboard may ask before the stream has loaded its symbols
    last = known.last_trade_time if known is not None else None
    if training.state in _NOT_UP or last is None or training.data_through_time is None or training.epochs_done < 1:
        return False
    return training.data_through_time >= last - 2 * interval_s
