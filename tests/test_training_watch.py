"""`watch` in a user's own loop: what it sees, what it leaves alone, and that nothing of it reaches the loop."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import random
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from watch_support import Loop, script, start

from quantai_tui.engine.places import socket_folder
from quantai_tui.training import DynamicGradScalerConfig, watch
from quantai_tui.training.fused import FusedSkips
from quantai_tui.training.observing import ObservingMonitor, StepOutcomes
from quantai_tui.training.watching import Watch

OVERFLOWS = 1e38

WEIGHTS = """
import hashlib

model = train(steps=400)
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest())
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def observed(loop: Loop, **options: Any) -> Watch:
    """A watch that sees every step, as one does whose engine was there from the beginning."""
    watched = watch(loop.scaler, loop.optimizer, loop.model, **options)
    watched._steps.hook()
    watched._steps.begin()
    return watched


@pytest.mark.processes
def test_without_an_engine_the_readmes_example_ends_with_the_same_bits_and_leaves_nothing_behind(own_home: Path) -> None:
    both = [start(script(own_home / "work", WEIGHTS, watched=watched), stdout=-1, stderr=-1) for watched in (True, False)]
    ended = [process.communicate(timeout=90) for process in both]
    assert ended[0] == ended[1]
    assert len(ended[0][0].strip()) == 64
    assert ended[0][1] == ""
    assert list((own_home / "state").iterdir()) == []


def test_until_an_engine_is_found_nothing_is_hooked_into_the_loop() -> None:
    loop = Loop()
    with watch(loop.scaler, loop.optimizer) as watched:
        watched.loss(loop.step())
        loop.scaler.update()
        assert not {"update", "load_state_dict"} & set(vars(loop.scaler))
        assert not loop.optimizer._optimizer_step_post_hooks
        assert watched.note == "no engine runs"
        assert watched.get_statistics() is None


@pytest.mark.parametrize("options", [{}, {"fused": True}])
def test_every_overflow_is_seen_and_the_scale_is_followed_to_the_bit(options: dict[str, bool]) -> None:
    loop, alone = Loop(**options), Loop(**options)
    with observed(loop) as watched:
        factors = [OVERFLOWS if number % 7 == 3 or number in (20, 21, 22) else 1.0 for number in range(60)]
        for factor in factors:
            for one in (loop, alone):
                one.step(factor)
                one.scaler.update()
            assert watched.monitor is not None
            assert watched.monitor.scale == loop.scaler.get_scale() == alone.scaler.get_scale()
            assert watched.monitor.mirror.tracker == loop.scaler._get_growth_tracker()
        stats = watched.get_statistics()
    assert stats is not None
    assert stats["overflow_count"] == factors.count(OVERFLOWS)
    assert stats["reset_count"] == 0
    assert torch.equal(loop.model.weight, alone.model.weight)


def test_a_watched_scale_goes_wherever_its_owner_lets_it() -> None:
    loop = Loop()
    with observed(loop) as watched:
        assert isinstance(watched.monitor, ObservingMonitor)
        for _ in range(40):  # far past the 5 in a row at which ours would reset, and below any floor of ours
            loop.step(OVERFLOWS)
            loop.scaler.update()
        assert watched.monitor.scale == loop.scaler.get_scale() == 2.0**-30
        loop.scaler.set_growth_interval(3)
        loop.scaler.set_growth_factor(4.0)
        for _ in range(3):
            loop.step()
            loop.scaler.update()
        assert watched.monitor.scale == loop.scaler.get_scale() == 2.0**-28
        loop.step()
        loop.scaler.update(512.0)
        assert watched.monitor.scale == 512.0
        loop.step(OVERFLOWS)
        loop.scaler.update()
        assert watched.monitor.scale == loop.scaler.get_scale() == 256.0
        state = loop.scaler.state_dict() | {"scale": 77.0, "_growth_tracker": 1}
        loop.scaler.load_state_dict(state)
        assert watched.monitor.scale == 77.0
        with pytest.raises(RuntimeError, match="steer=True"):
            watched.monitor.reset_scale()


@pytest.mark.parametrize("seed", range(8))
def test_steps_that_are_entered_later_end_in_the_same_books(seed: int) -> None:
    chance = random.Random(seed)
    loop = Loop()
    taken: list[int] = []
    loop.optimizer.register_step_post_hook(lambda *_: taken.append(1))
    with observed(loop) as watched:
        for number in range(300):
            watched.loss(loop.step(OVERFLOWS if chance.random() < 0.03 else 1.0))
            loop.scaler.update()
            if chance.random() < 0.05:
                loop.scaler.set_growth_interval(chance.choice((3, 10, 30)))
            if chance.random() < 0.02:
                watched.epoch(number + 1)
            if chance.random() < 0.05:
                assert watched.monitor is not None
                assert watched.monitor.scale == loop.scaler.get_scale()
                assert watched.monitor.mirror.tracker == loop.scaler._get_growth_tracker()
                assert watched.monitor.checked == watched._steps.progress.step == number + 1
        stats = watched.get_statistics()
        assert stats is not None
        assert stats["overflow_count"] == 300 - len(taken) > 0
        assert watched.monitor is not None
        assert watched.monitor.checked == len(watched.monitor.records()) == 300


