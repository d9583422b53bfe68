"""A distributed world of one process on the CPU: the probe under DDP and FSDP2."""

from __future__ import annotations

import tempfile

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from esper_exporter import PolicyProbe
from probes.loop import Told, batch


def measure(kind: str) -> None:
    torch.manual_seed(0)
    policy: torch.nn.Module = torch.nn.Linear(8, 6)
    if kind == "ddp":
        policy = DistributedDataParallel(policy)
    else:
        fully_shard(policy, mesh=init_device_mesh("cpu", (1,)))
    sink = Told()
    probe = PolicyProbe(policy, sink, heads={"op": 6}, head_modules={"op": policy}, every=1)
    with probe.update() as update:
        given = {
            name: {"op": part["op"]} if isinstance(part, dict) else part
            for name, part in batch().items()
        }
        update.minibatch(**given)
        (policy(torch.ones(4, 8)).sum() * 100).backward()
        total = probe.clip_grad_norm_()
        torch.optim.SGD(policy.parameters(), 0.1).step()
    assert sink.failures == 0
    reported = sink.update
    assert abs(reported["pre_clip_grad_norm"] - float(total)) < 1e-3 * float(total)
    assert reported["grad_norm"] < 0.51 < reported["pre_clip_grad_norm"]
    assert reported["head_op_grad_norm"] > 1.0 and reported["policy_update_magnitude"] > 0.0
    probe.training_started(task="world")
    assert sink.of("TRAINING_STARTED")[0]["world_size"] == 1
    print(kind)


if __name__ == "__main__":
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("gloo", init_method=f"file://{store.name}", rank=0, world_size=1)
        for kind in ("ddp", "fsdp"):
            measure(kind)
        dist.destroy_process_group()
