"""The samplers' reports: immutable, so that a scrape can read one while the next is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from esper_exporter.probes.gpu.driver import CudaDevice, Identity, MigInstance, Versions
from esper_exporter.probes.samples import Cells

FieldErrors = Mapping[tuple[str, str], int]
"""(field, error) → how often."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU: its last values (empty once it is lost), and when it last answered (Unix time)."""

    identity: Identity
    cells: Cells = field(default_factory=dict)
    instances: tuple[MigInstance, ...] = ()
    answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class GpuReport:
    """All GPUs. ``whole``: this process reports whole GPUs, not only its share of them."""

    source: str
    whole: bool = True
    present: bool | None = None
    versions: Versions = field(default_factory=Versions)
    gpus: tuple[GpuSample, ...] = ()
    errors: FieldErrors = field(default_factory=dict)
    cuda: tuple[CudaDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class XidReport:
    """Errors that the driver reported, by GPU and code: their count and the last one's time.

    A watched GPU has an entry for each code that means broken hardware from the start.
    """

    counts: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(gpu, uuid, xid) → number."""
    last: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    errors: FieldErrors = field(default_factory=dict)
