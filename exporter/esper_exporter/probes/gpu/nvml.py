"""NVML (nvidia-ml-py) as a driver; maps its errors to a fixed vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from esper_exporter.probes.gpu.driver import (
    CudaDevice,
    DriverGone,
    GpuLost,
    Identity,
    MigInstance,
    NoDriver,
    ReadError,
    Versions,
)
from esper_exporter.probes.gpu.nvml_fields import READERS, Handle, known
from esper_exporter.probes.gpu.ordinals import cuda_devices
from esper_exporter.probes.gpu.process_tree import Family
from esper_exporter.probes.samples import Cells

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE = frozenset({"uninitialized", "driver_not_loaded", "lib_rm_version_mismatch"})
LOST = frozenset({"gpu_is_lost"})
NEVER = frozenset({"library_not_found"})
MISSING = "function_not_found"


def _import() -> Any:
    import pynvml

    return pynvml


class Nvml:
    """NVML as a driver. ``load`` returns the module ``pynvml`` or a stand-in.

    ``ours`` returns whether a process id belongs to this training.
    """

    source = "nvml"

    def __init__(
        self, load: Callable[[], Any] = _import, ours: Callable[[int], bool] | None = None
    ) -> None:
        self._load = load
        self._ours = ours or Family().includes
        self._library: Any = None
        self._errors: dict[int, str] = {}

    def open(self) -> None:
        """Load and initialise the library. Raises NoDriver."""
        if self._library is not None:
            return
        try:
            library = self._load()
        except ImportError as error:
            raise NoDriver(f"nvidia-ml-py is not installed ({error})", for_good=True) from error
        self._errors = {
            getattr(library, name): name.removeprefix("NVML_ERROR_").lower()
            for name in dir(library)
            if name.startswith("NVML_ERROR_")
        }
        try:
            with self._translated(library):
                library.nvmlInit()
        except ReadError as failed:
            cause = failed.__cause__ or failed
            raise NoDriver(f"NVML: {cause}", for_good=failed.error in NEVER) from failed
        self._library = library

    def close(self) -> None:
        """Shut the library down. Raises ReadError."""
        library, self._library = self._library, None
        if library is not None:
            with self._translated(library):
                library.nvmlShutdown()

    def versions(self) -> Versions:
        """Versions; empty where the driver does not report them. Raises DriverGone."""
        library = self._opened()
        driver = self._or_none(library.nvmlSystemGetDriverVersion)
        number = self._or_none(lambda: library.nvmlSystemGetCudaDriverVersion_v2())
        cuda = "" if number is None else f"{number // 1000}.{number % 1000 // 10}"
        return Versions(_text(driver), cuda)

    def gpus(self) -> tuple[list[NvmlGpu], list[str]]:
        """The GPUs that report their name, and the errors of the others. Raises ReadError."""
        library = self._opened()
        with self._translated(library):
            count = library.nvmlDeviceGetCount()
        found, errors = [], []
        for index in range(count):
            try:
                found.append(self._gpu(index))
            except DriverGone:
                raise
            except ReadError as failed:
                errors.append(failed.error)
            except Exception:
                errors.append("unexpected")
        return found, errors

    def _gpu(self, index: int) -> NvmlGpu:
        library = self._opened()
        with self._translated(library):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(library.nvmlDeviceGetUUID(handle))
        name = self._or_none(lambda: library.nvmlDeviceGetName(handle))
        bus = self._or_none(lambda: library.nvmlDeviceGetPciInfo(handle).busId)
        identity = Identity(str(index), uuid, _text(name), _text(bus).lower())
        return NvmlGpu(library, handle, identity, self._translated, self._ours)

    def watch(self) -> NvmlWatch:
        """Register for the errors of all GPUs. Raises ReadError."""
        library = self._opened()
        gpus, _ = self.gpus()
        return NvmlWatch(library, gpus, self._translated)

    def cuda_devices(self) -> Sequence[CudaDevice]:
        """The devices that torch sees, once the training uses CUDA."""
        return cuda_devices()

    def _opened(self) -> Any:
        if self._library is None:
            raise DriverGone("uninitialized")
        return self._library

    def _or_none(self, call: Callable[[], Any]) -> Any:
        try:
            with self._translated(self._library):
                return call()
        except DriverGone:
            raise
        except ReadError:
            return None

    @contextmanager
    def _translated(self, library: Any) -> Iterator[None]:
        """Translate the library's errors into ReadError and its subclasses."""
        try:
            yield
        except ReadError:
            raise
        except AttributeError as missing:
            raise ReadError(MISSING) from missing
        except library.NVMLError as failed:
            error = self._errors.get(getattr(failed, "value", -1), "unknown")
            kind = DriverGone if error in GONE else GpuLost if error in LOST else ReadError
            raise kind(error) from failed


