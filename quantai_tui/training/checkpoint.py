"""Checkpoints as files: written whole or not at all, read with care, few enough to keep for ever.

A file is a dict of plain numbers, texts, lists, dicts and tensors, which is all that `torch.load(weights_only=True)` takes: a
checkpoint that came from elsewhere can be wrong, and cannot run anything. Its name is KEY-SEQUENCE-step-STEP.pt, with "-best"
before the suffix for the best so far. KEY is made from the fingerprint, what the weights were shaped by: files of another model
lie beside, and are gone back to when the settings are. The newest has the highest SEQUENCE; steps may go back, when a run begins
anew. `time` is that of writing, and no other number depends on a clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from ..private_files import make_folders, open_private
from ..telemetry import Severity
from .config import SHAPING_FIELDS, WorkerConfig
from .saved_state import generator_state, number, whole

VERSION = 1
_NAME = re.compile(r"(?P<key>[0-9a-z-]+)-(?P<sequence>\d{8})-step-(?P<step>\d+)(?P<best>-best)?\.pt")
_UNFINISHED = ".unfinished"
_OTHERS_KEPT = 4  # models whose files stay beside those of the present one
# What reading a file of which anything may be wrong can raise.
_UNREADABLE = (
    OSError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, TypeError,
    AttributeError,
)  # fmt: skip
_PARTS = {"version": int, "fingerprint": dict, "step": int, "time": float, "stepper": dict, "loop": dict, "rng": dict}

Tell = Callable[[Severity, str], None]


class CheckpointError(Exception):
    """A file that cannot be gone on from; the text says why."""


class Named(NamedTuple):
    path: Path
    key: str
    sequence: int
    step: int
    best: bool


def skipped(path: Path, why: str) -> str:
    """The warning about a checkpoint that training does not resume from."""
    return f"checkpoint {path.name} is skipped: {why}"


def fingerprint(config: WorkerConfig, features: tuple[str, ...], model: nn.Module) -> dict[str, Any]:
    """What weights and data positions mean something for: another one is another training."""
    shapes = [[name, list(value.shape), str(value.dtype)] for name, value in model.state_dict().items()]
    return {
        **{name: getattr(config, name) for name in sorted(SHAPING_FIELDS)},
        "features": list(features),
        "shapes": hashlib.sha256(json.dumps(shapes).encode()).hexdigest(),
    }


def snapshot(value: Any) -> Any:
    """A copy on the CPU of a state of dicts, lists and tensors: training may go on while it is written."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [snapshot(item) for item in value]
    return value


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there is no NaN and no Inf in a model's state."""
    return all(bool(torch.isfinite(value).all()) for value in tensors.values() if value.is_floating_point())


def random_state() -> dict[str, Any]:
    """Of torch's generators. Python's and numpy's are not used in training: what is shuffled has a generator of its own."""
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Raises ValueError, TypeError and KeyError, and then changes nothing."""
    here = generator_state(state["torch"], "torch's random state")
    cuda = state["cuda"]
    if not isinstance(cuda, list):
        raise ValueError("cuda's random state must be a list")
    if cuda and len(cuda) == torch.cuda.device_count():
        cuda = [generator_state(each, f"the random state of GPU {index}", f"cuda:{index}") for index, each in enumerate(cuda)]
        torch.cuda.set_rng_state_all(cuda)
    torch.set_rng_state(here)


class CheckpointFolder:
    """The checkpoints in one folder, of which one process writes. For one thread at a time."""

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        self.folder = folder
        self._fingerprint = of
        mark = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
        self._key = f"{of['model_size']}-{mark[:10]}"

    def write(self, state: dict[str, Any], step: int, time: float, *, best: bool, keep: int) -> Path:
        """Write `state` beside, then put it in place; remove what is too old to keep. Raises OSError."""
        make_folders(self.folder)
        sequence = max((named.sequence for named in self._all()), default=0) + 1
        path = self.folder / f"{self._key}-{sequence:08d}-step-{step}{'-best' if best else ''}.pt"
        whole = {"version": VERSION, "fingerprint": self._fingerprint, "step": step, "time": time, **state}
        beside = path.with_name(path.name + _UNFINISHED)
        try:
            with open(beside, "wb", opener=open_private) as file:
                _save(whole, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self._sync()
        self._prune(keep)
        return path

    def newest_first(self, tell: Tell) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield readable checkpoints and `tell` of unreadable ones. Take the next one if one is unusable.

        Also tells when there is none left, and removes files of killed writers.
        """
        self._clean()
        found = self._all()
        own = [named for named in found if named.key == self._key]
        for named in reversed(own):
            try:
                state = self.load(named.path)
            except CheckpointError as error:
                tell(Severity.WARNING, skipped(named.path, str(error)))
            else:
                yield named.path, state
        if not own and found:
            last = found[-1].path.name
            tell(Severity.INFO, f"no checkpoint of this model, symbol and interval: training begins anew ({last} is of another)")
        elif own:
            tell(Severity.WARNING, "no checkpoint could be used: training begins anew")

    def load(self, path: Path) -> dict[str, Any]:
        """Raises CheckpointError for what is broken, of another release or of another model."""
        try:
            # torch reads past a flipped bit in a tensor; the archive's own checksums do not.
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("it is compressed, which torch never does: a small file could fill the memory")
                bad = archive.testzip()
            if bad is not None:
                raise ValueError(f"{bad} does not match its checksum")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            raise CheckpointError(f"it is broken: {str(error).splitlines()[0] if str(error) else repr(error)}") from error
        if not isinstance(state, dict) or not isinstance(state.get("version"), int):
            raise CheckpointError("it is not a checkpoint of this program")
        if state["version"] != VERSION:
            raise CheckpointError(f"it is of version {state['version']}, this release reads version {VERSION}")
        for name, kind in _PARTS.items():
            if not isinstance(state.get(name), kind):
                raise CheckpointError(f"its part {name!r} is missing or not what it should be")
        try:
            whole(state, "step")
            number(state, "time")
        except (ValueError, TypeError) as error:
            raise CheckpointError(str(error)) from error
        if other := [name for name, value in self._fingerprint.items() if state["fingerprint"].get(name) != value]:
            raise CheckpointError(f"it is of another {', '.join(other)}")
        return state

    def _all(self) -> list[Named]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        found = []
        for path in self.folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is not None:
                found.append(Named(path, match["key"], int(match["sequence"]), int(match["step"]), match["best"] is not None))
        return sorted(found, key=lambda named: named.sequence)

    def _prune(self, keep: int) -> None:
        """Of this model the newest `keep` and the best stay; of others as many as there were, for the newest few of them."""
        found = self._all()
        own = [named for named in found if named.key == self._key]
        stay = {named.path for named in [n for n in own if not n.best][-keep:] + [n for n in own if n.best][-1:]}
        stay.add(own[-1].path)
        keys = list(dict.fromkeys(named.key for named in reversed(found) if named.key != self._key))
        others = frozenset(keys[:_OTHERS_KEPT])
        for named in found:
            if named.path not in stay and named.key not in others:
                named.path.unlink(missing_ok=True)

    def _clean(self) -> None:
        for path in self.folder.glob(f"*.pt{_UNFINISHED}"):
            path.unlink(missing_ok=True)

    def _sync(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    """Raises OSError, the one with the reason: of a full disk torch itself says "unexpected pos 5184 vs 5104"."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or OSError(str(error).splitlines()[0]) from error
