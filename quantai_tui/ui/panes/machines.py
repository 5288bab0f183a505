"""What training runs on: the GPUs as their driver tells of them, and the processes that train together."""

from __future__ import annotations

from ...telemetry import TOO_HOT, GpuSnapshot, RankSnapshot, TrainingSnapshot
from ..cells import Pace, Row, Span, clip, fitted, row, wrap
from ..format import UNKNOWN, clean, count, decimal, percent, quantity

_GIGA = 1e9
_HOST_WIDTH = 16


def draw_machines(training: TrainingSnapshot, width: int, room: int) -> list[Row]:
    """At most `room` rows: GPUs first, then the table of ranks."""
    if room < 1:
        return []
    several = len(training.ranks) > 1 and room > 3
    for_gpus = max(1, len(training.gpus)) + bool(training.gpus and training.gpu_note)
    for_ranks = min(len(training.ranks) + 1, max(room // 2, room - for_gpus)) if several else 0
    gpus = _draw_gpus(training, width, room - for_ranks)
    ranks = _draw_ranks(training.ranks, width, room - len(gpus)) if for_ranks else []
    return [Row(line.spans, Pace.CHART) for line in (*gpus, *ranks)]  # each of them changes all the time, and a little


def draw_ranks_in_brief(ranks: tuple[RankSnapshot, ...]) -> list[list[Span]]:
    """For a line among others: how many there are, and which of them hold the others up."""
    if not ranks:
        return []
    slow = [str(rank.rank) for rank in ranks if rank.straggler]
    told: list[list[Span]] = [[("ranks ", "muted"), (count(len(ranks)), "text")]]
    return [*told, [(f"rank {', '.join(slow[:3])} slow", "alert-warning")]] if slow else told


def _draw_gpus(training: TrainingSnapshot, width: int, room: int) -> list[Row]:
    note = clean(training.gpu_note)
    if not training.gpus:
        lines = wrap(note or UNKNOWN, width - 4, min(room, 2))
        return [row(("gpu " if not index else "    ", "muted"), (line, "text")) for index, line in enumerate(lines)]
    trouble = [row((line, "alert-warning")) for line in wrap(note, width, max(0, min(2, room - 1)))] if note else []
    room -= len(trouble)
    gpus = sorted(training.gpus, key=lambda gpu: (not gpu.used_by_worker, not _in_trouble(gpu)))
    fit = room if len(gpus) <= room or room == 1 else room - 1
    others = len(gpus) - fit
    rows = [_gpu(gpu, width, several=len(gpus) > 1, others=others if room == 1 else 0) for gpu in gpus[:fit]]
    if others > 0 and room > 1:
        rows.append(row((f"and {others} more GPUs", "muted")))
    return trouble + rows


def _in_trouble(gpu: GpuSnapshot) -> bool:
    return bool(gpu.ecc_errors) or any(reason.startswith(TOO_HOT) for reason in gpu.throttle)


def _gpu(gpu: GpuSnapshot, width: int, *, several: bool, others: int) -> Row:
    """What is most telling first; what does not fit is left out."""
    mark: Span = ("▶ ", "state-live") if gpu.used_by_worker else ("  ", "text")
    name = clean(gpu.name).removeprefix("NVIDIA ") or "GPU"
    heat: Span = (f"{gpu.temperature_c:.0f} °C", "text") if gpu.temperature_c is not None else (UNKNOWN + " °C", "muted")
    worst_first = sorted(gpu.throttle, key=lambda reason: not reason.startswith(TOO_HOT))
    return fitted(
        width,
        [mark, (name, "value")],
        [(f"and {others} more", "muted")] if others > 0 else [],
        [(percent(gpu.utilisation, 0) if gpu.utilisation is not None else f"{UNKNOWN} %", "text")],
        [heat],
        *[[(clean(reason), "alert-warning" if reason.startswith(TOO_HOT) else "text")] for reason in worst_first[:1]],
        [(f"{count(gpu.ecc_errors)} ecc", "alert-warning")] if gpu.ecc_errors else [],
        [(_of(gpu.memory_used_bytes, gpu.memory_total_bytes, "GB"), "text")],
        [(_of(gpu.power_w, gpu.power_limit_w, "W"), "text")],
        [(gpu.uuid.removeprefix("GPU-")[:8], "muted")] if several else [],
        *[[(clean(reason), "text")] for reason in worst_first[1:]],
    )


def _of(used: float | None, most: float | None, unit: str) -> str:
    """`61.2/85.9 GB` from bytes, `412/700 W` from watts; a side that is not known stays a dash."""
    if used is None and most is None:
        return f"{UNKNOWN} {unit}"

    def shown(value: float | None) -> str:
        if value is None:
            return UNKNOWN
        return f"{value / _GIGA:.1f}" if unit == "GB" else f"{value:.0f}"

    return f"{shown(used)}/{shown(most)} {unit}"


def _draw_ranks(ranks: tuple[RankSnapshot, ...], width: int, room: int) -> list[Row]:
    """A table; those that are slow come first, so that they are seen where not all are."""
    if room < 2:
        return []
    slow_first = sorted(ranks, key=lambda rank: (not rank.straggler, rank.rank))
    room -= 1
    fit = room if len(ranks) <= room or room == 1 else room - 1
    rows = [_rank(rank, width) for rank in slow_first[:fit]]
    if len(ranks) > fit and room > 1:
        rows.append(row((f"and {len(ranks) - fit} more ranks", "muted")))
    return [_rank_heads(width), *rows]


_COLUMNS = (("  rank", 6), ("ms/step", 8), ("overflows", 9), ("device", 8), ("step", 11), ("host", _HOST_WIDTH))


def _rank_heads(width: int) -> Row:
    left = {"device", "host", "  rank"}
    return fitted(width, *[[(f"{head:<{size}}" if head in left else f"{head:>{size}}", "muted")] for head, size in _COLUMNS])


def _rank(rank: RankSnapshot, width: int) -> Row:
    token = "alert-warning" if rank.straggler else "text"
    return fitted(
        width,
        [("◆ " if rank.straggler else "  ", token), (f"{rank.rank:<4}", token)],
        [(f"{decimal(rank.step_ms, 3):>8}", token)],
        [(f"{count(rank.overflow_count):>9}", "text")],
        [(f"{clip(clean(rank.device), 8):<8}", "text")],
        [(f"{quantity(rank.step):>11}", "text")],
        [(f"{clip(clean(rank.host), _HOST_WIDTH):<{_HOST_WIDTH}}", "text")],
    )
