"""All settings of an exporter, as arguments or as environment variables."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypedDict

from esper_exporter.health import GRAD_NORM_CRITICAL

PREFIX = "ESPER_EXPORTER_"
RUN_ID_VARIABLE = "ESPER_RUN_ID"

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})


AUTO, ON, OFF = "auto", "on", "off"

KEEP_SECONDS = 900.0
"""How long an agent keeps the page of an ended process."""


def default_state_dir() -> Path | None:
    """Where the user's programs keep state (XDG base directories), None where there is no home."""
    try:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return Path(base) / "esper-exporter"


def default_share() -> Path:
    """Where this user's processes share their pages: in memory, because nothing in it survives a
    reboot, nor should it."""
    base = Path("/dev/shm")
    if not base.is_dir():
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or gettempdir())
    return base / f"esper-exporter-{os.getuid()}"


RANK_VARIABLES = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
"""Where launchers say which rank a process is, and of how many."""

JOB_VARIABLES = {
    "job_id": "SLURM_JOB_ID",
    "job_partition": "SLURM_JOB_PARTITION",
    "job_user": "SLURM_JOB_USER",
}
"""Where Slurm says which job a process belongs to."""


def launcher_rank(environ: Mapping[str, str]) -> int | None:
    """The rank that torchrun, srun or mpirun gave this process; None outside a group of ranks."""
    for rank, size in RANK_VARIABLES:
        found, of = environ.get(rank, ""), environ.get(size, "")
        if found.isdecimal() and of.isdecimal() and int(of) > 1:
            return int(found)
    return None


AnyPath = str | os.PathLike[str]


class SettingsArguments(TypedDict, total=False):
    """The settings as keyword arguments, as a person gives them; None: not given."""

    port: int | None
    host: str | None
    run_id: str | None
    job_id: str | None
    job_partition: str | None
    job_user: str | None
    web_config: AnyPath | None
    unix_socket: AnyPath | None
    allowed_hosts: str | Iterable[str] | None
    strict: bool | None
    max_series: int | None
    share: AnyPath | None
    state_dir: AnyPath | None
    textfile_dir: AnyPath | None
    file_sd: AnyPath | None
    linger: float | None
    term_linger: float | None
    watch_process: bool | None
    rank: int | None
    explosion_norm: float | None
    gpu_vitals: str | None
    host_vitals: str | None
    vitals_interval: float | None
    gpu_slow_interval: float | None
    telemetry_dir: AnyPath | None
    checkpoint_dir: AnyPath | None
    journal: AnyPath | None
    journal_max_bytes: int | None
    journal_max_age: float | None
    push: str | None
    push_interval: float | None
    push_labels: str | Iterable[str] | None
    push_config: AnyPath | None
    push_max_bytes: int | None
    push_max_age: float | None
    push_linger: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one exporter; `ESPER_EXPORTER_<NAME>` sets each that was not given.

    An argument wins over the environment. Bad values raise ValueError with the setting's name.
    """

    port: int | None = 9108
    host: str = "127.0.0.1"
    run_id: str | None = None
    job_id: str | None = None
    job_partition: str | None = None
    job_user: str | None = None
    web_config: Path | None = None
    unix_socket: Path | None = None
    allowed_hosts: tuple[str, ...] | None = None
    strict: bool = False
    max_series: int = 100_000
    share: Path | None = field(default_factory=default_share)
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
    journal: Path | None = None
    journal_max_bytes: int = 0
    journal_max_age: float = 0.0
    push: str | None = field(default=None, repr=False)
    push_interval: float = 15.0
    push_labels: tuple[str, ...] | None = None
    push_config: Path | None = None
    push_max_bytes: int = 64 << 20
    push_max_age: float = 6 * 3600.0
    push_linger: float = 10.0

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ValueError(f"port must lie between 0 and 65535, not {self.port}")
        if self.max_series < 1000:
            raise ValueError(f"max_series must be at least 1000, not {self.max_series}")
        for name in ("linger", "term_linger", "push_linger"):
            seconds = getattr(self, name)
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"{name} must be a number of seconds, 0 for none, not {seconds}")
        for name in ("journal_max_bytes", "journal_max_age"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0, for no limit, or more")
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
        if not 1 <= self.push_interval < float("inf"):
            raise ValueError(f"push_interval must be at least 1 s, not {self.push_interval}")
        if self.push_max_bytes < 1 << 20:
            raise ValueError(f"push_max_bytes must be at least 1 MiB, not {self.push_max_bytes}")
        if not 60 <= self.push_max_age < float("inf"):
            raise ValueError(f"push_max_age must be at least 60 s, not {self.push_max_age}")
        if self.run_id is not None and not 0 < len(self.run_id) <= 256:
            raise ValueError("run_id must have 1 to 256 characters")
        for name in JOB_VARIABLES:
            if len(getattr(self, name) or "") > 256:
                raise ValueError(f"{name} must have at most 256 characters")


def _whole(value: Any) -> int:
    if isinstance(value, (bool, float)):
        raise TypeError
    return int(value) if isinstance(value, str) else operator.index(value)


def _real(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    lowered = value.strip().lower()
    if lowered not in TRUE | FALSE:
        raise ValueError
    return lowered in TRUE


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _path(value: Any) -> Path:
    return Path(os.fspath(value))


def _directory(value: Any) -> Path | None:
    return None if value == OFF else Path(os.fspath(value))


def _names(value: Any) -> tuple[str, ...]:
    """Names, in one text with commas between them or one by one."""
    listed = value.split(",") if isinstance(value, str) else value
    return tuple(name.strip() for name in listed if name.strip())


def _port(value: Any) -> int | None:
    return None if value == OFF else _whole(value)


_Reader = tuple[Callable[[Any], Any], str]
"""What reads a value, from an argument or a variable's text, and what that has to be."""

