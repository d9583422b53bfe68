"""Latches on disk: kept by run, merged over processes, and never in the training's way."""

from __future__ import annotations

import json
import logging
import os
import resource
import secrets
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from esper_exporter.atomic_file import Files
from esper_exporter.shutdown.latch_store import KEEP_FILES, LARGEST_FILE, LatchStore
from esper_exporter.state.latches import Latches
from esper_exporter.state.run import RunIdentity

RUN = RunIdentity("night-7", "A", 0)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def store(folder: Path) -> LatchStore:
    """A store as another process has it."""
    return LatchStore(folder, Files())


def lit(*minutes: int, head: str = "op", kind: str = "nan") -> Latches:
    latches = Latches()
    for attempt, minute in enumerate(minutes):
        latches.light_head(head, kind, NOON + timedelta(minutes=minute), attempt, attempt + 1)
    return latches


def kept(folder: Path, identity: RunIdentity = RUN) -> Latches:
    latches = Latches()
    store(folder).load(identity, latches)
    return latches


def save(folder: Path, latches: Latches, identity: RunIdentity = RUN) -> None:
    process = store(folder)
    process.write([process.record(identity, latches)])


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    latches = lit(1, 2, 3)
    latches.light_source("gradients", NOON, 9)
    save(tmp_path, latches)
    back = kept(tmp_path)
    latch = back.heads["op", "nan"]
    assert (latch.updates, latch.first_update) == (3, 1)
    assert (latch.first, latch.last) == (NOON + timedelta(minutes=1), NOON + timedelta(minutes=3))
    assert back.sources["gradients"].lit
    assert list(back.lit_heads()) == [("op", "nan")]


@pytest.mark.parametrize(
    "other",
    [
        RunIdentity("night-8", "A", 0),
        RunIdentity("night-7", "B", 0),
        RunIdentity("night-7", "A", 1),
    ],
)
def test_other_runs_groups_and_ranks_do_not_see_it(tmp_path: Path, other: RunIdentity) -> None:
    save(tmp_path, lit(1))
    assert not any(kept(tmp_path, other).lit_heads())


def test_two_processes_of_one_run_lose_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path)
    one.write([one.record(RUN, lit(1, 2, 9))])
    other.write([other.record(RUN, lit(5))])
    other.write([other.record(RUN, lit(5, head="slot", kind="inf"))])
    one.write([one.record(RUN, lit(1, 2, 9))])
    back = kept(tmp_path)
    assert set(back.lit_heads()) == {("op", "nan"), ("slot", "inf")}
    assert back.heads["op", "nan"].updates == 3
    assert back.heads["op", "nan"].last == NOON + timedelta(minutes=9)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"version": 2, "heads": {}, "sources": {}}',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"version": 1, "heads": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b" " * (LARGEST_FILE + 1),
    ],
)
def test_an_unreadable_file_is_set_aside_and_logged(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, lit(1))
    (path,) = tmp_path.glob("*.latches.json")
    good = path.with_name(path.name.split(".")[0] + ".0000.latches.json")
    good.write_bytes(path.read_bytes())
    path.write_bytes(text)
    assert list(kept(tmp_path).lit_heads()) == [("op", "nan")]
    assert "set aside" in caplog.text
    assert len(list(tmp_path.glob("*.corrupt"))) == 1
    caplog.clear()
    kept(tmp_path)
    assert caplog.text == ""


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    ("latch", "expected"),
    [
        ("{}", (1, None, None, None)),
        ("7", (1, None, None, None)),
        ('{"updates": Infinity}', (1, None, None, None)),
        ('{"updates": 1e999}', (1, None, None, None)),
        ('{"updates": -3}', (1, None, None, None)),
        ('{"updates": 0}', (1, None, None, None)),
        ('{"updates": true}', (1, None, None, None)),
        (f'{{"updates": {HUGE}, "first_update": {HUGE}}}', (1, None, None, None)),
        ('{"updates": 3, "first": "x", "first_update": 2}', (3, None, None, 2)),
        ('{"updates": 3, "first": "2026-11-21T12:00:00", "first_update": 2}', (3, None, None, 2)),
        (
            '{"updates": 3, "first": "2026-11-21T12:00:00+00:00", "last": {}, "first_update": NaN}',
            (3, NOON, None, None),
        ),
    ],
)
def test_only_the_bad_field_of_a_kept_latch_is_dropped(
    tmp_path: Path, latch: str, expected: tuple[object, ...]
) -> None:
    save(tmp_path, lit(1, 2, head="slot"))
    (path,) = tmp_path.glob("*.latches.json")
    good = json.dumps(json.loads(path.read_text())["heads"]["slot/nan"])
    path.write_text(
        f'{{"version": 1, "heads": {{"op/nan": {latch}, "slot/nan": {good}}}, "sources": {{}}}}'
    )
    dropped: list[str] = []
    back = Latches()
    assert LatchStore(tmp_path, Files(), dropped.append).load(RUN, back)
    found = back.heads["op", "nan"]
    assert (found.updates, found.first, found.last, found.first_update) == expected
    assert back.heads["slot", "nan"].updates == 2
    assert set(dropped) == {"field"} or latch == "{}"


