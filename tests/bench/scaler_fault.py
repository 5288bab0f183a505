"""The original fault, reproduced and cured: a loss scale that grows by 1.5 every 1,000 steps with nothing above it, beside ours.

Every variant trains the same network on the same batches in true fp16. What is printed stands in the table; the scales over the
steps are drawn into an SVG, on a logarithmic axis.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .report import Options, Row
from .surroundings import measured

CAP = 100_000.0
FAULT = 113_000.0  # where the scale stood when training on a GPU had become unstable
_FEATURES, _WIDTHS, _BATCH = 64, (128, 80), 64  # 18,721 parameters
_POINTS = 400  # of a curve
_COLOURS = {
    "original": "#d1495b",
    "torch": "#8d8d8d",
    "ours": "#2a7fba",
    "ours, calibrated": "#7b5ea7",
    "ours, calibrated, amax": "#3f9b6b",
}
_LOSS_BOUND = 1.01  # no worse than the original's, but for the last digits of a mean over 500 noisy batches
_UNDERFLOW_BOUND = 1e-4
_UNDERFLOW_EVERY = 500  # steps


def run(options: Options) -> list[Row]:
    steps = 2_500 if options.quick else 12_000
    path = options.picture or Path(tempfile.gettempdir()) / "scaler-fault.svg"
    runs = [Run(**one) for one in measured("scaler_fault", f"--steps={steps}")["runs"]]
    path.write_text(drawn(runs, steps), encoding="utf-8")
    by_name = {one.name: one for one in runs}
    original = by_name["original"]
    rows = [
        Row(
            "scaler",
            "highest scale, growth 1.5/1000 without a cap",
            "",
            original.highest,
            note=f"the fault is there: {original.highest:,.0f} is above {FAULT:,.0f}"
            if original.highest > FAULT
            else "the fault did not show in so few steps",
        )
    ]
    for one in runs:
        if one is original:
            continue
        bound = CAP if one.name.startswith("ours") else None
        rows += [
            Row("scaler", f"highest scale, {one.name}", "", one.highest, original.highest, bound),
            Row("scaler", f"skipped of 1,000 steps, {one.name}", "", one.skipped * 1000 / steps, None, _most_skipped(one.name)),
            Row("scaler", f"largest share flushed to zero, {one.name}", "", one.underflow, None, _UNDERFLOW_BOUND),
            Row("scaler", f"final loss, {one.name}", "", one.final_loss, original.final_loss, _LOSS_BOUND, "ratio"),
            Row("scaler", f"weights not finite, {one.name}", "", one.bad_weights, original.bad_weights, 0.0),
        ]
    rows[-1] = Row(**{**_fields(rows[-1]), "note": f"the scales over {steps:,} steps are drawn in {path}"})
    return rows


def _most_skipped(name: str) -> float | None:
    if "calibrated" not in name:
        return None
    return 0.0 if name.endswith("amax") else 0.2


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


@dataclass
class Run:
    """One variant: what became of scale, steps, weights and loss. `curve` holds (step, scale)."""

    name: str
    highest: float = 0.0
    skipped: int = 0
    bad_weights: int = 0
    final_loss: float = math.nan
    underflow: float = 0.0  # the largest share of gradient elements that fp16 flushes to zero at the scale of the time; 0 to 1
    curve: list[tuple[int, float]] = field(default_factory=list)
    overflows: list[int] = field(default_factory=list)


def train(name: str, steps: int) -> Run:
    """Train one variant. The optimizer, the batches and the first weights are those of all others."""
    import torch
    from torch import nn

    torch.manual_seed(7)
    layers: list[nn.Module] = []
    for inputs, outputs in zip((_FEATURES, *_WIDTHS), _WIDTHS, strict=False):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    model = nn.Sequential(*layers, nn.Linear(_WIDTHS[-1], 1))
    teacher = torch.randn(_FEATURES, 1) / math.sqrt(_FEATURES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=False)
    scaler, after_step = _scaling(name, model, optimizer)
    from quantai_tui.training.probing import flushed_share, gradients_at

    weights = list(model.parameters())
    data = torch.Generator().manual_seed(11)
    result, recent = Run(name), []
    for step in range(steps):
        x = torch.randn(_BATCH, _FEATURES, generator=data)
        y = torch.tanh(2 * (x @ teacher)) + 0.5 * torch.randn(_BATCH, 1, generator=data)
        with torch.autocast("cpu", torch.float16):
            prediction = model(x)
        loss = nn.functional.mse_loss(prediction.float(), y)
        if step == 0 and "calibrated" in name:
            _calibrate(after_step, loss, weights)
        if step % _UNDERFLOW_EVERY == 0:
            exact = gradients_at(nn.functional.mse_loss(model(x), y), weights, 1.0)  # in fp32, where nothing is flushed
            result.underflow = max(result.underflow, float(flushed_share(exact, scaler.get_scale())))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(loss))
        scaler.unscale_(optimizer)
        found = any(bool(one) for one in scaler._found_inf_per_device(optimizer).values())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        after_step(found, step)
        scale = scaler.get_scale()
        result.highest = max(result.highest, scale)
        result.skipped += found
        if found:
            result.overflows.append(step)
        if step % max(1, steps // _POINTS) == 0 or found:
            result.curve.append((step, scale))
        recent = [*recent[-499:], loss.item()]
    result.bad_weights = sum(int((~torch.isfinite(one)).sum()) for one in model.parameters())
    finite = [one for one in recent if math.isfinite(one)]
    result.final_loss = sum(finite) / len(finite) if finite else math.inf
    return result


def _calibrate(after_step: Any, loss: Any, weights: Sequence[Any]) -> None:
    from quantai_tui.training.calibration import find_scale
    from quantai_tui.training.probing import gradients_at, largest_magnitude

    def largest(scale: float) -> float:
        return float(largest_magnitude(gradients_at(loss, weights, scale, retain_graph=True)))

    monitor = after_step.monitor
    found = find_scale(largest, monitor.config.floor, monitor.config.cap)
    assert found is not None
    monitor.set_scale(found.scale)


def _scaling(name: str, model: Any, optimizer: Any) -> tuple[Any, Callable[[bool, int], None]]:
    """The scaler of a variant, and what stands where a plain loop calls `scaler.update()`."""
    import torch

    from quantai_tui.training import DynamicGradScalerConfig, GradScalerMonitor

    plain = {"original": {"growth_factor": 1.5, "growth_interval": 1000}, "torch": {}}
    if name in plain:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, **plain[name])
        return scaler, lambda found, step: scaler.update()
    policy = "amax" if name.endswith("amax") else "grow"
    config = DynamicGradScalerConfig(sum(one.numel() for one in model.parameters()), max_scale=CAP, policy=policy)
    scaler = config.create_scaler("cpu")
    monitor = GradScalerMonitor(scaler, config)

    def update(found: bool, step: int) -> None:
        monitor.update(found, step // 1000, step % 1000)
        if not found and policy == "amax":
            monitor.observe_amax(max(float(one.grad.abs().max()) for one in model.parameters()))

    update.monitor = monitor  # type: ignore[attr-defined]
    return scaler, update


def drawn(runs: Sequence[Run], steps: int) -> str:
    """The scales over the steps, an overflow as a dot, cap and fault as lines."""
    width, height, left, top, right, bottom = 960, 420, 70, 40, 250, 40
    highest = max(FAULT, *(one.highest for one in runs)) * 1.3
    lowest = max(min(scale for one in runs for _, scale in one.curve), 1e-3) / 1.3

    def x(step: float) -> float:
        return left + (width - left - right) * step / steps

    def y(scale: float) -> float:
        share = (math.log(scale) - math.log(lowest)) / (math.log(highest) - math.log(lowest))
        return height - bottom - (height - top - bottom) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="20" font-size="14">Loss scale over {steps:,} steps, true fp16, the same network and batches</text>',
    ]
    for octave in range(math.ceil(math.log2(lowest)), math.floor(math.log2(highest)) + 1):
        at = y(2.0**octave)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e6e6e6"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#666">{2.0**octave:,.6g}</text>')
    for label, scale in (("cap 100,000", CAP), ("fault 113,000", FAULT)):
        line = f'<line x1="{left}" x2="{width - right}" y1="{y(scale):.1f}" y2="{y(scale):.1f}"'
        parts.append(f'{line} stroke="#333" stroke-dasharray="4 3"/>')
        shift = 14 if scale == CAP else -4
        parts.append(f'<text x="{left + 6}" y="{y(scale) + shift:.1f}" fill="#333">{label}</text>')
    for number, one in enumerate(runs):
        # The calibrated runs lie over each other for most of the way: thinner lines over thicker ones show them all.
        colour = _COLOURS[one.name]
        points = " ".join(f"{x(step):.1f},{y(max(scale, lowest)):.1f}" for step, scale in one.curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{4 - 0.7 * number:.1f}"/>')
        scales = dict(one.curve)
        parts += [
            f'<circle cx="{x(step):.1f}" cy="{y(max(scales[step], lowest)):.1f}" r="2.6" fill="{colour}"/>'
            for step in one.overflows
        ]
        at = top + 18 * number
        parts.append(
            f'<line x1="{width - right + 12}" x2="{width - right + 32}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(f'<text x="{width - right + 38}" y="{at + 4}">{one.name}, {one.skipped} skipped</text>')
    parts.append(f'<text x="{left}" y="{height - 12}" fill="#666">step 0; dots are overflows</text>')
    parts.append(f'<text x="{width - right}" y="{height - 12}" fill="#666" text-anchor="end">{steps:,}</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    steps = parser.parse_args().steps
    import torch

    torch.set_num_threads(1)
    runs = [train(name, steps) for name in _COLOURS]
    print(json.dumps({"runs": [vars(one) for one in runs]}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
