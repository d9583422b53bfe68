"""The faults, and what a person must be sent of each: by hand, from what the alerts promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.chaos.fleet import Fleet

HEAD = "op"
SKEW_SECONDS = 300.0
GROUP_INTERVAL = 330.0
"""Alertmanager's and some scrapes: an alert that comes again sooner counts as the same one."""


@dataclass(frozen=True)
class Fault:
    """What happens, when, and what a person must be sent of it."""

    name: str
    steps: tuple[tuple[float, Callable[[], None]], ...]
    """Seconds after the fault began, and what is done then; the last one mends it."""
    alerts: tuple[Mapping[str, str], ...] = ()
    """Labels of the alerts that must reach a person, each once."""
    latched: tuple[str, ...] = ()
    """Runs whose head must be latched from then on."""
    touches: tuple[str, ...] = ()
    """Runs, nodes and servers whose state must be whole afterwards."""
    apart: tuple[str, ...] = ()
    """Runs, nodes and servers that no other fault may touch meanwhile: it would hide their ends."""
    rest: float = 30.0
    """Seconds after it was mended before another fault may touch the same."""

    @property
    def seconds(self) -> float:
        """From its beginning until it is mended."""
        return self.steps[-1][0]


def failed(run_id: str, reason: str) -> dict[str, str]:
    """The alert of a run that has ended badly."""
    return {"alertname": "EsperRunFailed", "run_id": run_id, "reason": reason}


def latch(run_id: str) -> dict[str, str]:
    """The alert of the head that became NaN."""
    return {
        "alertname": "EsperHeadNonFiniteLatched",
        "run_id": run_id,
        "head": HEAD,
        "kind": "nan",
    }


def about(alertname: str, instance: str) -> dict[str, str]:
    """An alert of a node."""
    return {"alertname": alertname, "instance": instance}


def faults(fleet: Fleet) -> list[Fault]:
    """All faults of the hour."""
    a, b, c, d = (fleet.nodes[name] for name in "abcd")
    x, y = fleet.replicas["x"], fleet.replicas["y"]
    clock = c.clock
    assert clock is not None

    def restart(run_id: str) -> Callable[[], None]:
        node = fleet.node_of(run_id)

        def again() -> None:
            node.reap(run_id)
            node.train(run_id, node.trainings[run_id].vitals)

        return again

    def order(run_id: str, command: str) -> Callable[[], None]:
        return lambda: fleet.node_of(run_id).order(run_id, command)

    def kill(run_id: str) -> Callable[[], None]:
        return lambda: fleet.node_of(run_id).kill(run_id)

    def nan(run_id: str) -> Callable[[], None]:
        return order(run_id, f"nan {HEAD}")

    return [
        Fault(
            "a training under `run` is killed by SIGKILL",
            ((0, kill("killed")), (90, restart("killed"))),
            alerts=(failed("killed", "killed"),),
            # Killed and started again while its agent is away, a run goes on: nothing is reported.
            touches=("killed", "a"),
        ),
        Fault(
            "a training beside an agent is killed by SIGKILL",
            ((0, kill("vanished")), (90, restart("vanished"))),
            alerts=(failed("vanished", "died"),),
            touches=("vanished",),
        ),
        Fault(
            "a training raises",
            ((0, order("raises", "raise")), (90, restart("raises"))),
            alerts=(failed("raises", "exception"),),
            touches=("raises",),
        ),
        Fault(
            "a head is NaN in one update",
            ((0, nan("nan")),),
            alerts=(latch("nan"),),
            latched=("nan",),
            touches=("nan",),
        ),
        Fault(
            "a head is NaN, SIGKILL in the same moment",
            ((0, order("nan-and-killed", f"nan-kill {HEAD}")), (90, restart("nan-and-killed"))),
            alerts=(latch("nan-and-killed"), failed("nan-and-killed", "killed")),
            latched=("nan-and-killed",),
            touches=("nan-and-killed", "a"),
        ),
        Fault(
            "an agent is killed and started at once",
            ((0, b.kill_agent), (1, b.start_agent)),
            touches=("b",),
        ),
        Fault(
            "an agent is away for 3 minutes, a training is killed meanwhile",
            (
                (0, a.kill_agent),
                (60, kill("agent-away")),
                (180, a.start_agent),
                (270, restart("agent-away")),
            ),
            alerts=(about("EsperAgentDown", a.address), failed("agent-away", "killed")),
            touches=("a", "agent-away"),
        ),
        Fault(
            "one Prometheus is away for 2 minutes, a head is NaN meanwhile",
            ((0, x.kill), (30, nan("no-prometheus")), (120, x.start)),
            alerts=(latch("no-prometheus"),),
            latched=("no-prometheus",),
            touches=("prometheus-x", "no-prometheus"),
        ),
        Fault(
            "the other Prometheus is killed and started at once",
            ((0, y.kill), (1, y.start)),
            touches=("prometheus-y",),
        ),
        Fault(
            "Alertmanager is away for 2 minutes, a training raises meanwhile",
            (
                (0, fleet.alertmanager.kill),
                (30, order("no-alertmanager", "raise")),
                (120, fleet.alertmanager.start),
                (240, restart("no-alertmanager")),
            ),
            alerts=(failed("no-alertmanager", "exception"),),
            touches=("no-alertmanager",),
            # Of what begins and is mended meanwhile it is never sent that it fires; where only the
            # end falls into its absence, the same alert soon afterwards counts as going on.
            apart=("killed", "vanished", "raises", "nan-and-killed", "agent-away", "c"),
        ),
        Fault(
            "the store is away for 5 minutes",
            ((0, fleet.store.kill), (300, fleet.store.start)),
            touches=("store",),
        ),
        Fault(
            "the disk of the state directories is full for 9 minutes, a head is NaN meanwhile",
            ((0, d.disk.fill), (60, nan("full-disk")), (540, d.disk.free)),
            alerts=(
                {"alertname": "EsperDiskFull", "run_id": "full-disk", "directory": "state"},
                latch("full-disk"),
            ),
            latched=("full-disk",),
            touches=("full-disk",),
        ),
        Fault(
            "the share is full for 3 minutes, a head is NaN meanwhile",
            ((0, b.share.fill), (30, nan("full-share")), (180, b.share.free)),
            alerts=(latch("full-share"),),
            latched=("full-share",),
            touches=("full-share", "b"),
        ),
        Fault(
            "a node's clock is 5 minutes behind for 5 minutes, a head is NaN meanwhile",
            (
                (0, lambda: clock.set(-SKEW_SECONDS)),
                (60, nan("slow-clock")),
                (300, lambda: clock.set(0)),
            ),
            alerts=(about("EsperClockSkewed", c.address), latch("slow-clock")),
            latched=("slow-clock",),
            touches=("c", "slow-clock"),
            rest=GROUP_INTERVAL,
        ),
        Fault(
            "a node's clock is 5 minutes ahead for 5 minutes, a head is NaN meanwhile",
            (
                (0, lambda: clock.set(SKEW_SECONDS)),
                (60, nan("fast-clock")),
                (300, lambda: clock.set(0)),
            ),
            alerts=(about("EsperClockSkewed", c.address), latch("fast-clock")),
            latched=("fast-clock",),
            touches=("c", "fast-clock"),
            rest=GROUP_INTERVAL,
        ),
    ]
