"""attach: an exporter for esper's own trainer, in one line and without a change to it."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

from esper_exporter.adapters.esper.join import BATCH_EVENTS, Joining
from esper_exporter.adapters.esper.seams import Seams
from esper_exporter.exporter import Exporter

logger = logging.getLogger("esper_exporter")

AFTER_UPDATE_EVERY = 10


class EsperExporterBackend:
    """The hub's backend: delivers its events, with the measurements, to the exporter."""

    def __init__(self, exporter: Exporter, joining: Joining) -> None:
        self._exporter = exporter
        self._joining = joining

    def start(self) -> None:
        """The hub starts its backends when they are added."""
        self._exporter.start()

    def emit(self, event: Any) -> None:
        """One event of the trainer, on the hub's worker thread. Never raises."""
        kind = getattr(event, "event_type", None)
        name = getattr(kind, "name", kind)
        try:
            joined = self._joining.joined(name, event)
        except Exception:
            self._exporter.probe_failed()
            joined = event
        self._exporter.emit(joined)
        if name in BATCH_EVENTS:
            self._settle(event)

    def _settle(self, event: Any) -> None:
        """The batch is over: a measured update without an event gets none any more."""
        batch = getattr(getattr(event, "data", None), "batch_idx", None)
        if batch is not None:
            self._incomplete((event.group_id, batch), self._joining.left((event.group_id, batch)))

    def settle_everything(self) -> None:
        """No event comes any more: measured updates that still wait were not completed."""
        for key, measured in self._joining.everything_left().items():
            self._incomplete(key, measured)

    def _incomplete(self, key: tuple[str, int], measured: Any) -> None:
        if measured is None:
            return
        self._exporter.emit(
            {
                "event_type": "NUMERICAL_INSTABILITY_DETECTED",
                "timestamp": self._exporter.now(),
                "group_id": key[0],
                "data": {
                    "anomaly_type": "update_incomplete",
                    "episode": 0,
                    "batch": key[1],
                    "inner_epoch": 1,
                    "total_episodes": 0,
                    "detail": measured.outcome,
                },
            }
        )

    def close(self) -> None:
        """The hub closes its backends at the end."""
        self._exporter.close()


def attach(
    run_id: str | None = None,
    *,
    hub: Any = None,
    after_update_every: int = AFTER_UPDATE_EVERY,
    **settings: Any,
) -> Exporter:
    """Attach an exporter to esper's trainer: one line before training starts.

    Starts an exporter, adds it to esper's telemetry hub and measures the trainer from outside; what
    is measured joins the trainer's own events. ``Exporter.close``, which the hub calls at its end,
    undoes all of it.

    ``run_id`` names the run. ``hub`` is the hub to add the exporter to, esper's global one unless
    given. Every ``after_update_every`` updates one more forward pass measures the finished update
    (``…_after_update``); 0 does not. ``settings`` are those of `esper_exporter.Exporter`.

    Raises ModuleNotFoundError where esper is not installed, ValueError for settings that make no
    sense. Call it before the first update, on any thread.
    """
    if hub is None:
        from esper.nissa import get_hub  # type: ignore[import-not-found]

        hub = get_hub()
    exporter = Exporter(run_id=run_id, **settings)
    joining = Joining(exporter.probe_disagreed)
    backend = EsperExporterBackend(exporter, joining)
    with suppress(TypeError):  # a hub of another version, that delivers at once
        exporter.use_hub(hub)
    instrument(exporter, backend, joining, after_update_every)
    hub.add_backend(backend)
    return exporter


def instrument(
    exporter: Exporter, backend: EsperExporterBackend, joining: Joining, after_update_every: int
) -> None:
    """Install the seams; closing the exporter removes them. Without torch there is nothing to
    measure, and the hub's events go to the exporter all the same."""
    # They need torch, which the trainer loads, and this module does not.
    try:
        from esper_exporter.adapters.esper.context import Context
        from esper_exporter.adapters.esper.host import HostSeams
        from esper_exporter.adapters.esper.host_scales import HostScales
        from esper_exporter.adapters.esper.policy_update import PolicySeams
        from esper_exporter.probes.torch import loop_hooks
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        logger.warning("torch is not installed: the trainer's events are exported, not measured")
        return

    seams, context, scales = Seams(exporter.probe_seam), Context(), HostScales()
    policy = PolicySeams(exporter, joining, context, scales, after_update_every)
    policy.install(seams)
    HostSeams(exporter, joining, context, policy.phases, scales).install(seams)
    loop_hooks.hold()
    once = threading.Lock()

    def undo() -> None:
        if once.acquire(blocking=False):
            seams.close()
            loop_hooks.let_go()
            policy.arrive()
            backend.settle_everything()

    exporter.on_close(undo)
    for seam in ("clipping", "optimizer"):
        exporter.probe_seam(seam, True)
