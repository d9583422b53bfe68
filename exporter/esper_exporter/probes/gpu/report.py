"""What a sampler has found so far: immutable, so that a scrape reads it while the next is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from esper_exporter.probes.gpu.driver import CudaDevice, Identity, MigInstance, Versions
from esper_exporter.probes.samples import Cells

FieldErrors = Mapping[tuple[str, str], int]
"""(field, error) → how often."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU: its last numbers, none once it is lost, and when it last answered (Unix time)."""

    identity: Identity
    cells: Cells = field(default_factory=dict)
    instances: tuple[MigInstance, ...] = ()
    answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class GpuReport:
    """All GPUs. ``whole``: this process tells of whole GPUs, not only of its own share of them."""

    source: str
    whole: bool = True
    present: bool | None = None
    versions: Versions = field(default_factory=Versions)
    gpus: tuple[GpuSample, ...] = ()
    errors: FieldErrors = field(default_factory=dict)
    cuda: tuple[CudaDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class XidReport:
    """Errors that the driver told of, by GPU and code: how many, and when the last came.

    A GPU that is watched has an entry for each code that means broken hardware, from the start.
    """

    counts: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(gpu, uuid, xid) → number."""
    last: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    errors: FieldErrors = field(default_factory=dict)