def test_a_steered_scale_keeps_to_its_bounds_and_is_held_when_the_loss_is_not_finite() -> None:
    loop = Loop()
    policy = DynamicGradScalerConfig(5, min_scale=128.0, max_scale=512.0, growth_interval=2)
    with watch(loop.scaler, loop.optimizer, loop.model, steer=policy) as watched:
        assert loop.step() is not None
        loop.scaler.update()
        assert loop.scaler.get_scale() == 512.0
        watched.loss(loop.step(math.nan) * math.nan)
        loop.scaler.update()
        assert loop.scaler.get_scale() == 512.0
        for _ in range(10):
            watched.loss(loop.step(OVERFLOWS))
            loop.scaler.update()
        assert loop.scaler.get_scale() == 128.0
        stats = watched.get_statistics()
        assert stats is not None
        assert stats["overflow_count"] == 11
        assert stats["reset_count"] == 1


def test_with_two_optimizers_the_scale_backs_off_when_either_overflows() -> None:
    loop, other = Loop(), Loop()
    with watch(loop.scaler, [loop.optimizer, other.optimizer]) as watched:
        watched._steps.hook()
        watched._steps.begin()
        for first, second in ((1.0, 1.0), (1.0, OVERFLOWS), (OVERFLOWS, 1.0), (1.0, None)):
            loop.step(first)
            if second is not None:
                other.optimizer.zero_grad()
                torch.autograd.backward(loop.scaler.scale(other.model(other.inputs).square().mean() * second))
                loop.scaler.step(other.optimizer)
            loop.scaler.update()
            assert watched.monitor is not None
            assert watched.monitor.scale == loop.scaler.get_scale()
        assert watched.monitor.overflow_count == 2


def test_an_optimizer_that_was_not_named_is_read_when_it_overflows() -> None:
    loop, other = Loop(), Loop()
    with observed(loop) as watched:
        torch.autograd.backward(loop.scaler.scale(other.model(other.inputs).square().mean() * OVERFLOWS))
        loop.scaler.step(other.optimizer)
        loop.scaler.update()
        assert watched.monitor is not None
        assert watched.monitor.scale == loop.scaler.get_scale() == 512.0


def test_a_scaler_that_is_disabled_is_watched_without_a_scale() -> None:
    loop = Loop()
    loop.scaler = torch.amp.GradScaler("cpu", enabled=False)
    with observed(loop, steer=True) as watched:
        watched.loss(loop.step())
        loop.scaler.update()
        assert watched._steps.progress.step == 1
        assert watched.monitor is None
        assert watched.get_statistics() is None


def test_closing_gives_scaler_and_optimizer_back_as_they_were() -> None:
    loop = Loop()
    before = dict(vars(loop.scaler))
    watched = observed(loop)
    loop.step()
    loop.scaler.update()
    watched.close()
    watched.close()
    assert set(vars(loop.scaler)) == set(before)
    assert not loop.optimizer._optimizer_step_post_hooks
    loop.step()
    loop.scaler.update()
    assert watched.get_statistics()["overflow_count"] == 0  # type: ignore[index]


def test_a_watched_scaler_can_be_copied_and_saved_and_the_copy_is_not_watched() -> None:
    loop = Loop()
    with observed(loop):
        loop.step()
        loop.scaler.update()
        kept = io.BytesIO()
        torch.save(loop.scaler, kept)
        kept.seek(0)
        for twin in (
            copy.deepcopy(loop.scaler),
            pickle.loads(pickle.dumps(loop.scaler)),
            torch.load(kept, weights_only=False),
        ):
            assert twin.state_dict() == loop.scaler.state_dict()
            assert "update" not in vars(twin)


def test_what_torch_raises_is_raised_as_ever_and_the_watch_goes_on() -> None:
    loop = Loop()
    with observed(loop) as watched:
        loop.step()
        loop.scaler.update()
        with pytest.raises(AssertionError, match="No inf checks"):
            loop.scaler.update()
        loop.step(OVERFLOWS)
        loop.scaler.update()
        assert watched.monitor is not None
        assert watched.monitor.overflow_count == 1


