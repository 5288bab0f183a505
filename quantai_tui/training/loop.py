"""The training loop: epoch after epoch over a market that goes on, paused, saved, reset and stopped between two steps."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..telemetry import SYSTEM_CLOCK, Clock, Severity, TrainingState
from . import dataset
from .checkpoint import fingerprint, random_state, set_random_state
from .config import LIVE_FIELDS, WorkerConfig, changed_fields
from .epoch import Epoch, filled, read_between
from .epochs import Build, Epochs, ReadBars, ReadBetween, step_size
from .evaluation import Evaluation
from .fellows import first_overflow, pack, shared_read, unpack
from .joining import broken
from .messages import ControlKind, Ready
from .messages import Ranks as RanksMessage
from .planted import OverflowPlan
from .precision import choose
from .progress import Progress, Reporter
from .ranks import Ranks, Solo, Standing
from .requests import Answer, Request, Requests, no_answer
from .saving import Checkpoints, resume
from .stepper import Stepper

_HEARTBEAT_S = 0.5


class _StopRequested(Exception):
    """Unwinds the loop from wherever it is."""


class TrainingLoop:
    """Trains until stopped, or for `max_epochs`; begins where the newest checkpoint of the same training ended.

    `run` belongs to one thread; the `request_*` methods may be called from any. A request is carried out between two steps (also
    while paused or waiting for data), then `answer(ok, text)` is called from the training thread. `read` gives the newest bars,
    `read_between` those of an epoch that a checkpoint was written in, and `build` makes of them what is trained and validated on.

    Nothing that training computes depends on a clock, planted overflows aside: a run that was killed and went on from its last
    checkpoint ends with the same bits as one that was not, on the same machine with as many threads.

    With several `ranks` each runs a loop of its own, in lock-step: the leader's requests, bars and checkpoints are everybody's,
    and the others' reporters are told but need not report. `run` raises RanksLost when one of them has gone.
    """

    def __init__(
        self,
        config: WorkerConfig,
        reporter: Reporter,
        *,
        read: ReadBars = dataset.read_bars,
        read_between: ReadBetween = read_between,
        build: Build = dataset.build,
        clock: Clock = SYSTEM_CLOCK,
        paused: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self._config = config
        self._ranks: Ranks = ranks or Solo()
        self._own_overflows = 0
        self._reporter = reporter
        self._clock = clock
        self._requests = Requests()
        self._stopping = False
        self._paused = paused
        self._step_due = 0.0
        self._unsaved = False
        self._progress = Progress(reporter, clock)
        self._stepper = self._new_stepper()
        device = self._stepper.precision.device
        read, between = shared_read(self._ranks, read), shared_read(self._ranks, read_between)
        self._epochs = Epochs(config.seed, device, read, between, build, self._progress.event)
        self._evaluation = Evaluation()
        self._plan = OverflowPlan(config.plant_overflow_every_s, clock)
        self._checkpoints: Checkpoints | None = None
        if config.checkpoint_dir and self._ranks.leader:
            of = fingerprint(config, dataset.FEATURES, self._stepper.bare)
            send, tell = reporter.send, self._progress.event
            self._checkpoints = Checkpoints(config, of, clock, send=send, tell=tell, wake=self._requests.wake)

    def _new_stepper(self) -> Stepper:
        config = self._config
        precision = choose(self._ranks.device(config.device), config.precision, config.model_size)
        return Stepper(config, len(dataset.FEATURES), precision, self._progress.event, self._ranks)

    def request_pause(self, answer: Answer = no_answer) -> None:
        self._request(Request(ControlKind.PAUSE, answer))

    def request_resume(self, answer: Answer = no_answer) -> None:
        self._request(Request(ControlKind.RESUME, answer))

    def request_reset_scale(self, answer: Answer = no_answer) -> None:
        """The manual reset: half of the initial scale, even if that raises it."""
        self._request(Request(ControlKind.RESET_SCALER, answer))

    def request_checkpoint(self, answer: Answer = no_answer) -> None:
        """Save one now; the answer comes when it is on the disk, with its path and step, or why it is not."""
        self._request(Request(ControlKind.CHECKPOINT, answer))

    def request_settings(self, config: WorkerConfig, answer: Answer = no_answer) -> None:
        """Take over a config that differs in live fields only; any other difference is refused."""
        self._request(Request(ControlKind.SETTINGS, answer, config))

    def request_stop(self, answer: Answer = no_answer) -> None:
        self._request(Request(ControlKind.STOP, answer))

    def _request(self, request: Request) -> None:
        self._requests.put(request)

    def run(self) -> bool:
        """True when `max_epochs` are done, False when it was stopped."""
        self._reporter.send(self._ready())
        try:
            with nullcontext() if self._ranks.world == 1 else broken("in a step"):
                self._train()
        except _StopRequested:
            self._save_the_rest()
            return False
        self._save_the_rest()
        self._progress.flush(self._stepper, period_s=0.0)
        return True

    def _train(self) -> None:
        self._restore()
        self._control()
        while (epoch := self._next_epoch()) is not None:
            self._epoch(epoch)

    # Between two steps

    def _control(self, *, meet: bool = False) -> None:
        """Carry out what was requested; while paused, stay here. `meet`: with other ranks, do so at this very boundary."""
        if self._checkpoints is not None:
            self._checkpoints.collect()
        self._pause_when_stuck()
        if not (self._ranks.meets() or meet or self._paused):
            return
        while True:
            self._meet()
            if self._stopping:
                raise _StopRequested
            if not self._paused:
                return
            before = self._progress.state
            if before is not TrainingState.PAUSED and self._stepper.precision.device.type == "cuda":
                torch.cuda.synchronize(self._stepper.precision.device)  # paused means that the GPU is idle
            self._progress.state = TrainingState.PAUSED
            self._progress.flush(self._stepper, period_s=_HEARTBEAT_S if before is TrainingState.PAUSED else 0.0)
            self._sleep(_HEARTBEAT_S)
            if self._checkpoints is not None:
                self._checkpoints.collect()
            self._step_due = 0.0

    def _pause_when_stuck(self) -> None:
        """Resets do not help any more: going on would only burn time, and somebody has to look."""
        monitor = self._stepper.monitor
        stuck = "" if monitor is None else monitor.stuck
        if stuck and not self._paused:
            self._paused = True
            self._progress.paused_because = stuck
            self._progress.event(Severity.CRITICAL, f"training has paused: {stuck}")

    def _meet(self) -> None:
        """All ranks do what the leader was asked, at the same step."""
        asked = list(self._requests.take()) if self._ranks.leader else []
        met = self._ranks.meet(pack(asked), Standing(self._progress.step, self._own_overflows))
        if met.reports:
            self._reporter.send(RanksMessage(met.reports))
        for request in asked if self._ranks.leader else unpack(met.words):
            self._carry_out(request)

    def _sleep(self, seconds: float) -> None:
        """Wait, at most until the next request. Other ranks than the leader wait for it where they need it next."""
        if self._ranks.leader:
            self._requests.sleep(seconds)

    def _carry_out(self, request: Request) -> None:
        match request.kind:
            case ControlKind.PAUSE:
                self._paused = True
                request.answer(True, "paused")
            case ControlKind.RESUME:
                self._paused = False
                self._progress.paused_because = ""
                if self._stepper.monitor is not None:
                    self._stepper.monitor.clear_stuck()
                request.answer(True, "resumed")
            case ControlKind.STOP:
                self._stopping = True
                request.answer(True, "stopping")
            case ControlKind.RESET_SCALER:
                self._reset_scale(request.answer)
            case ControlKind.CHECKPOINT:
                self._save(answer=request.answer)
            case ControlKind.SETTINGS:
                assert request.config is not None
                self._take_settings(request.config, request.answer)

    def _reset_scale(self, answer: Answer) -> None:
        monitor = self._stepper.monitor
        if monitor is None:
            answer(False, f"nothing to reset: {self._stepper.precision.name} runs without a gradient scaler")
            return
        before = monitor.scale
        text = f"scale {before:g} -> {monitor.reset_scale():g}"
        self._progress.paused_because = ""
        self._unsaved = True
        self._progress.event(Severity.INFO, f"manual reset: {text}")
        answer(True, text)

    def _take_settings(self, config: WorkerConfig, answer: Answer) -> None:
        changed = changed_fields(self._config, config)
        if refused := changed - LIVE_FIELDS:
            answer(False, f"{', '.join(sorted(refused))} cannot change while the worker runs: restart it")
            return
        self._config = config
        self._stepper.apply(config)
        if self._checkpoints is not None:
            self._checkpoints.apply(config)
        if "plant_overflow_every_s" in changed:
            self._plan = OverflowPlan(config.plant_overflow_every_s, self._clock)
        self._reporter.send(self._ready())
        answer(True, f"now in force: {', '.join(sorted(changed))}" if changed else "nothing changed")

    def _ready(self) -> Ready:
        stepper, monitor = self._stepper, self._stepper.monitor
        return Ready(
            device=str(stepper.precision.device),
            precision=stepper.precision.name,
            reason=stepper.precision.reason,
            parameters=stepper.parameters,
            scale_floor=monitor.config.floor if monitor else None,
            scale_cap=monitor.config.cap if monitor else None,
            growth_interval=monitor.config.moves.growth_interval if monitor and monitor.config.policy == "grow" else None,
            planted=self._plan.describe() if monitor else "",
        )

    # Checkpoints

    def _state(self) -> dict[str, Any]:
        """All of it, at a step boundary."""
        self._progress.settle(self._stepper)
        loop = {**self._progress.state_dict(), "epochs": self._epochs.state_dict()}
        return {"stepper": self._stepper.state_dict(), "loop": loop, "rng": random_state()}

    def _save(self, *, best: bool = False, answer: Answer = no_answer) -> None:
        if self._checkpoints is None:
            answer(False, "this training keeps no checkpoints: no folder was given for them")
            return
        self._checkpoints.save(self._state(), self._progress.step, self._epochs_done, best=best, answer=answer)
        self._unsaved = False

    @property
    def _epochs_done(self) -> int:
        return self._progress.epoch - self._epochs.within

    def _save_the_rest(self) -> None:
        if self._checkpoints is None:
            return
        if self._unsaved:
            self._save()
        self._checkpoints.finish()

    def _restore(self) -> None:
        """Resume from the newest usable checkpoint of this training, if there is one."""
        resumed = resume(self._ranks, self._checkpoints, self._state, self._take)
        if resumed is not None and self._checkpoints is not None:
            self._checkpoints.resumed(*resumed, self._epochs_done)

    def _take(self, state: dict[str, Any]) -> None:
        """Restore `state`. Raises ValueError, LookupError or TypeError when it is wrong, perhaps partly restored."""
        loop = state["loop"]
        self._stepper.load_state_dict(state["stepper"])
        self._stepper.apply(self._config)  # settings win over what was saved
        set_random_state(state["rng"])
        self._epochs.load_state_dict(loop["epochs"])
        self._progress.load_state_dict(loop)

    # Data

    def _next_epoch(self) -> Epoch | None:
        """The epoch that a checkpoint was written in, else a new one over what the market has become; None when all are done."""
        progress, goes_on = self._progress, self._epochs.within
        while True:
            self._control(meet=True)
            if not goes_on and self._config.max_epochs and progress.epoch >= self._config.max_epochs:
                return None
            found = self._epochs.attempt(self._config)
            if isinstance(found, Epoch):
                progress.epoch += not goes_on
                progress.epoch_step, progress.steps_per_epoch = found.taken, found.steps
                return found
            self._wait(found)

    def _wait(self, detail: str) -> None:
        self._progress.state = TrainingState.WAITING
        self._progress.detail = detail
        self._progress.flush(self._stepper)
        self._sleep(_HEARTBEAT_S)

    def _windows(self, features: Tensor, at: Tensor) -> Tensor:
        return features[at[:, None] + torch.arange(1 - self._config.window, 1, device=at.device)]

    # Training and validation

    def _epoch(self, epoch: Epoch) -> None:
        config, progress, data = self._config, self._progress, epoch.data
        progress.detail = self._stepper.precision.reason
        if config.max_epochs:
            self._stepper.total_steps = config.max_epochs * epoch.steps
        while epoch.taken < epoch.steps:
            self._pace()
            self._control()
            progress.state = TrainingState.TRAINING
            self._step(epoch)
            epoch.taken += 1
            self._unsaved = True
            if self._checkpoints is not None and self._checkpoints.due:
                self._save()
        done = self._evaluation.report(progress.epoch, data, self._validate(epoch.features, data.validation))
        self._reporter.send(done)
        self._epochs.end()
        self._unsaved = True
        if self._checkpoints is not None and self._checkpoints.is_best(done):
            self._save(best=True)

    def _step(self, epoch: Epoch) -> None:
        progress, stepper, config = self._progress, self._stepper, self._config
        factor = 1.0
        if stepper.monitor is not None:
            # By the leader's clock: an overflow of one is an overflow of all.
            factor = self._plan.factor() if self._ranks.leader else 1.0
            if self._plan.just_begun:
                progress.event(Severity.INFO, f"{self._plan.describe()}: begins")
        mine = self._ranks.part(config.batch_size)
        parts = [epoch.samples(config.batch_size, part) for part in range(config.accumulation)]
        windows = [self._windows(epoch.features, at[mine]) for at, _ in parts]
        labels = [of_part[mine] for _, of_part in parts]
        skipped = stepper.step(windows, labels, progress.epoch, progress.epoch_step, factor)
        if skipped:
            self._explain(stepper)
        progress.stepped(step_size(config), skipped, stepper.monitor.scale if stepper.monitor else None)
        progress.flush(stepper)

    def _explain(self, stepper: Stepper) -> None:
        own = stepper.take_overflow()
        self._own_overflows += own is not None
        if (found := first_overflow(self._ranks, own)) is not None:
            self._reporter.send(found)

    def _pace(self) -> None:
        """Hold `steps_per_s`, without ever catching up on lost time. A request is not kept waiting for it."""
        rate = self._config.steps_per_s
        if not rate or not self._ranks.leader:
            return
        while (left := self._step_due - self._clock.monotonic()) > 0 and not self._requests.waiting:
            self._progress.flush(self._stepper, period_s=_HEARTBEAT_S)
            self._sleep(min(left, _HEARTBEAT_S))
        self._step_due = self._clock.monotonic() + 1 / rate

    def _validate(self, features: Tensor, part: dataset.Part) -> NDArray[np.float32]:
        """The model's probabilities of each class, [samples, 3]."""
        at, size = torch.from_numpy(part.at).to(features.device), self._config.batch_size
        said = torch.empty(len(part) + size, dataset.CLASSES, device=features.device)
        for start in range(0, len(part), size):
            self._control()
            batch = filled(start, size, len(part), features.device)
            # What only fills the last batch up lies behind the last sample, and is cut off below.
            said[start : start + size] = self._stepper.probabilities(self._windows(features, at[batch]))
            self._progress.flush(self._stepper)
        return said[: len(part)].cpu().numpy()
