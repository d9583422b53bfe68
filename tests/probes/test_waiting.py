"""The probe on a device: nothing waits for it, and nothing that it knows is lost."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from esper_exporter import Exporter, PolicyProbe
from esper_exporter.probes.torch.machine import Memory
from esper_exporter.probes.torch.phases import Phases
from esper_exporter.probes.torch.transfer import Transfer
from probes.loop import HEADS, LATCHED, NAN, Policy, Told, batch, broken, gradients, page, probe
from support.pages import value

WAITING = (
    *("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"),
    *("equal", "is_nonzero", "item", "unique_consecutive", "repeat_interleave"),
)


class CountsWaiting(TorchDispatchMode):
    """Counts the operations that would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        blocking = name == "_to_copy" and (kwargs or {}).get("device") == torch.device("cpu")
        masked = name in ("index", "index_put_") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1]
        )
        if name in WAITING or blocking or masked:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


class LateArrival:
    """A copy that arrives when the test says so."""

    def __init__(self) -> None:
        self.arrived = False

    def query(self) -> bool:
        return self.arrived

    def synchronize(self) -> None:
        self.arrived = True


class LateTransfer(Transfer):
    """A device's copies, without a device."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.arrivals: list[LateArrival] = []

    @property
    def at_once(self) -> bool:
        return False

    def _copy(self, flat: Tensor) -> tuple[Tensor, LateArrival]:
        self.arrivals.append(LateArrival())
        return flat.clone(), self.arrivals[-1]


def late(sink: Any, policy: Policy) -> tuple[PolicyProbe, LateTransfer]:
    measured = probe(sink, policy)
    transfer = measured._transfer = LateTransfer()
    return measured, transfer


def full_update(measured: PolicyProbe, policy: Policy) -> None:
    steps = torch.randn(12)
    with measured.update() as update:
        update.rollout(
            values=steps,
            returns=steps,
            advantages=steps,
            td_errors=steps,
            actions={head: torch.zeros(12, dtype=torch.long) for head in HEADS},
            valid=steps > 0,
        )
        for _ in range(3):
            update.minibatch(**batch())
            gradients(policy)
            measured.clip_grad_norm_()


def test_nothing_waits_for_the_device() -> None:
    sink, policy = Told(), Policy()
    measured, transfer = late(sink, policy)
    with CountsWaiting() as counted:
        for _ in range(3):
            full_update(measured, policy)
            transfer.arrivals[-1].arrived = True
    assert counted.waits == []
    assert len(transfer.arrivals) == 3, "one copy an update"
    measured.close()
    assert len(sink.of("TAMIYO_POLICY_UPDATE")) == 3 and sink.failures == 0


def test_what_would_wait_would_be_counted() -> None:
    with CountsWaiting() as counted:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
        _ = torch.ones(3)[torch.ones(3) > 0]
    assert [name for name in counted.waits if name in ("_local_scalar_dense", "index")]


def test_an_update_is_reported_when_its_copy_has_arrived() -> None:
    sink, policy = Told(), Policy()
    measured, transfer = late(sink, policy)
    full_update(measured, policy)
    full_update(measured, policy)
    assert sink.of("TAMIYO_POLICY_UPDATE") == []
    transfer.arrivals[0].arrived = True
    full_update(measured, policy)
    assert [each["ppo_update_idx"] for each in sink.of("TAMIYO_POLICY_UPDATE")] == [1]
    measured.close()
    assert [each["ppo_update_idx"] for each in sink.of("TAMIYO_POLICY_UPDATE")] == [1, 2, 3]


@pytest.mark.parametrize("ending", ["raise", "skip"])
def test_on_a_device_a_latch_outlives_an_update_that_raises_or_is_skipped(
    exporter: Exporter, ending: str
) -> None:
    measured, _ = late(exporter, Policy())
    try:
        with measured.update() as update:
            update.minibatch(**{**batch(), **broken("slot", NAN)})
            if ending == "raise":
                raise ZeroDivisionError
            update.skip()
    except ZeroDivisionError:
        pass
    assert value(page(exporter), LATCHED, head="slot", kind="nan") == 1


@pytest.mark.parametrize("kind", ["mps", "xpu", "hpu"])
def test_a_device_that_is_neither_cpu_nor_cuda_is_read_at_once(kind: str) -> None:
    device = torch.device(kind)
    assert Transfer(device).at_once and Memory(device).stats() == {}
    with (phases := Phases(device)).time("forward"):
        pass
    assert len(phases.take()["forward"]) == 1  # by the clock: it has no CUDA events

    class Elsewhere:
        requires_grad = is_cpu = is_cuda = False

        def cpu(self) -> Tensor:
            return torch.ones(3)

    assert Transfer(device).home(Elsewhere()).is_cpu  # type: ignore[arg-type]


def test_parameters_of_ddp_and_of_fsdp_are_measured() -> None:
    """In a separate process: a world of one has global state."""
    done = subprocess.run(
        [sys.executable, "-m", "probes.world_of_one"],
        cwd=__file__.rpartition("/probes/")[0],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ddp", "fsdp"]


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="not proven here, without a CUDA device: that the probe waits for none",
)
def test_on_cuda_nothing_waits_for_the_device() -> None:
    sink, policy = Told(), Policy().cuda()
    measured = probe(sink, policy)
    given = {
        name: {h: v.cuda() for h, v in part.items()} if isinstance(part, dict) else part.cuda()
        for name, part in batch().items()
    }
    for _ in range(2):
        for parameter in policy.parameters():
            parameter.grad = torch.randn_like(parameter)
        torch.cuda.set_sync_debug_mode("error")
        try:
            with measured.update() as update:
                update.minibatch(**given)
                measured.clip_grad_norm_()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    measured.close()
    assert len(sink.of("TAMIYO_POLICY_UPDATE")) == 2 and sink.failures == 0