@pytest.mark.parametrize(
    "heads",
    [
        '"none"',
        '{"op": {}, "op/odd": {}, "/nan": {}, "\\ud800/nan": {}}',
        f'{{"{"h" * 65}/nan": {{}}}}',
    ],
)
def test_what_is_no_head_is_dropped_and_the_sources_stay(tmp_path: Path, heads: str) -> None:
    save(tmp_path, lit(1))
    (path,) = tmp_path.glob("*.latches.json")
    path.write_text(f'{{"version": 1, "heads": {heads}, "sources": {{"loss": {{"updates": 2}}}}}}')
    back = kept(tmp_path)
    assert not any(back.lit_heads())
    assert back.sources["loss"].updates == 2


def test_a_pipe_in_place_of_a_latch_file_blocks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, lit(1))
    (path,) = tmp_path.glob("*.latches.json")
    os.mkfifo(path.with_name(path.name.split(".")[0] + ".0000.latches.json"))
    assert list(kept(tmp_path).lit_heads()) == [("op", "nan")]
    assert "not a regular file" in caplog.text


def test_a_link_in_a_latch_files_place_is_not_followed(tmp_path: Path) -> None:
    save(tmp_path / "other", lit(1))
    (path,) = (tmp_path / "other").glob("*.latches.json")
    (tmp_path / path.name).symlink_to(path)
    assert not any(kept(tmp_path).lit_heads())


def test_no_link_leads_what_is_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    tokens = iter(["aa", "bb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _count: next(tokens))
    target = tmp_path / "page"
    (tmp_path / ".page.aa.new").symlink_to(precious)
    assert not Files().write(target, b"page")
    assert precious.read_text() == "mine"
    target.symlink_to(precious)
    assert Files().write(target, b"page")
    assert (precious.read_text(), target.read_bytes()) == ("mine", b"page")
    assert not target.is_symlink()


def test_what_is_written_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Files().write(tmp_path / "page", b"page")
    finally:
        os.umask(before)
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o640


def test_unknown_heads_and_hostile_names_do_no_harm(tmp_path: Path) -> None:
    hostile = RunIdentity("../../\x00\udcff/night", "..", 0)
    save(tmp_path, lit(1), hostile)
    assert list(kept(tmp_path, hostile).lit_heads()) == [("op", "nan")]
    (path,) = tmp_path.iterdir()
    reported = json.loads(path.read_text())
    reported["heads"]["tail/nan"] = reported["heads"]["op/nan"]
    path.write_text(json.dumps(reported))
    assert list(kept(tmp_path, hostile).lit_heads()) == [("op", "nan"), ("tail", "nan")]


def test_old_files_are_pruned(tmp_path: Path) -> None:
    for number in range(KEEP_FILES + 5):
        (tmp_path / f"{number}.latches.json").write_text("{}")
    save(tmp_path, lit(1))
    assert len(list(tmp_path.glob("*.latches.json"))) == KEEP_FILES
    assert any(kept(tmp_path).lit_heads())


def test_where_nothing_can_be_written_a_warning_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    process = store(tmp_path / "file" / "state")
    for _ in range(3):
        process.write([process.record(RUN, lit(1))])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Not a directory" in caplog.text


def test_a_full_disk_leaves_the_old_file_and_no_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = store(tmp_path)
    process.write([process.record(RUN, lit(1))])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        process.write([process.record(RUN, lit(1, 2))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in caplog.text
    assert len(list(tmp_path.iterdir())) == 1
    assert kept(tmp_path).heads["op", "nan"].updates == 1


def test_many_processes_at_once_all_leave_their_word(tmp_path: Path) -> None:
    heads = ("op", "slot", "style", "tempo")
    threads = [
        threading.Thread(target=save, args=(tmp_path, lit(n, head=head)))
        for n, head in enumerate(heads * 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {head for head, _ in kept(tmp_path).lit_heads()} == set(heads)


def test_a_resumed_run_s_count_holds_that_of_the_process_before_it(tmp_path: Path) -> None:
    """Both wrote a file: the larger count wins, the earliest moment, the latest moment."""
    before = lit(2, 3, 4)
    save(tmp_path, before)
    resumed = Latches()
    assert store(tmp_path).load(RUN, resumed)
    for attempt, minute in enumerate((7, 8)):
        resumed.light_head("op", "nan", NOON + timedelta(minutes=minute), attempt, 20 + attempt)
    save(tmp_path, resumed)
    back = kept(tmp_path).heads["op", "nan"]
    assert back.updates == 5
    assert (back.first, back.first_update) == (NOON + timedelta(minutes=2), 1)
    assert back.last == NOON + timedelta(minutes=8)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_processes_the_earliest_and_the_latest_moment_are_kept(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    early, late = lit(1), Latches()
    for attempt, minute in enumerate((5, 9)):
        late.light_head("op", "nan", NOON + timedelta(minutes=minute), attempt, 30 + attempt)
    for place in order:
        save(tmp_path, (early, late)[place])
    back = kept(tmp_path).heads["op", "nan"]
    assert back.updates == 2
    assert (back.first, back.first_update) == (NOON + timedelta(minutes=1), 1)
    assert back.last == NOON + timedelta(minutes=9)
