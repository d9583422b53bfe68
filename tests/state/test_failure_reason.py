"""Why a run ended, by the exception that ended it."""

from __future__ import annotations

import pytest

from esper_exporter.state.failure_reason import Reason, reason_of


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


class _Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        (SystemExit(), None),
        (SystemExit(0), None),
        (SystemExit(3), Reason.UNKNOWN),
        (SystemExit("the data is gone"), Reason.UNKNOWN),
        (GeneratorExit(), None),
        (KeyboardInterrupt(), Reason.SIGNAL),
        (MemoryError(), Reason.OOM),
        (OutOfMemoryError("CUDA"), Reason.OOM),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), Reason.OOM),
        (OSError(12, "Cannot allocate memory"), Reason.OOM),
        (FloatingPointError("overflow"), Reason.NONFINITE),
        (
            RuntimeError("Function 'LogBackward0' returned nan values in its 0th output."),
            "nonfinite",
        ),
        (RuntimeError("The total norm of order 2.0 is non-finite, so it cannot"), "nonfinite"),
        (ValueError("loss became Inf"), Reason.NONFINITE),
        (RuntimeError("3 consecutive finiteness failures"), Reason.NONFINITE),
        (ValueError("information about finance and nanoseconds"), Reason.EXCEPTION),
        (KeyError("op"), Reason.EXCEPTION),
        (_Mute(), Reason.EXCEPTION),
    ],
)
def test_the_reason_is_read_from_the_exception(
    error: BaseException | None, reason: Reason | str | None
) -> None:
    assert reason_of(error) == (Reason(reason) if isinstance(reason, str) else reason)
