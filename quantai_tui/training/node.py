"""`python -m quantai_tui.training.node`: torchrun's agent, which starts the ranks of this machine.

The engine starts it with `--socket` and `--parent`. By hand it is left running on every other machine of a run:

    python -m quantai_tui.training.node --rdzv-endpoint HOST:PORT --nnodes 2 [--nproc 4]

It waits for the engine, takes part, and waits again when training ends or the engine starts anew, until it is interrupted.
Torch is imported by the agent alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ..output import guard_streams, log_to_stderr
from ..python_child import python_command, python_environment
from .launcher import NODE, WORKER, Meeting, meeting, rank_environment, ranks_folder, torchrun_arguments
from .lifeline import die_with_parent

log = logging.getLogger(__name__)

_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_SOUND_AFTER_S = 60.0  # an agent that lived so long was sound: the waits begin anew


def run_agent(place: Meeting, nproc: int, worker: tuple[str, ...]) -> int:
    """Run torchrun in this process. Returns 0 when all ranks ended well, 1 when it gives up; the log has the reason.

    Raises OSError when there is no rendezvous.
    """
    os.environ.update(rank_environment(place, nproc))
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    from .rendezvous import offer

    offer(place)
    try:
        run.run(run.parse_args(torchrun_arguments(place, nproc, worker)))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        log.error("given up: rank %d (pid %d) ended with exit code %d, see above", rank, failure.pid, failure.exitcode)
    except RendezvousError as error:
        log.error("the machines have not met at %s: %s", place.endpoint, error.__cause__ or error)
    except SignalException as signalled:
        log.info("ended by %s", signalled.sigval.name)
    else:
        return 0
    return 1


def _default_nproc() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _serve(arguments: list[str]) -> int:
    """Agent after agent, until interrupted: the engine may stop, change its settings and start anew at any time."""
    wait = _SHORTEST_WAIT_S
    while True:
        began = time.monotonic()
        command = python_command(NODE, "--parent", str(os.getpid()), *arguments)
        try:
            code = subprocess.run(command, check=False, env=python_environment()).returncode
            if code == 0 or time.monotonic() - began > _SOUND_AFTER_S:
                wait = _SHORTEST_WAIT_S
            log.info("this machine is free again; it offers itself anew in %g s (ctrl-c ends that)", wait)
            time.sleep(wait)
        except KeyboardInterrupt:
            return 0
        wait = min(2 * wait, _LONGEST_WAIT_S)


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog=NODE, description="Lend this machine to a training run of an engine elsewhere.")
    parser.add_argument("--rdzv-endpoint", default="", help="HOST:PORT of the engine's machine (its TRAIN_RDZV_ENDPOINT)")
    parser.add_argument("--nnodes", type=int, default=2, help="machines of the run, the engine's included (its TRAIN_NNODES)")
    parser.add_argument("--nproc", type=int, default=0, help="processes here; default: one per GPU, or one")
    parser.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)  # run one agent, and end with this process
    parser.add_argument("--socket", default="", help=argparse.SUPPRESS)  # the engine's: this is its machine
    options = parser.parse_args(given)
    log_to_stderr("%(asctime)sZ node %(levelname)s %(message)s")
    if options.parent:
        die_with_parent(options.parent)
    folder: Path | None = None
    try:
        folder = ranks_folder(Path(options.socket)) if options.socket and options.nnodes == 1 else None
        try:
            place = meeting(options.rdzv_endpoint, options.nnodes, host=bool(options.socket), folder=folder)
        except ValueError as error:
            parser.error(str(error))
        if not options.parent:
            return _serve(given)
        worker = (WORKER, "--socket", options.socket) if options.socket else (WORKER, "--join")
        return run_agent(place, options.nproc or _default_nproc(), worker)
    except OSError as error:
        log.error("%s", error)
        return 1
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # Not sys.exit: torch's threads must not hold up the end, for which an engine gives two seconds.
    guard_streams()
    code = main()
    logging.shutdown()
    os._exit(code)
