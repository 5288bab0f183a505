"""Kills workers at moments chosen by seed and prints what came of it as JSON: `python -m tests.killing FOLDER SEEDS AT_ONCE`.

A process of its own, with one thread, which plays the engine. Its workers are forked from it once torch is loaded: they run all
of `worker.main`, over a real socket and a real store, and a hundred of them cost minutes and not hours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import msgspec
import torch
from checkpoint_support import differences, learnt, newest
from training_support import Heard, config, random_bars, store_of

from quantai_tui.training import WorkerConfig, worker
from quantai_tui.training.loop import TrainingLoop
from quantai_tui.training.messages import (
    TOKEN_VARIABLE,
    Failed,
    Finished,
    FrameReader,
    Hello,
    Metrics,
    Start,
    WorkerMessage,
    encode_frame,
)

STEPS = 3 * 14
_PRECISIONS = ("fp16", "fp32")
_PATIENCE_S = 100.0
_decoder = msgspec.msgpack.Decoder(WorkerMessage)


def settings(store: Path, folder: Path, precision: str) -> WorkerConfig:
    """A scale that climbs until steps overflow; checkpoints so often that many a kill hits one being written."""
    return config(
        store_path=str(store),
        checkpoint_dir=str(folder / "checkpoints"),
        checkpoint_every_s=0.03,
        max_epochs=3,
        steps_per_s=50.0,
        precision=precision,
        growth_interval=2,
        growth_factor=2.0,
        max_scale=2.0**40,
    )


@dataclass(frozen=True)
class Kill:
    at_step: int | None  # None: while it starts
    later_s: float  # between two reports


@dataclass
class Outcome:
    seed: int
    kills: int = 0
    finished: bool = False
    differs: tuple[str, ...] = ()


def fork_worker(path: Path, log: Path, server: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        server.close()
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
        os.environ[TOKEN_VARIABLE] = "token"
        code = worker.main(["--socket", str(path)])
    finally:
        os._exit(code)


def live(folder: Path, config_: WorkerConfig, kill: Kill | None) -> tuple[bool, bool]:
    """One worker from start to end: whether it has finished, and whether it was killed."""
    folder.mkdir(exist_ok=True)
    path = folder / "s"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        server.settimeout(_PATIENCE_S)
        pid = fork_worker(path, folder / "log", server)
        connection, _ = server.accept()
    finished = killed = False

    def strike() -> bool:
        assert kill is not None
        time.sleep(kill.later_s)
        os.kill(pid, signal.SIGKILL)
        return True

    with connection:
        connection.settimeout(_PATIENCE_S)
        frames = FrameReader()
        if kill is not None and kill.at_step is None:
            killed = strike()
        with contextlib.suppress(ConnectionResetError):  # killed, with something unread
            while data := connection.recv(65536):
                for body in frames.feed(data):
                    match _decoder.decode(body):
                        case Hello():
                            with contextlib.suppress(BrokenPipeError):
                                connection.sendall(encode_frame(Start(config_)))
                        case Finished():
                            finished = True
                        case Failed() as failed:
                            raise AssertionError(failed.reason)
                        case Metrics() as metrics:
                            at = kill.at_step if kill is not None and not killed else None
                            if at is not None and metrics.step >= at:
                                killed = strike()
    os.waitpid(pid, 0)
    return finished, killed and not finished


def run_seed(seed: int, store: Path, folder: Path) -> Outcome:
    chance, outcome = random.Random(seed), Outcome(seed)
    precision = _PRECISIONS[seed % 2]
    of = settings(store, folder, precision)
    for _ in range(chance.choice((1, 1, 2))):
        kill = Kill(None if chance.random() < 0.1 else chance.randrange(1, STEPS), chance.uniform(0, 0.06))
        outcome.finished, killed = live(folder, of, kill)
        outcome.kills += killed
        if outcome.finished:  # it was faster
            break
    if not outcome.finished:
        outcome.finished, _ = live(folder, of, None)
    wanted = learnt(newest(folder.parent / precision / "checkpoints"))
    outcome.differs = tuple(differences(wanted, learnt(newest(folder / "checkpoints"))))
    return outcome


def main(folder: Path, seeds: int, at_once: int) -> None:
    torch.set_num_threads(1)
    worker._NICENESS = 0  # type: ignore[misc]  # a hundred of them shall end today
    store = folder / "trades.sqlite"
    asyncio.run(store_of(random_bars(600), store))
    # Whatever torch loads at its first step is loaded before the fork.
    TrainingLoop(config(max_epochs=1), Heard(), read=lambda *_: random_bars(300)).run()
    for precision in _PRECISIONS:
        assert live(folder / precision, settings(store, folder / precision, precision), None) == (True, False)
        straight = learnt(newest(folder / precision / "checkpoints"))
        assert straight["step"] == STEPS
        if precision == "fp16":
            assert straight["stepper"]["monitor"]["counts"]["overflow_count"] > 5
    pids = []
    for number in range(at_once):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                outcomes = [asdict(run_seed(seed, store, folder / f"{seed}")) for seed in range(number, seeds, at_once)]
                (folder / f"outcomes-{number}.json").write_text(json.dumps(outcomes))
                code = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
                raise
            finally:
                os._exit(code)
        pids.append(pid)
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    if failed:
        raise SystemExit(f"{len(failed)} of {at_once} drivers have failed, see above")
    print(json.dumps([one for number in range(at_once) for one in json.loads((folder / f"outcomes-{number}.json").read_text())]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