_BY_TYPE: dict[str, _Reader] = {
    "int": (_whole, "a whole number"),
    "float": (_real, "a number of seconds"),
    "bool": (_flag, "yes or no (1/0, true/false, on/off)"),
    "str": (_text, "text"),
    "Path": (_path, "a path"),
}
_SPECIAL: dict[str, _Reader] = {
    "port": (_port, "a whole number, or off"),
    "allowed_hosts": (_names, "host names"),
    "share": (_directory, "a path, or off"),
    "state_dir": (_directory, "a path, or off"),
    "explosion_norm": (_real, "a number"),
    "push_labels": (_names, "NAME=VALUE, with commas between them"),
}
_READERS = {
    each.name: _SPECIAL.get(each.name) or _BY_TYPE[str(each.type).removesuffix(" | None")]
    for each in fields(Settings)
}


def _read(setting: str, name: str, value: Any) -> Any:
    """A setting's value, or ValueError that calls it ``name``: the argument or the variable."""
    read, wanted = _READERS[setting]
    try:
        return read(value)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{name} must be {wanted}, not {value!r}") from None


def override(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings with those arguments in their place that were given.

    Raises as `read_settings`.
    """
    check_names(given)
    changed = {name: _read(name, name, value) for name, value in given.items() if value is not None}
    return replace(settings, **changed)


def check_names(given: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument that is no setting."""
    unknown = [name for name in given if name not in _READERS]
    if unknown:
        raise TypeError(f"Exporter got an unexpected keyword argument {unknown[0]!r}")


def read_settings(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from arguments (None: not given) and, for the rest, from the environment.

    Raises ValueError with one sentence that names the argument or the variable, TypeError for an
    argument that is no setting.
    """
    check_names(given)
    chosen: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for setting in fields(Settings):
        name = setting.name
        if given.get(name) is not None:
            chosen[name] = _read(name, name, given[name])
            continue
        variable = PREFIX + name.upper()
        text = environ.get(variable)
        if text is None and name == "run_id":
            variable, text = RUN_ID_VARIABLE, environ.get(RUN_ID_VARIABLE)
        if text:
            chosen[name] = _read(name, variable, text)
            variables[name] = variable
    chosen.setdefault("rank", launcher_rank(environ))
    if chosen.get("watch_process", True):
        # A recording that a job replays was not made by that job.
        for name, variable in JOB_VARIABLES.items():
            if name not in chosen and environ.get(variable):
                chosen[name] = environ[variable]
                variables[name] = variable
    try:
        return Settings(**chosen)
    except ValueError as error:
        # The sentence begins with the setting's name: where it came from the environment, with
        # the variable's.
        name, _, rest = str(error).partition(" ")
        raise ValueError(f"{variables.get(name, name)} {rest}") from None
