"""The policy heads' outputs of the last forward pass: logits before masks and softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from esper_exporter.contract.vocabulary import HEADS


class HeadOutputs:
    """Listens to the modules ``<head>_head`` of a network, one pass at a time.

    An infinite logit is NaN after the softmax, in the log-probability and in the loss: only here
    do both differ. The tensors are kept by reference until the next pass, and nothing is computed.
    """

    def __init__(self, network: nn.Module) -> None:
        inner = getattr(network, "_orig_mod", network)
        self._compiled = inner is not network
        self._modules: Mapping[str, nn.Module] = {
            head: module
            for head in HEADS
            if isinstance(module := getattr(inner, f"{head}_head", None), nn.Module)
        }
        self.last: dict[str, Tensor] = {}

    @contextmanager
    def watched(self, compiled: bool) -> Iterator[None]:
        """Keep what the heads give inside the block, if whether the network is compiled is
        ``compiled``: a compiled one is watched in eager passes only, any other all through an
        update, in which a forward pass may raise before the first evaluation."""
        if compiled is not self._compiled:
            yield
            return
        hooks = [
            module.register_forward_hook(self._keep(head)) for head, module in self._modules.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(self, head: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _given: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self.last[head] = output.detach()

        return keep