Translate = Callable[[Any], Any]


class NvmlGpu:
    """One GPU through NVML."""

    def __init__(
        self,
        library: Any,
        handle: Any,
        identity: Identity,
        translated: Translate,
        ours: Callable[[int], bool],
    ) -> None:
        self.handle = handle
        self.identity = identity
        self._library = library
        self._translated = translated
        self._asked = Handle(library, handle, ours, self._code)

    def read(self, field: str) -> Cells:
        """A field's values. Raises ReadError."""
        with self._translated(self._library):
            return READERS[field](self._asked)

    def instances(self) -> Sequence[MigInstance]:
        """The GPU's MIG instances; empty when MIG is off. Raises ReadError."""
        library = self._library
        with self._translated(library):
            current, _ = library.nvmlDeviceGetMigMode(self.handle)
            if current != library.NVML_DEVICE_MIG_ENABLE:
                return ()
            most = library.nvmlDeviceGetMaxMigDeviceCount(self.handle)
        return [found for index in range(most) if (found := self._instance(index)) is not None]

    def _instance(self, index: int) -> MigInstance | None:
        """One MIG instance; None for an unused index."""
        library = self._library
        try:
            with self._translated(library):
                handle = library.nvmlDeviceGetMigDeviceHandleByIndex(self.handle, index)
                uuid = _text(library.nvmlDeviceGetUUID(handle))
        except ReadError as failed:
            if failed.error in ("not_found", "invalid_argument"):
                return None
            raise

        def optional(call: Callable[[], Any]) -> Any:
            try:
                with self._translated(library):
                    return call()
            except (DriverGone, GpuLost):
                raise
            except ReadError:
                return None

        memory = optional(lambda: library.nvmlDeviceGetMemoryInfo(handle))
        return MigInstance(
            str(index),
            uuid,
            _text(optional(lambda: library.nvmlDeviceGetName(handle))),
            _text(optional(lambda: library.nvmlDeviceGetGpuInstanceId(handle))),
            _text(optional(lambda: library.nvmlDeviceGetComputeInstanceId(handle))),
            None if memory is None else known(memory.used),
            None if memory is None else known(memory.total),
        )

    def _code(self, status: int) -> str:
        """The name of an error status that a call returned instead of raising."""
        try:
            with self._translated(self._library):
                raise self._library.NVMLError(status)
        except ReadError as failed:
            return failed.error


class NvmlWatch:
    """NVML's event set, for XIDs."""

    def __init__(self, library: Any, gpus: Sequence[NvmlGpu], translated: Translate) -> None:
        self._library = library
        self._translated = translated
        self.watched: list[Identity] = []
        self.refused: Mapping[str, str]
        refused: dict[str, str] = {}
        with translated(library):
            self._events = library.nvmlEventSetCreate()
        for gpu in gpus:
            try:
                with translated(library):
                    kind = library.nvmlEventTypeXidCriticalError
                    if not library.nvmlDeviceGetSupportedEventTypes(gpu.handle) & kind:
                        raise ReadError("not_supported")
                    library.nvmlDeviceRegisterEvents(gpu.handle, kind, self._events)
                self.watched.append(gpu.identity)
            except DriverGone:
                self.close()
                raise
            except ReadError as failed:
                refused[gpu.identity.uuid] = failed.error
        self.refused = refused

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """The next XID, or None after ``seconds``. Raises ReadError."""
        library = self._library
        try:
            with self._translated(library):
                event = library.nvmlEventSetWait_v2(self._events, int(seconds * 1000))
        except ReadError as failed:
            if failed.error == "timeout":
                return None
            raise
        if not event.eventType & library.nvmlEventTypeXidCriticalError:
            return None
        try:
            with self._translated(library):
                uuid = _text(library.nvmlDeviceGetUUID(event.device))
        except ReadError:
            # A GPU that is off the bus (XID 79) may no longer report its UUID.
            uuid = self.watched[0].uuid if len(self.watched) == 1 else ""
        return uuid, int(event.eventData)

    def close(self) -> None:
        """Raises ReadError."""
        with self._translated(self._library):
            self._library.nvmlEventSetFree(self._events)


def _text(value: Any) -> str:
    """A name or a number as a label; older bindings return bytes. Raises TypeError."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str | int):
        raise TypeError(f"not text: {value!r}")
    return str(value)
