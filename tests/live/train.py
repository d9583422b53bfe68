"""Trains the real esper-lite on synthetic images: a separate program, for the live tests.

usage: ESPER_LITE_SRC=CHECKOUT python train.py OUT [--attach] [--k K] [--rounds N] [--fault F] …
It writes OUT/result.json (hash of weights and random state, error), OUT/pages.json (a page for each
event of an update or a host's epoch) and OUT/update<N>.pt (tensors as the trainer had them).
It holds no code of the trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from live.dump import Dump
from live.faults import inject
from live.kept_pages import ChainingHub
from live.scalers import Scalers
from live.trainer import load, train


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--attach", action="store_true")
    parser.add_argument("--dump", action="store_true")
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--scale", type=float, help="put loss scalers into the hosts")
    parser.add_argument(
        "--fault",
        default="",
        help="logits:tempo:nan, grad:tempo:inf, weights:op:nan, loss:value:inf",
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    load()
    from esper.nissa import get_hub

    hub, chain, exporter, dump = get_hub(), None, None, Dump()
    if options.dump:
        dump.install()
    scalers = None
    if options.scale:
        scalers = Scalers(options.scale)
        scalers.put_in()
    if options.fault:
        inject(options.fault)
    if options.attach:
        from esper_exporter import attach

        chain = ChainingHub(hub)
        exporter = attach(
            "live",
            hub=chain,
            after_update_every=1,
            port=0,
            linger=0,
            state_dir="off",
            watch_process=False,
        )
    took = train(options.k, options.rounds, options.seed)
    hub.flush(timeout=60)
    before_close = exporter.render().decode() if exporter is not None else ""
    hub.close(timeout=60)
    result: dict[str, Any] = {"hash": took.digest, "error": took.error, "seconds": took.wall}
    result |= {"thread_seconds": took.thread, "process_seconds": took.process}
    if chain is not None and chain.pages is not None:
        result |= {"decisions": chain.pages.decisions, "inner_epochs": chain.pages.inner_epochs}
        (options.out / "pages.json").write_text(json.dumps(chain.pages.found))
    result |= {"page": before_close, "end": exporter.render().decode() if exporter else ""}
    if scalers is not None:
        result["scales"] = list(scalers.found.values())
    (options.out / "result.json").write_text(json.dumps(result))
    dump.save(options.out)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # torch takes many seconds to unload, and there is nothing left to do
