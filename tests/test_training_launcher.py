"""How workers are started: command lines as torchrun reads them; two agents that meet; no orphans, however the engine ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ranks_support import WITHIN_S, agent, environment, free_port, gone, seen, until
from sockets_support import listeners
from torch.distributed import run
from training_support import config

from quantai_tui.training import launcher, node

pytestmark = pytest.mark.timeout(400)  # of processes that import torch, on loaded cores


def launched(set_by_user: dict[str, str] | None = None, **changes: Any) -> launcher.Launch:
    environment = {"HOME": "/home/me", "PYTHONPATH": "/mine", **(set_by_user or {})}
    return launcher.launch(config(**changes), python="py", socket_path=Path("/run/s"), token="secret", environment=environment)


def test_one_process_runs_plainly() -> None:
    launch = launched()
    assert launch.arguments == ("py", "-P", "-m", "quantai_tui.training.worker", "--socket", "/run/s")
    assert launch.environment["QUANTAI_WORKER_TOKEN"] == "secret"
    assert launch.environment["HOME"] == "/home/me"
    ours, mine = launch.environment["PYTHONPATH"].split(os.pathsep)
    assert (Path(ours) / "quantai_tui" / "training").is_dir()
    assert mine == "/mine"
    assert launch.extra_grace_s == 0


def test_the_secret_is_in_no_command_line_where_others_could_read_it() -> None:
    for changes in ({}, {"nproc": 2}, {"nnodes": 2, "rdzv_endpoint": "127.0.0.1:1"}):
        assert not any("secret" in word for word in launched(**changes).arguments)


@pytest.mark.parametrize("nproc", [1, 2])
def test_torchs_cache_is_beside_the_store_and_not_in_a_shared_folder(nproc: int) -> None:
    name = "TORCHINDUCTOR_CACHE_DIR"
    assert launched(nproc=nproc, store_path="/data/engine/market.sqlite3").environment[name] == "/data/engine/torch"
    assert launched({name: "/mine"}, nproc=nproc).environment[name] == "/mine"


def test_several_processes_run_under_an_agent_that_ends_with_this_process() -> None:
    launch = launched(nproc=4)
    assert launch.arguments == (
        "py", "-P", "-m", "quantai_tui.training.node", "--parent", str(os.getpid()), "--socket", "/run/s", "--nproc", "4",
        "--nnodes", "1",
    )  # fmt: skip
    assert launch.extra_grace_s == 0


def test_several_machines_meet_at_the_endpoint_and_may_take_their_time() -> None:
    launch = launched(nproc=2, nnodes=3, rdzv_endpoint="10.0.0.5:29400")
    assert launch.arguments[-2:] == ("--rdzv-endpoint", "10.0.0.5:29400")
    assert launch.extra_grace_s == launcher.JOIN_S


def read_by_torchrun(place: launcher.Meeting, nproc: int) -> Any:
    options = run.parse_args(launcher.torchrun_arguments(place, nproc, ("quantai_tui.training.worker", "--socket", "/run/s")))
    settings, command, arguments = run.config_from_args(options)
    assert command == sys.executable
    assert arguments == ["-u", "-m", "quantai_tui.training.worker", "--socket", "/run/s"]
    assert not options.standalone
    return settings


def test_torchrun_reads_the_command_line_as_it_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    here = read_by_torchrun(launcher.meeting("", 1, host=True, folder=tmp_path), 4)
    assert (here.min_nodes, here.max_nodes, here.nproc_per_node, here.max_restarts) == (1, 1, 4, launcher.MAX_RESTARTS)
    assert (here.rdzv_backend, here.rdzv_endpoint, here.local_addr) == ("quantai", "", "127.0.0.1")
    assert here.logs_specs.root_log_dir == os.devnull
    there = read_by_torchrun(launcher.meeting("127.0.0.1:29400", 2, host=False), 1)
    assert (there.min_nodes, there.max_nodes, there.rdzv_endpoint, there.run_id) == (2, 2, "127.0.0.1:29400", "quantai")
    assert there.rdzv_backend == "quantai"


def test_two_runs_on_one_machine_have_names_of_their_own(tmp_path: Path) -> None:
    assert len({launcher.meeting("", 1, host=True, folder=tmp_path).run_id for _ in range(2)}) == 2


def test_folder_of_the_ranks_is_private_and_starts_empty(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        folder = launcher.ranks_folder(tmp_path / "s")
        (folder / "left behind").touch()
        assert launcher.ranks_folder(tmp_path / "s") == folder
    finally:
        os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_rendezvous_listens_only_at_its_address() -> None:
    port = free_port()
    with launcher.listen(f"127.0.0.1:{port}") as listening:
        assert listening.getsockname() == ("127.0.0.1", port)
        with pytest.raises(OSError, match=rf"cannot listen at the rendezvous 127\.0\.0\.1:{port}: .*in use; TRAIN_RDZV_ENDPOINT"):
            launcher.listen(f"127.0.0.1:{port}")


@pytest.mark.parametrize("host", ["0.0.0.0", "0"])
def test_a_rendezvous_at_every_address_is_refused(host: str) -> None:
    with pytest.raises(OSError, match="stands for every address of this machine"):
        launcher.listen(f"{host}:{free_port()}")


def test_a_rendezvous_whose_name_is_loopback_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like Debian, whose /etc/hosts maps the machine's own name to 127.0.1.1."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 29400))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(OSError, match=r"on this machine trainer is 127\.0\.1\.1, which no other machine reaches"):
        launcher.listen("trainer:29400")


def test_several_machines_without_a_place_to_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="--rdzv-endpoint must be HOST:PORT of the engine's machine, got 'nowhere'"):
        launcher.meeting("nowhere", 2, host=False)


def test_an_endpoint_that_no_way_leads_to_is_named() -> None:
    with pytest.raises(OSError, match=r"no way from this machine to the rendezvous no\.such\.host\.invalid:1"):
        launcher.local_address("no.such.host.invalid:1")


def test_ranks_share_the_cores_and_what_an_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(17)), raising=False)
    here = launcher.meeting("", 1, host=True, folder=tmp_path)
    there = launcher.meeting("127.0.0.1:29400", 2, host=True)
    wished = launcher.rank_environment(here, 4)
    assert wished["OMP_NUM_THREADS"] == "4"
    assert wished["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert wished["PYTHONSAFEPATH"] == "1"
    if sys.platform == "linux":
        assert wished["GLOO_SOCKET_IFNAME"] == "lo"
    assert launcher.threads_per_rank(64) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert not {"OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"} & set(launcher.rank_environment(there, 4))
    if sys.platform == "linux":
        assert launcher.rank_environment(here, 4)["GLOO_SOCKET_IFNAME"] == "lo", "one machine opens no port to a network"


def test_by_hand_an_endpoint_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        node.main([])
    assert "--rdzv-endpoint must be HOST:PORT" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        node.main(["--nnodes", "1"])
    assert "--nnodes must be the number of machines of the run" in capsys.readouterr().err


def test_the_launcher_and_the_agent_load_without_torch() -> None:
    text = "import sys, quantai_tui.training.node, quantai_tui.training.launcher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], env=environment(), check=False).returncode == 0


@pytest.mark.processes
def test_two_agents_meet_and_a_rank_killed_on_one_starts_the_ranks_of_both_anew(tmp_path: Path) -> None:
    """The guest comes first and torchrun gives it rank 0; the leader is on the engine's machine all the same."""
    port = free_port()
    meeting = ("--nodes", 2, "--endpoint", f"127.0.0.1:{port}", "--nproc", 1)
    scenario = {"steps": 40, "reports": True, "overflow": {"1": [20]}, "end": {"rank": 1, "step": 15, "by": "SIGKILL"}}
    guest = agent(tmp_path, *meeting, host=False)
    until((tmp_path / "agent.guest").exists, "the guest is up")
    host = agent(tmp_path, *meeting, scenario=scenario)
    try:
        until(lambda: list(tmp_path.glob("up.*")), "the ranks train")
        open_ports = [each for process in (guest, host) for each in listeners(process.pid)]
        assert all(each.address == "127.0.0.1" for each in open_ports), "only the endpoint's address"
        assert [each.port for each in open_ports if each.pid == host.pid] == [port]
        assert not [each for each in open_ports if each.pid == guest.pid]
        assert host.wait(WITHIN_S) == 0
        assert guest.wait(WITHIN_S) == 0
    finally:
        for each in (guest, host):
            each.kill()
            each.wait()
    leader, other = seen(tmp_path, 2)
    assert (leader["leader"], leader["torchrun_rank"], other["torchrun_rank"]) == (True, 1, 0)
    assert other["scenario"] == scenario  # nothing but the endpoint was given to the guest
    assert leader["weights"] == other["weights"]
    assert leader["history"] == other["history"]
    assert [step for step, (_, _, skip) in enumerate(leader["history"]) if skip] == [20]
    assert other["attempt"] == 1
    assert [report[0] for report in leader["reports"][:2]] == [0, 1]


ENGINE = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from ranks_support import agent
agent(Path({out!r}), "--nproc", 2, scenario={{"steps": 10**9}})
signal.pause()
"""


@pytest.mark.processes
@pytest.mark.parametrize("victim", ["engine", "agent"])
def test_nothing_outlives_the_engine_or_the_agent_not_even_a_rank_that_hangs(tmp_path: Path, victim: str) -> None:
    text = ENGINE.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    engine = subprocess.Popen([sys.executable, "-c", text], env=environment())
    try:
        up = [tmp_path / f"up.0.{rank}" for rank in (0, 1)]
        until(lambda: all(path.exists() for path in up), "both ranks train")
        agent_pid, *ranks = (int(path.read_text()) for path in (tmp_path / "agent.host", *up))
        os.kill(ranks[1], signal.SIGSTOP)
        os.kill(engine.pid if victim == "engine" else agent_pid, signal.SIGKILL)
        for pid in (agent_pid, *ranks):
            until(lambda pid=pid: gone(pid), f"process {pid} is gone", within_s=30)
    finally:
        engine.kill()
        engine.wait()
