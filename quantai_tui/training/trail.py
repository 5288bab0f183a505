"""The way of one forward pass through a model's modules, and where it first went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and mappings; anything else holds none."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_of(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from tensors_of(value)


def all_finite(tree: Any) -> bool:
    """True as well where there is no tensor at all. Asks the device."""
    return all(bool(torch.isfinite(tensor.detach()).all()) for tensor in tensors_of(tree))


class ForwardTrail:
    """While entered, notes the modules of a forward pass and asks the device after each: for a pass made only to find out.

    `order` are the names of the modules as they were called, the model itself being "". `where` names the first whose output was
    not finite, empty when all were: a module inside it would have been asked before. Where already its input was not finite,
    with every output so far finite, what stands between the modules did it: then it is "before" that module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[Any] = []
        self._order: dict[str, None] = {}
        self.where = ""

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self._order)

    def __enter__(self) -> ForwardTrail:
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entered(name), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._left(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _entered(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._order.setdefault(name)
            if not self.where and name and not all_finite((args, kwargs)):
                self.where = f"before {name}"

        return note

    def _left(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            if not self.where and not all_finite(output):
                self.where = name or "the end of the model"

        return note
