"""Scripted NVML: the real binding's constants and errors, with canned answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pynvml

Outcome = Any
"""What a call gives: an error's number wrapped in `Fails`, `MISSING`, or the answer itself."""

MISSING = object()
"""The binding or the driver does not have the function."""

FIELD_IDS = (82, 74, 76, 77, 79, 269, 270, 271, 38, 45, 52, 59)
UNSIGNED_LONG_LONG = 3
OUR_PID, OTHER_PID = 4711, 815
GIB = 2**30


class Fails:
    """An outcome that is an error of NVML."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Fails({self.value})"


def field_value(number: int, value: int, status: int = 0) -> SimpleNamespace:
    """What nvmlDeviceGetFieldValues reports for one field."""
    return SimpleNamespace(
        fieldId=number,
        valueType=UNSIGNED_LONG_LONG,
        nvmlReturn=status,
        value=SimpleNamespace(ullVal=value),
    )


def answers(index: int, round_: int = 0) -> dict[str, Callable[..., Any]]:
    """What a healthy GPU answers; every number differs by GPU and by round."""
    own = 10 * index + round_
    memory = SimpleNamespace(
        total=80 * GIB, free=(60 - own) * GIB, used=(19 + own) * GIB, reserved=GIB
    )
    return {
        "nvmlDeviceGetUtilizationRates": lambda: SimpleNamespace(gpu=90 - own, memory=40 + own),
        "nvmlDeviceGetMemoryInfo": lambda version=None: memory,
        "nvmlDeviceGetTemperature": lambda sensor: 50 + own,
        "nvmlDeviceGetPowerUsage": lambda: 312_500 + own,
        "nvmlDeviceGetEnforcedPowerLimit": lambda: 700_000 + own,
        "nvmlDeviceGetTotalEnergyConsumption": lambda: 5_000_500 + own,
        "nvmlDeviceGetClockInfo": lambda kind: (1980 if kind == 1 else 2619) + own,
        "nvmlDeviceGetMaxClockInfo": lambda kind: (2000 if kind == 1 else 2700) + own,
        "nvmlDeviceGetSupportedClocksEventReasons": lambda: 0x1FF,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda: 0x4 | 0x40,
        "nvmlDeviceGetPerformanceState": lambda: own % 16,
        "nvmlDeviceGetFanSpeed": lambda: 30 + own,
        "nvmlDeviceGetCurrPcieLinkGeneration": lambda: 5,
        "nvmlDeviceGetCurrPcieLinkWidth": lambda: 16,
        "nvmlDeviceGetPcieReplayCounter": lambda: 7 + own,
        "nvmlDeviceGetPcieThroughput": lambda counter: 1000 * (1 + counter) + own,
        "nvmlDeviceGetFieldValues": lambda ids: [
            field_value(number, 64 if number == 82 else number * 10**9 + own) for number in ids
        ],
        "nvmlDeviceGetTotalEccErrors": lambda kind, scope: 100 * kind + 10 * scope + own,
        "nvmlDeviceGetRetiredPages": lambda cause: [4096] * (cause + 1),
        "nvmlDeviceGetRemappedRows": lambda: (1 + own, 2 + own, 0, 1),
        "nvmlDeviceGetMigMode": lambda: [0, 0],
        "nvmlDeviceGetComputeRunningProcesses": lambda: [
            SimpleNamespace(pid=OUR_PID, usedGpuMemory=(2 + own) * GIB),
            SimpleNamespace(pid=OTHER_PID, usedGpuMemory=GIB),
        ],
        "nvmlDeviceGetProcessUtilization": lambda since: [
            SimpleNamespace(pid=OUR_PID, smUtil=60 + own % 20, timeStamp=since + 1),
            SimpleNamespace(pid=OTHER_PID, smUtil=5, timeStamp=since + 1),
        ],
    }


class ScriptedNvml:
    """Stands for the module ``pynvml``. Handles are the GPUs' indices.

    ``outcomes`` overrule answers, by function, or by function and index of the GPU; they may be
    changed between two calls. ``round`` makes all numbers others. ``gates`` hold a call until
    they are set, ``waiting`` is set meanwhile.
    """

    def __init__(self, count: int = 1, *, mig: int = 0, old: Sequence[str] = ()) -> None:
        self.count = count
        self.mig = mig
        self.round = 0
        self.outcomes: dict[Any, Outcome] = {}
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.waiting = threading.Event()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.events: list[Outcome] = []
        self.opened = 0
        self._old = set(old)

    def __dir__(self) -> list[str]:
        return dir(pynvml)

    def __getattr__(self, name: str) -> Any:
        """A function by script; a constant or an error of the real binding."""
        if name in self._old or self.outcomes.get(name) is MISSING:
            raise AttributeError(name)
        if not (name.startswith("nvml") and callable(getattr(pynvml, name))):
            return getattr(pynvml, name)
        return lambda *arguments, **named: self._call(name, arguments, named)

    def _call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.calls.append((name, arguments))
        index = arguments[0] if arguments and isinstance(arguments[0], int) else None
        gate = None if index is None else self.gates.get((name, index))
        if gate is not None and not gate.is_set():
            self.waiting.set()
            assert gate.wait(60), "the test did not open the gate"
        outcome = self.outcomes.get((name, index), self.outcomes.get(name))
        if isinstance(outcome, Fails):
            raise pynvml.NVMLError(outcome.value)
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is MISSING:
            raise AttributeError(name)
        if outcome is not None:
            return outcome
        own = getattr(self, "_" + name, None) if not name.startswith("_") else None
        if own is not None:
            return own(*arguments, **named)
        assert index is not None, name
        return answers(index, self.round)[name](*arguments[1:], **named)

    def _nvmlInit(self) -> None:
        self.opened += 1

    def _nvmlShutdown(self) -> None:
        self.opened -= 1

    def _nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def _nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 13010

    def _nvmlDeviceGetCount(self) -> int:
        return self.count

    def _nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def _nvmlDeviceGetUUID(self, handle: Any) -> str:
        if isinstance(handle, tuple):
            return f"MIG-{handle[0]}-{handle[1]}"
        return uuid(handle)

    def _nvmlDeviceGetName(self, handle: Any) -> bytes:
        return b"NVIDIA H200 MIG 1g.18gb" if isinstance(handle, tuple) else b"NVIDIA H200"

    def _nvmlDeviceGetPciInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(busId=f"00000000:{handle + 0x1B:02X}:00.0".encode())

    def _nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        return [int(self.mig > 0)] * 2

    def _nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 7

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, number: int) -> tuple[int, int]:
        if number >= self.mig:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return (handle, number)

    def _nvmlDeviceGetMemoryInfo(self, handle: Any, version: int | None = None) -> Any:
        if isinstance(handle, tuple):
            return SimpleNamespace(used=3 * GIB + handle[1], total=18 * GIB, free=15 * GIB)
        return answers(handle, self.round)["nvmlDeviceGetMemoryInfo"](version)

    def _nvmlDeviceGetGpuInstanceId(self, handle: tuple[int, int]) -> int:
        return handle[1] + 7

    def _nvmlDeviceGetComputeInstanceId(self, handle: tuple[int, int]) -> int:
        return 0

    def _nvmlEventSetCreate(self) -> str:
        return "set"

    def _nvmlDeviceGetSupportedEventTypes(self, handle: int) -> int:
        return pynvml.nvmlEventTypeXidCriticalError | 1

    def _nvmlDeviceRegisterEvents(self, handle: int, kind: int, events: str) -> None: ...

    def _nvmlEventSetWait_v2(self, events: str, milliseconds: int) -> Any:
        outcome = self.events.pop(0) if self.events else Fails(pynvml.NVML_ERROR_TIMEOUT)
        if isinstance(outcome, Fails):
            raise pynvml.NVMLError(outcome.value)
        return outcome

    def _nvmlEventSetFree(self, events: str) -> None: ...


def uuid(index: int) -> str:
    return f"GPU-{index:08x}-1111-2222-3333-444444444444"


def xid(index: int, code: int) -> SimpleNamespace:
    """An event of the driver."""
    return SimpleNamespace(
        device=index, eventType=pynvml.nvmlEventTypeXidCriticalError, eventData=code
    )
