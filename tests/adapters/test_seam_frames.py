"""The traceback of an error that passes the seams is the trainer's own."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.stand_in import Hub, VectorizedPPOTrainer, installed
from adapters.test_attach import OPTIONS
from esper_exporter import adapters, attach
from esper_exporter.shutdown.seam_frames import hide_seams
from support.pages import value


@pytest.fixture(autouse=True)
def esper() -> Iterator[None]:
    with installed():
        yield


def raised(attached: bool) -> BaseException:
    """By the trainer's own check, below the seams of a batch and of an update."""
    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    exporter = attach("night-7", hub=hub, **OPTIONS) if attached else None
    trainer.agent.raises = True
    try:
        trainer._run_batch(batch_idx=0)
    except ValueError as error:
        if exporter is not None:
            exporter.close()  # as a hub does that is closed on the way out
        return error
    raise AssertionError("it did not raise")


def frames(error: BaseException) -> list[str]:
    return [
        f"{each.filename}:{each.lineno} {each.name}"
        for each in traceback.extract_tb(error.__traceback__)
        if each.name != "raised"
    ]


def test_closing_the_exporter_takes_the_seams_out_of_the_error_on_its_way() -> None:
    assert frames(raised(True)) == frames(raised(False))
    assert len(frames(raised(False))) >= 2


def test_errors_behind_an_error_are_freed_of_them_too() -> None:
    inner = raised(False)
    try:
        try:
            raise inner
        finally:
            raise KeyError("the cleanup")
    except KeyError as outer:
        hide_seams(outer)
        assert outer.__context__ is inner
        assert "the cleanup" in "".join(traceback.format_exception(outer))


def test_a_frame_that_raised_stays_though_it_is_ours() -> None:
    seam = str(Path(adapters.__file__).with_name("seam.py"))
    made: dict[str, Any] = {}
    exec(compile("def fail(): raise KeyError('ours')\ndef seam(): fail()", seam, "exec"), made)
    with pytest.raises(KeyError) as caught:
        made["seam"]()
    hide_seams(caught.value)
    assert [each.name for each in traceback.extract_tb(caught.value.__traceback__)][1:] == ["fail"]


def test_a_batch_without_a_number_is_the_trainer_s_affair() -> None:
    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    exporter = attach("night-7", hub=hub, **OPTIONS)
    with pytest.raises(ValueError, match="not a number"):  # torch's, of the seed
        trainer._run_batch(batch_idx="not a number")  # type: ignore[arg-type]
    page = exporter.render().decode()
    exporter.close()
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 1