def test_a_fault_of_the_watch_is_logged_and_the_loop_goes_on_without_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, alone = Loop(), Loop()
    for broken in (StepOutcomes, ObservingMonitor):  # before torch's own update, and after it
        observed(loop)
        with monkeypatch.context() as patch:
            patch.setattr(broken, "take" if broken is StepOutcomes else "_check", lambda *_: 1 / 0)
            for one in (loop, alone):
                one.step(OVERFLOWS)
                one.scaler.update()
        assert "no longer" in caplog.text
        assert "update" not in vars(loop.scaler)
        caplog.clear()
    assert torch.equal(loop.model.weight, alone.model.weight)
    assert loop.scaler.state_dict() == alone.scaler.state_dict()


@pytest.mark.parametrize("when", ["load_state_dict", "close"])
def test_a_fault_outside_a_step_stays_inside_too(
    when: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop()
    watched = observed(loop)
    for broken in ("settle", "resync"):
        monkeypatch.setattr(ObservingMonitor, broken, lambda *_: 1 / 0)
    monkeypatch.setattr(type(watched._steps.reporter), "connected", True)
    if when == "close":
        watched.close()
    else:
        loop.scaler.load_state_dict(loop.scaler.state_dict())
    assert "no longer" in caplog.text
    assert "update" not in vars(loop.scaler)


def test_an_abandoned_watch_ends_its_thread() -> None:
    loop = Loop()
    kept = weakref.ref(observed(loop)._steps)
    assert "quantai-watch" in {thread.name for thread in threading.enumerate()}
    gc.collect()
    assert kept() is not None  # by the scaler that it watches
    del loop
    gc.collect()
    assert kept() is None
    assert "quantai-watch" not in {thread.name for thread in threading.enumerate()}


def test_a_rank_above_0_watches_and_does_not_look_for_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    loop = Loop()
    with watch(loop.scaler, loop.optimizer, steer=True) as watched:
        loop.step()
        loop.scaler.update()
        assert watched.note == "rank 2 does not report: rank 0 does"
        assert watched.get_statistics()["min_scale"] == 1024.0  # type: ignore[index]


class Waiting:
    """Copies from the device that arrive when the test says so."""

    def __init__(self) -> None:
        self.here = False

    def start(self, rows: torch.Tensor) -> None:
        self.kept = rows.clone()

    def arrived(self) -> bool:
        return self.here

    def wait(self) -> None:
        return None

    def rows(self) -> torch.Tensor:
        return self.kept


def test_the_outcomes_of_a_fused_optimizer_may_come_late_and_change_nothing() -> None:
    loop, alone = Loop(fused=True), Loop(fused=True)
    copies = Waiting()
    with observed(loop) as watched:
        watched._steps._outcomes = FusedSkips(loop.scaler, loop.optimizer, copies=copies)
        for number in range(40):
            copies.here = number % 5 == 4
            for one in (loop, alone):
                one.step(OVERFLOWS if number % 9 == 0 else 1.0)
                one.scaler.update()
            watched.loss(math.nan)  # of the next step: it must not hold the scale
        assert watched.monitor is not None
        watched.monitor.settle()
        assert watched.monitor.overflow_count == 5
        assert watched.monitor.scale == loop.scaler.get_scale() == alone.scaler.get_scale()
    assert torch.equal(loop.model.weight, alone.model.weight)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"name": "x" * 65}, "64 characters"),
        ({"steer": DynamicGradScalerConfig(1, policy="amax")}, "amax"),
        ({"optimizer": []}, "optimizers"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"name": None}, "name must be text"),
        ({"engine": 7}, "engine must be text"),
        ({"steer": "yes"}, "steer must be"),
        ({"model": "tiny"}, "model must be"),
        ({"optimizer": None}, "optimizer must be"),
        ({"optimizer": [None]}, "optimizer must be"),
        ({"scaler": None}, "scaler must be"),
    ],
)
def test_what_cannot_be_watched_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    loop = Loop()
    with pytest.raises((ValueError, TypeError), match=named):
        watch(**{"scaler": loop.scaler, "optimizer": loop.optimizer, **options})
    assert not any(thread.name == "quantai-watch" for thread in threading.enumerate())


def test_a_scaler_is_watched_once() -> None:
    loop = Loop()
    with observed(loop), pytest.raises(ValueError, match="already"):
        watch(loop.scaler, loop.optimizer)


def test_a_loss_that_is_not_one_number_is_refused_with_and_without_an_engine() -> None:
    loop = Loop()
    with watch(loop.scaler, loop.optimizer) as watched:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"loss must be one number.*\[3\]"):
                watched.loss(torch.zeros(3))
            watched._steps.begin()


def test_looking_for_an_engine_makes_no_folder(own_home: Path) -> None:
    from quantai_tui.training.reporter import find_engine

    assert find_engine() == (None, "no engine runs")
    assert list((own_home / "state").iterdir()) == []
    socket_folder()
    assert find_engine("demo-7") == (None, "no engine demo-7 runs")
