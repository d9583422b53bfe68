"""What an exporter can be told, as arguments or as environment variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from esper_exporter.health import GRAD_NORM_CRITICAL

PREFIX = "ESPER_EXPORTER_"
RUN_ID_VARIABLE = "ESPER_RUN_ID"

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})


AUTO, ON, OFF = "auto", "on", "off"


def default_state_dir() -> Path | None:
    """Where the user's programs keep state (XDG base directories), None where there is no home."""
    try:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return Path(base) / "esper-exporter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one exporter; `ESPER_EXPORTER_<NAME>` sets each that was not given.

    An argument wins over the environment. Bad values raise ValueError with the setting's name.
    """

    port: int = 9108
    host: str = "127.0.0.1"
    run_id: str | None = None
    web_config: Path | None = None
    unix_socket: Path | None = None
    strict: bool = False
    max_series: int = 100_000
    state_dir: Path | None = field(default_factory=default_state_dir)
    textfile_dir: Path | None = None
    file_sd: Path | None = None
    linger: float = 45.0
    term_linger: float = 25.0
    watch_process: bool = True
    rank: int | None = None
    explosion_norm: float = GRAD_NORM_CRITICAL
    gpu_vitals: str = AUTO
    host_vitals: str = AUTO
    vitals_interval: float = 5.0
    gpu_slow_interval: float = 0.0
    telemetry_dir: Path | None = None
    checkpoint_dir: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must lie between 0 and 65535, not {self.port}")
        if self.max_series < 1000:
            raise ValueError(f"max_series must be at least 1000, not {self.max_series}")
        for name in ("linger", "term_linger"):
            seconds = getattr(self, name)
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"{name} must be a number of seconds, 0 for none, not {seconds}")
        for name in ("gpu_vitals", "host_vitals"):
            if getattr(self, name) not in (AUTO, ON, OFF):
                raise ValueError(f"{name} must be auto, on or off, not {getattr(self, name)!r}")
        if not 0 < self.explosion_norm < float("inf"):
            raise ValueError(f"explosion_norm must be above 0, not {self.explosion_norm}")
        if not 0.1 <= self.vitals_interval < float("inf"):
            raise ValueError(f"vitals_interval must be at least 0.1 s, not {self.vitals_interval}")
        slow = self.gpu_slow_interval
        if not 0 <= slow < float("inf"):
            raise ValueError(f"gpu_slow_interval must be a number of seconds, 0: never, not {slow}")
        if self.run_id is not None and not 0 < len(self.run_id) <= 256:
            raise ValueError("run_id must have 1 to 256 characters")


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered not in TRUE | FALSE:
        raise ValueError(f"want one of {', '.join(sorted((TRUE | FALSE) - {''}))}, not {text!r}")
    return lowered in TRUE


def _directory(told: str | os.PathLike[str]) -> Path | None:
    return None if told == OFF else Path(told)


_READERS: dict[str, Callable[[str], Any]] = {
    "port": int,
    "host": str,
    "run_id": str,
    "web_config": Path,
    "unix_socket": Path,
    "strict": _flag,
    "max_series": int,
    "state_dir": _directory,
    "textfile_dir": Path,
    "file_sd": Path,
    "linger": float,
    "term_linger": float,
    "watch_process": _flag,
    "rank": int,
    "explosion_norm": float,
    "gpu_vitals": str,
    "host_vitals": str,
    "vitals_interval": float,
    "gpu_slow_interval": float,
    "telemetry_dir": Path,
    "checkpoint_dir": Path,
}


_PATHS = (Path, _directory)


def read_settings(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from arguments (None: not given) and, for the rest, from the environment."""
    chosen: dict[str, Any] = {}
    for setting in fields(Settings):
        name = setting.name
        if given.get(name) is not None:
            value = given[name]
            chosen[name] = _READERS[name](value) if _READERS[name] in _PATHS else value
            continue
        variable = PREFIX + name.upper()
        text = environ.get(variable)
        if text is None and name == "run_id":
            variable, text = RUN_ID_VARIABLE, environ.get(RUN_ID_VARIABLE)
        if text:
            try:
                chosen[name] = _READERS[name](text)
            except ValueError as error:
                raise ValueError(f"{variable}: {error}") from None
    return Settings(**chosen)
