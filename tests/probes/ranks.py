"""One rank of a data-parallel training on the CPU: ``ranks.py SHARE STEPS [slow R SECONDS | hang R
STEP | drift R]``, started by torchrun's variables. STEP_SECONDS is how long a rank's own part takes
and RUN_ID the run, unless they are to be 0.1 and "ddp"."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from esper_exporter import Exporter, RankClock

STARTED = {
    "event_type": "SEED_GERMINATED",
    "slot_id": "r0c0",
    "data": {"slot_id": "r0c0", "env_id": 0, "blueprint_id": "norm", "params": 1},
}


def main(share: str, steps: str, fault: str = "", who: str = "-1", amount: str = "0") -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = DistributedDataParallel(torch.nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seconds = float(os.environ.get("STEP_SECONDS", "0.1"))
    run_id = os.environ.get("RUN_ID", "ddp")
    with Exporter(share=share, run_id=run_id, port="off", state_dir="off") as exporter:  # type: ignore[arg-type]
        exporter.emit({**STARTED, "timestamp": time.time()})
        with RankClock(model, optimizer, exporter) as clock:
            for step in range(1, int(steps) + 1):
                mine = rank == int(who)
                if fault == "hang" and mine and step == int(amount):
                    exporter.keep()
                    signal.pause()
                time.sleep(seconds + (float(amount) if fault == "slow" and mine else 0.0))
                optimizer.zero_grad()
                loss = model(torch.ones(4, 8)).square().mean()
                loss.backward()
                optimizer.step()
                weights = model.module.weight.detach().norm().item()
                clock.check(gradient_norm=weights + (1.0 if fault == "drift" and mine else 0.0))
        exporter.keep()
        if rank == 0:
            print("done", flush=True)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
