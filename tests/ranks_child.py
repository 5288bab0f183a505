"""Processes for tests of several ranks: `agent` is torchrun, `rank` trains a small model in true fp16 until its leader says stop.

Each rank writes what it saw to `<out>/rank<rank>.<attempt>.json`, and `<out>/up.<attempt>.<rank>` with its pid once it trains.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

LONG_WORDS = b"x" * 3000  # more than fits into the frame of a meeting


def write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def agent(options: argparse.Namespace, rest: list[str]) -> int:
    from quantai_tui.training import launcher, node
    from quantai_tui.training.lifeline import die_with_parent

    die_with_parent(options.parent)
    write(options.out / f"agent.{'host' if options.host else 'guest'}", str(os.getpid()))
    folder = None if options.endpoint else launcher.ranks_folder(options.out / "worker")
    place = launcher.meeting(options.endpoint, options.nodes, host=options.host, folder=folder)
    worker = ("ranks_child", "rank", "--out", str(options.out), *(["--lead"] if options.host else []), *rest)
    return node.run_agent(place, options.nproc, worker)


class Trainer:
    """The loop in small: a 19k MLP, DDP, GradScaler and its monitor."""

    def __init__(self, ranks: Any, scenario: dict[str, Any]) -> None:
        import torch
        from torch import nn

        from quantai_tui.training.monitor import GradScalerMonitor
        from quantai_tui.training.scaler import DynamicGradScalerConfig, SkipDetector

        self.ranks, self.scenario = ranks, scenario
        torch.manual_seed(ranks.rank)  # other weights on every rank, until the leader's are shared
        self.model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 80), nn.ReLU(), nn.Linear(80, 3))
        self.parallel = ranks.wrap(self.model, torch.device("cpu"))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=False)
        policy = DynamicGradScalerConfig(19_000, growth_factor=2.0, growth_interval=20)
        self.scaler = policy.create_scaler("cpu")
        self.monitor = GradScalerMonitor(self.scaler, policy, max_consecutive_overflow=3)
        self.skips = SkipDetector(self.optimizer)
        features, labels = torch.randn(512, 64), torch.randint(0, 3, (512,))
        self.features, self.labels = ranks.share((features, labels) if ranks.leader else ())
        self.history: list[tuple[float, int, bool]] = []
        self.applied: list[tuple[int, str, int]] = []
        self.reports: list[list[Any]] = []

    def step(self, number: int) -> None:
        import torch
        import torch.nn.functional as F

        ranks = self.ranks
        planted = self.scenario.get("overflow", {}).get(str(ranks.rank), [])
        size = 33  # no multiple of any number of ranks
        batch = (torch.arange(size) + number * size) % len(self.labels)
        mine = batch[ranks.part(size)]
        with torch.autocast("cpu", torch.float16):
            logits = self.parallel(self.features[mine])
        loss = F.cross_entropy(logits.float(), self.labels[mine]) * ranks.weight(size)
        if number in self.scenario.get("bad_loss", {}).get(str(ranks.rank), []):
            loss = loss * float("nan")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * (1e30 if number in planted else 1.0)).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        skipped = self.skips.take()
        loss_finite = not (skipped and ranks.any(not bool(torch.isfinite(loss))))
        self.monitor.update(skipped, 1, number, loss_finite=loss_finite)
        self.history.append((self.scaler.get_scale(), self.scaler._get_growth_tracker(), skipped))

    def run(self) -> None:
        from quantai_tui.training.joining import broken
        from quantai_tui.training.ranks import Standing

        number, pending = 0, [b"reset", LONG_WORDS]
        while True:
            if self.ranks.meets():
                words = b""
                if self.ranks.leader and number >= 30:
                    words = pending.pop(0) if pending else b""
                    done = not pending and number >= self.scenario["steps"] and (self.told or not self.scenario.get("reports"))
                    words = words or (b"stop" if done else b"")
                met = self.ranks.meet(words, Standing(number, self.monitor.overflow_count))
                self.reports += [[report.rank, report.pid, report.device, report.step_ms] for report in met.reports]
                if met.words:
                    self.applied.append((number, met.words[:8].decode(), len(met.words)))
                if met.words == b"reset":
                    self.monitor.reset_scale()
                if met.words == b"stop":
                    return
            self.perhaps_end(number)
            with broken("in a step"):
                self.step(number)
            number += 1

    @property
    def told(self) -> bool:
        """Whether the last report knows how long the steps of every rank take, which DDP measures now and then."""
        return bool(self.reports) and all(step_ms is not None for *_, step_ms in self.reports[-self.ranks.world :])

    def perhaps_end(self, number: int) -> None:
        end = self.scenario.get("end")
        if end and self.ranks._place.attempt == 0 and number == end["step"] and self.ranks.rank == end["rank"]:
            os.kill(os.getpid(), getattr(signal, end["by"]))


def rank(options: argparse.Namespace) -> int:
    import torch

    from quantai_tui.training.joining import Place, RanksLost
    from quantai_tui.training.launcher import AGENT_VARIABLE
    from quantai_tui.training.lifeline import die_with_parent
    from quantai_tui.training.ranks import Group

    if AGENT_VARIABLE in os.environ:
        die_with_parent(int(os.environ[AGENT_VARIABLE]))
    torch.set_num_threads(1)
    place = Place.of()
    assert place is not None
    reached = f"{place.attempt}.{place.rank}.{os.getpid()}"
    try:
        ranks = Group(place, lead=options.lead and place.local_rank == 0, lost_s=options.lost_s)
        scenario = json.loads(ranks.tell(options.scenario.encode()))
        trainer = Trainer(ranks, scenario)
        write(options.out / f"up.{place.attempt}.{ranks.rank}", str(os.getpid()))
        trainer.run()
    except RanksLost as lost:
        write(options.out / f"lost.{reached}", str(lost))
        print(lost, file=sys.stderr)
        return 1
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in trainer.model.parameters())
    seen = {
        "rank": ranks.rank,
        "torchrun_rank": place.rank,
        "attempt": place.attempt,
        "leader": ranks.leader,
        "scenario": scenario,
        "weights": hashlib.sha256(weights).hexdigest(),
        "history": trainer.history,
        "applied": trainer.applied,
        "reports": trainer.reports,
        "resets": trainer.monitor.reset_count,
        "least": ranks.least(3.0 - ranks.rank),
        "collected": [words.decode() for words in ranks.collect(b"r" * (600 * ranks.rank))],
    }
    ranks.leave()
    write(options.out / f"rank{ranks.rank}.json", json.dumps(seen))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("agent", "rank"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenario", default="{}")
    parser.add_argument("--lead", action="store_true")
    parser.add_argument("--lost-s", type=float, default=30.0)
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--host", action="store_true")
    options = parser.parse_args()
    if options.what == "rank":
        return rank(options)
    return agent(options, ["--scenario", options.scenario] if options.host else [])


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
