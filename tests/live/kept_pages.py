"""The page as it is at each event of an update or a host's epoch."""

from __future__ import annotations

from typing import Any

from live.trainer import EPOCHS


class Pages:
    """A backend after the exporter's: the page as it is when an event has come."""

    def __init__(self, exporter: Any) -> None:
        self.exporter = exporter
        self.found: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.inner_epochs: list[int] = []
        """What the trainer's own events of updates call the inner epoch."""

    def start(self) -> None: ...

    def emit(self, event: Any) -> None:
        name, data = event.event_type.name, event.data
        if name == "ANALYTICS_SNAPSHOT" and data.kind == "last_action":
            self.decisions.append(chosen(data))
        if name not in ("PPO_UPDATE_COMPLETED", "EPOCH_COMPLETED"):
            return
        if name == "PPO_UPDATE_COMPLETED":
            self.inner_epochs.append(data.inner_epoch)
        if name == "EPOCH_COMPLETED" and data.inner_epoch not in (3, EPOCHS):
            return
        about = {"name": name, "batch": getattr(data, "batch", None)}
        about |= {"env": getattr(data, "env_id", None)}
        self.found.append({**about, "page": self.exporter.render().decode()})

    def close(self) -> None: ...


def chosen(data: Any) -> dict[str, str | None]:
    """A decision's choice of each head, spelled as the trainer's own enumerations spell it."""
    from esper.leyline.factored_actions import AlphaTargetAction, TempoAction

    target = next(
        (each.name for each in AlphaTargetAction if each.to_target() == data.alpha_target), None
    )
    return {
        "op": data.action_name,
        "slot": data.slot_id,
        "blueprint": data.blueprint_id,
        "style": data.style,
        "tempo": None if data.tempo_idx is None else TempoAction(data.tempo_idx).name,
        "alpha_target": target,
        "alpha_speed": data.alpha_speed,
        "alpha_curve": data.alpha_curve,
    }


class Chained:
    """One worker for the exporter and then the pages, in this order."""

    def __init__(self, first: Any, then: Any) -> None:
        self.first, self.then = first, then

    def start(self) -> None:
        self.first.start()

    def emit(self, event: Any) -> None:
        self.first.emit(event)
        self.then.emit(event)

    def close(self) -> None:
        self.first.close()


class ChainingHub:
    """Takes the backend that attach adds and puts the pages behind it."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.pages: Pages | None = None

    def add_backend(self, backend: Any) -> None:
        self.pages = Pages(backend._exporter)
        self.hub.add_backend(Chained(backend, self.pages))
