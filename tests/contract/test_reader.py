"""Reading at the border: whole recordings, and one rule of the contract at a time."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from msgspec.structs import asdict

from contract.border import NOW, like, live, now, recorded, update, without
from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.reader import read
from esper_exporter.contract.rejection import Rejected
from support.recordings import NAMES, telemetry_lines


def refused(event: object) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read(event, now)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_event_reads_the_same_from_json_and_live(name: str) -> None:
    for number, line in enumerate(telemetry_lines(name)):
        reported = parse_line(line)
        event = read(reported, now)
        assert event.ignored == ()
        # As text, because NaN does not equal itself.
        assert repr(read(live(reported, slots=number % 2 == 0), now)) == repr(event)


def test_every_value_of_a_recorded_update_arrives_unchanged() -> None:
    reported = recorded()["PPO_UPDATE_COMPLETED"]["data"]
    got = asdict(read(update(), now).data)
    for field, value in reported.items():
        assert got[field] == (tuple(value) if isinstance(value, list) else value), field


def test_a_field_that_was_not_carried_is_not_measured() -> None:
    payload = read(without(update(), "ratio_max"), now).data
    assert payload.ratio_max is None
    assert payload.approx_kl_max is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_number_is_kept(value: float) -> None:
    assert repr(read(update(policy_loss=value), now).data.policy_loss) == repr(value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("value_mean", 3, 3.0),
        ("value_mean", np.float32(0.5), 0.5),
        ("value_mean", np.float64(0.1), 0.1),
        ("batch", np.int64(7), 7),
        ("batch", 7.0, 7),
        ("skipped", np.bool_(True), True),
        ("skipped", 1, True),
        ("skipped", 0, False),
    ],
)
def test_a_number_or_flag_of_another_make_is_a_plain_one(
    field: str, value: Any, expected: Any
) -> None:
    event = read(update(**{field: value}), now)
    got = getattr(event.data, field)
    assert (got, type(got), event.ignored) == (expected, type(expected), ())


class Tensor:
    """What a device holds: looking at its value would wait for the device."""

    def __float__(self) -> float:
        raise AssertionError("synchronised")

    __int__ = __bool__ = __index__ = item = __float__


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value_mean", True),
        ("value_mean", [1.0]),
        ("value_mean", Tensor()),
        ("value_mean", 10**400),
        ("batch", True),
        ("batch", 1.5),
        ("batch", math.nan),
        ("batch", 10**400),
        ("skipped", 2),
        ("skipped", "true"),
        ("skipped", Tensor()),
        ("head_op_gradient_state", 5),
        ("head_op_gradient_state", "x" * 257),
        ("op_q_values", "abc"),
        ("op_q_values", [1.0, "x"]),
    ],
)
def test_an_optional_field_that_makes_no_sense_was_not_measured(field: str, value: Any) -> None:
    event = read(update(**{field: value}), now)
    assert getattr(event.data, field) is None
    assert event.ignored == (field,)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (None, "malformed"),
        (5, "malformed"),
        ("PPO_UPDATE_COMPLETED", "malformed"),
        ([], "malformed"),
        ({}, "malformed"),
        (object(), "malformed"),
        ({"event_type": 5}, "malformed"),
        ({"event_type": "NOBODY_KNOWS"}, "unknown_type"),
        ({"event_type": "PPO_UPDATE_COMPLETED"}, "missing_field"),
        (without(update(), "entropy"), "missing_field"),
        (update(entropy=None), "missing_field"),
        (update(entropy=[]), "wrong_type"),
        (update(nan_grad_count=True), "wrong_type"),
        (update(entropy=10**400), "invalid_value"),
        (like("EPOCH_COMPLETED", env_id=-1), "invalid_value"),
        (like("EPOCH_COMPLETED", env_id=1_000_001), "invalid_value"),
        (like("SEED_STAGE_CHANGED", to_stage="x" * 257), "invalid_value"),
        (like("SEED_PRUNED", reason="x" * 1_000_000), "invalid_value"),
        (like("EPOCH_COMPLETED", {"slot_id": "x" * 257}), "invalid_value"),
        (like("EPOCH_COMPLETED", {"group_id": "x" * 257}), "invalid_value"),
    ],
)
def test_an_unusable_event_is_refused_with_its_reason(event: object, reason: str) -> None:
    assert refused(event).reason == reason


def test_an_unknown_type_of_a_megabyte_is_logged_in_short() -> None:
    reported = refused({"event_type": "X" * 1_000_000}).event_name
    assert reported is not None
    assert len(reported) <= 256


def test_an_analytics_snapshot_of_no_environment_may_come_without_one() -> None:
    assert read(like("ANALYTICS_SNAPSHOT:batch_stats"), now).data.env_id is None


def test_a_checkpoint_may_come_without_a_payload() -> None:
    assert read({"event_type": "CHECKPOINT_LOADED"}, now).data is None


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ("2026-11-21T00:45:07+00:00", datetime(2026, 11, 21, 0, 45, 7, tzinfo=UTC)),
        ("2026-11-21T00:45:07", datetime(2026, 11, 21, 0, 45, 7, tzinfo=UTC)),
        ("2026-11-21T02:45:07+02:00", datetime(2026, 11, 21, 0, 45, 7, tzinfo=UTC)),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (
            datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 1, 1, tzinfo=UTC),
        ),
    ],
)
def test_a_time_is_read_as_utc(reported: Any, expected: datetime) -> None:
    event = read(like("EPOCH_COMPLETED", {"timestamp": reported}), now)
    assert event.timestamp == expected
    assert event.timestamp.utcoffset() == timedelta(0)
    assert event.ignored == ()


@pytest.mark.parametrize(
    "reported",
    [
        *(None, "yesterday", True, math.nan, math.inf, 1e300, []),
        *(datetime(1969, 12, 31, tzinfo=UTC), "1969-12-31T23:59:59+00:00"),
    ],
)
def test_without_a_usable_time_an_event_happened_now(reported: Any) -> None:
    event = read(like("EPOCH_COMPLETED", {"timestamp": reported}), now)
    assert event.timestamp == NOW
    assert event.ignored == ("timestamp",)


@pytest.mark.parametrize("reported", [None, ""])
def test_an_event_without_a_group_belongs_to_the_default_one(reported: str | None) -> None:
    assert read(like("EPOCH_COMPLETED", {"group_id": reported}), now).group_id == "default"


def test_free_text_is_cut_and_can_always_be_encoded() -> None:
    event = read(like("EPOCH_COMPLETED", {"message": "\ud800" + "x" * 10_000}), now)
    assert len(event.message) == 4096
    assert event.message.encode("utf-8")


def test_old_and_new_names_are_one_type() -> None:
    old = read(update(), now)
    new = read(like("PPO_UPDATE_COMPLETED", {"event_type": "TAMIYO_POLICY_UPDATE"}), now)
    assert (old.name, new.name) == ("PPO_UPDATE_COMPLETED", "TAMIYO_POLICY_UPDATE")
    assert old.type == new.type == "TAMIYO_POLICY_UPDATE"


def test_the_update_index_of_today_fills_the_planned_one() -> None:
    payload = read(update(ppo_updates_count=3), now).data
    assert (payload.ppo_update_idx, payload.ppo_updates_count) == (3, 3)
    payload = read(update(ppo_updates_count=3, ppo_update_idx=2), now).data
    assert (payload.ppo_update_idx, payload.ppo_updates_count) == (2, 3)


def test_the_q_values_of_the_seeds_age_are_ordered_like_the_operations() -> None:
    event = without(update(), "op_q_values")
    names = ("q_wait", "q_germinate", "q_set_alpha", "q_prune", "q_fossilize", "q_advance")
    event["data"].update({name: float(place) for place, name in enumerate(names)})
    assert read(event, now).data.op_q_values == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)


def test_a_head_has_one_name_and_a_flag_that_is_up_stays_up() -> None:
    flags = {"curve": True, "alpha_curve": False, "op": "maybe", "tempo": False}
    event = read(update(head_nan_detected=flags), now)
    assert event.data.head_nan_detected == {"alpha_curve": True, "tempo": False}
    assert event.ignored == ("head_nan_detected",)


def test_a_number_that_the_file_output_wrote_as_text_is_the_live_one() -> None:
    reported = like("ANALYTICS_SNAPSHOT:last_action", decision_entropy="0.6931412")
    assert read(reported, now).data.decision_entropy == float(np.float32(0.6931412))


def test_a_bad_seed_is_left_out_and_the_others_are_kept() -> None:
    seeds = {"r0c0": {"stage": "TRAINING", "alpha": "no"}, "r0c1": 5, "r0c2": {}}
    event = read(like("EPOCH_COMPLETED", seeds=seeds), now)
    assert list(event.data.seeds) == ["r0c0"]
    assert event.data.seeds["r0c0"].alpha is None
    assert "seeds.alpha" in event.ignored


def test_a_mapping_of_any_size_is_kept_to_4096_entries() -> None:
    layers = {f"layer{number}": 1.0 for number in range(5000)}
    event = read(update(layer_gradient_health=layers), now)
    assert len(event.data.layer_gradient_health) == 4096
    assert event.ignored == ("layer_gradient_health",)


@pytest.mark.parametrize("flags", ["head_nan_detected", "head_inf_detected"])
def test_a_refused_update_still_reports_which_head_was_not_finite(flags: str) -> None:
    event = without(update(**{flags: {"tempo": True}}), "policy_loss")
    salvaged = refused(event).event
    assert salvaged is not None
    assert getattr(salvaged.data, flags) == {"tempo": True}
    assert salvaged.data.policy_loss is None


def test_a_refused_epoch_has_nothing_to_salvage() -> None:
    assert refused(like("EPOCH_COMPLETED", env_id=-1)).event is None


def test_a_required_field_may_be_named_as_not_measured() -> None:
    reported = {"policy_loss": 1.0, "entropy": 2.0, "grad_norm": 3.0, "nan_grad_count": 0}
    unmeasured = ("value_loss", "kl_divergence", "clip_fraction")
    event = {"event_type": "TAMIYO_POLICY_UPDATE", "timestamp": "2026-06-01T08:00:00+00:00"}
    payload: Any = read({**event, "data": {**reported, "not_measured": unmeasured}}, now).data
    assert payload.value_loss is None and payload.policy_loss == 1.0
    with pytest.raises(Rejected, match="clip_fraction"):
        read({**event, "data": {**reported, "not_measured": unmeasured[:2]}}, now)


def test_all_required_fields_that_are_missing_are_named_at_once() -> None:
    with pytest.raises(Rejected) as refused:
        read(without(without(update(), "entropy"), "grad_norm"), lambda: datetime.now(UTC))
    assert refused.value.reason == "missing_field"
    assert set(refused.value.detail.split(", ")) == {"entropy", "grad_norm"}
