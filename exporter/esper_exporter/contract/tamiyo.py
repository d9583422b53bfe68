"""Tamiyo, the policy: its updates, as both ages of the contract report them."""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, get_type_hints

import msgspec

from esper_exporter.contract.event_type import EventType
from esper_exporter.contract.fields import EnvId, GradientState, Head, Label, Whole
from esper_exporter.contract.unexported import BY_OP, COUNTED, SAME, Unexported
from esper_exporter.contract.vocabulary import AUX_HEADS, HEADS


class HeadUpdatePayload(msgspec.Struct, frozen=True, gc=False):
    """One head in one policy update.

    ``entropy`` is a share of its maximum over all steps, ``kl`` nats, fractions 0 to 1.
    """

    grad_norm: float | None = None
    gradient_state: GradientState | None = None
    entropy: float | None = None
    ratio_max: float | None = None
    clip_fraction: float | None = None
    kl: float | None = None
    active_ratio: float | None = None
    learnable_fraction: float | None = None


_CRITIC_FIELDS = 2
"""Critic heads choose nothing: events report the first two of these fields."""

FIELDS_OF_HEAD = {
    **dict.fromkeys(HEADS, HeadUpdatePayload.__struct_fields__),
    **dict.fromkeys(AUX_HEADS, HeadUpdatePayload.__struct_fields__[:_CRITIC_FIELDS]),
}
"""What events report of each head of the vocabulary, in fields named ``head_{head}_{field}``."""


class PolicyUpdate(msgspec.Struct, frozen=True, dict=True):
    """One policy update (PPO), whose heads are the mapping `heads`.

    Losses, norms and ratios are plain numbers; entropies of heads are shares of their maximum today
    and nats in the seed documents' age; log-probabilities and KL are nats; ``*_time_ms`` are
    milliseconds, ``*_gb`` GiB, fractions and ratios of counts 0 to 1. ``inner_epoch`` is always
    the maximum and says nothing; the update's index within its batch is ``ppo_update_idx``
    (today ``ppo_updates_count``). ``head_entropy_nats`` comes from the torch probe, which knows how
    many choices each head has, and so are ``action_heads``, the policy's heads where they may be
    other than Tamiyo's, and ``head_updates``, what each of those others did: how events carry them,
    `heads` has them all. None: the event did not carry the field.

    ``not_measured`` names required fields that the sender could not measure: an update without a
    critic has no value loss. ``max_grad_norm`` is the norm that gradients are clipped to,
    ``grad_norm_step`` the number (from 1) of the optimizer step whose norms are reported, and
    ``grad_norms_of_shard`` says that head and layer norms cover this rank's shard only. Fields
    ``*_after_update`` compare the policy after its last optimizer step with the one that acted.
    """

    policy_loss: float
    value_loss: float
    entropy: float
    grad_norm: float
    kl_divergence: float
    clip_fraction: float
    nan_grad_count: Whole
    pre_clip_grad_norm: float | None = None
    explained_variance: float | None = None
    value_nrmse: float | None = None
    ev_low_return_variance: bool | None = None
    ev_return_variance: float | None = None
    ev_low_return_variance_count: Whole | None = None
    entropy_loss: float | None = None
    advantage_mean: float | None = None
    advantage_std: float | None = None
    advantage_skewness: float | None = None
    advantage_kurtosis: float | None = None
    advantage_positive_ratio: float | None = None
    pre_norm_advantage_mean: float | None = None
    pre_norm_advantage_std: float | None = None
    return_mean: float | None = None
    return_std: float | None = None
    v_return_correlation: float | None = None
    td_error_mean: float | None = None
    td_error_std: float | None = None
    bellman_error: float | None = None
    return_p10: float | None = None
    return_p50: float | None = None
    return_p90: float | None = None
    return_variance: float | None = None
    return_skewness: float | None = None
    value_target_scale: float | None = None
    ratio_mean: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    ratio_std: float | None = None
    log_prob_min: float | None = None
    log_prob_max: float | None = None
    lr: float | None = None
    entropy_coef: float | None = None
    inf_grad_count: Whole | None = None
    dead_layers: Whole | None = None
    exploding_layers: Whole | None = None
    layer_gradient_health: dict[Label, float] | None = None
    entropy_collapsed: bool | None = None
    head_nan_detected: dict[Head, bool] | None = None
    head_inf_detected: dict[Head, bool] | None = None
    loss_scale: float | None = None
    amp_overflow_detected: bool | None = None
    update_skipped: bool | None = None
    update_time_ms: float | None = None
    early_stop_epoch: Whole | None = None
    joint_ratio_max: float | None = None
    inner_epoch: Whole | None = None
    batch: Whole | None = None
    ppo_updates_count: Whole | None = None
    skipped: bool | None = None
    value_mean: float | None = None
    value_std: float | None = None
    value_min: float | None = None
    value_max: float | None = None
    op_q_values: tuple[float, ...] | None = None
    op_valid_mask: tuple[bool, ...] | None = None
    q_variance: float | None = None
    q_spread: float | None = None
    q_aux_loss: float | None = None
    clip_fraction_positive: float | None = None
    clip_fraction_negative: float | None = None
    gradient_cv: float | None = None
    cuda_memory_allocated_gb: float | None = None
    cuda_memory_reserved_gb: float | None = None
    cuda_memory_peak_gb: float | None = None
    cuda_memory_fragmentation: float | None = None
    dataloader_wait_ratio: float | None = None
    lstm_h_l2_total: float | None = None
    lstm_c_l2_total: float | None = None
    lstm_h_rms: float | None = None
    lstm_c_rms: float | None = None
    lstm_h_env_rms_mean: float | None = None
    lstm_h_env_rms_max: float | None = None
    lstm_c_env_rms_mean: float | None = None
    lstm_c_env_rms_max: float | None = None
    lstm_h_max: float | None = None
    lstm_c_max: float | None = None
    lstm_has_nan: bool | None = None
    lstm_has_inf: bool | None = None
    rollout_lstm_h_l2_total: float | None = None
    rollout_lstm_c_l2_total: float | None = None
    rollout_lstm_h_rms: float | None = None
    rollout_lstm_c_rms: float | None = None
    rollout_lstm_h_env_rms_mean: float | None = None
    rollout_lstm_h_env_rms_max: float | None = None
    rollout_lstm_c_env_rms_mean: float | None = None
    rollout_lstm_c_env_rms_max: float | None = None
    rollout_lstm_h_max: float | None = None
    rollout_lstm_c_max: float | None = None
    rollout_lstm_has_nan: bool | None = None
    rollout_lstm_has_inf: bool | None = None
    forced_step_ratio: float | None = None
    usable_actor_timesteps: Whole | None = None
    decision_density: float | None = None
    advantage_std_floored: bool | None = None
    d5_pre_norm_advantage_std: float | None = None
    rollback_count: Whole | None = None
    rollback_steps_zeroed: Whole | None = None
    rollback_attempt_count: Whole | None = None
    rollback_unattributed_count: Whole | None = None
    ppo_update_idx: Whole | None = None
    approx_kl_max: float | None = None
    kl_reverse: float | None = None
    trust_region_violations: Whole | None = None
    value_prediction_error_mean: float | None = None
    value_prediction_error_std: float | None = None
    value_target_correlation: float | None = None
    causal_mask_coverage: dict[Head, float] | None = None
    policy_determinism: float | None = None
    action_diversity: Whole | None = None
    dominant_action_ratio: float | None = None
    op_distribution: dict[Label, float] | None = None
    log_prob_underflow_count: Whole | None = None
    numerical_stability_score: float | None = None
    grad_clip_fraction: float | None = None
    valid_sample_ratio: float | None = None
    policy_update_magnitude: float | None = None
    gradient_utilization: float | None = None
    grad_norm_per_layer: dict[Label, float] | None = None
    grad_zero_fraction: float | None = None
    grad_norm_ratio: float | None = None
    grad_nan_layers: tuple[str, ...] | None = None
    loss_scale_updates: Whole | None = None
    amp_overflow_count: Whole | None = None
    grad_scaler_state: str | None = None
    head_entropy_nats: dict[Label, float] | None = None
    action_heads: tuple[str, ...] | None = None
    head_updates: dict[Label, HeadUpdatePayload] | None = None
    advantage_min: float | None = None
    advantage_max: float | None = None
    advantage_raw_mean: float | None = None
    advantage_raw_std: float | None = None
    not_measured: tuple[str, ...] | None = None
    max_grad_norm: float | None = None
    grad_norm_step: Whole | None = None
    grad_norms_of_shard: bool | None = None
    policy_entropy_nats: float | None = None
    kl_divergence_after_update: float | None = None
    clip_fraction_after_update: float | None = None
    head_kl_after_update: dict[Label, float] | None = None
    q_wait: float | None = None
    q_germinate: float | None = None
    q_set_alpha: float | None = None
    q_prune: float | None = None
    q_fossilize: float | None = None
    q_advance: float | None = None
    unexported: ClassVar[Unexported] = {
        SAME + "head_{head}_*: the same metrics, for heads that are not Tamiyo's": "head_updates",
        COUNTED + "esper_tamiyo_amp_overflows_total": "amp_overflow_detected amp_overflow_count",
        COUNTED + "esper_tamiyo_loss_scale_updates_total": "loss_scale_updates",
        COUNTED + "esper_tamiyo_rollback_steps_zeroed_total": "rollback_steps_zeroed",
        COUNTED + "esper_tamiyo_updates_skipped_total": "skipped",
        "never filled by the real system": "update_skipped",
        "always the maximum, so no progress": "inner_epoch",
        SAME + "esper_tamiyo_update_index": "ppo_updates_count",
        BY_OP + "esper_tamiyo_q_value": (
            "op_q_values q_wait q_germinate q_set_alpha q_prune q_fossilize q_advance"
        ),
        BY_OP + "esper_tamiyo_op_valid": "op_valid_mask",
        SAME + "esper_tamiyo_head_active_ratio": "causal_mask_coverage",
    }

    @cached_property
    def heads(self) -> dict[str, HeadUpdatePayload]:
        """What the update reports of each head, of the vocabulary or the policy's own alike.

        A head of which nothing was reported is not in it.
        """
        values = _read_flat(self)
        found = {
            head: HeadUpdatePayload(*own)
            for head, first, end, nothing in _SPANS
            if (own := values[first:end]) != nothing
        }
        for head, update in (self.head_updates or {}).items():
            found.setdefault(head, update)
        return found


_HINTS = get_type_hints(HeadUpdatePayload, include_extras=True)
_FLAT_FIELDS = [
    (f"head_{head}_{field}", _HINTS[field] | None, None)
    for head, names in FIELDS_OF_HEAD.items()
    for field in names
]
_read_flat = attrgetter(*(name for name, _, _ in _FLAT_FIELDS))


def _spans() -> tuple[tuple[str, int, int, tuple[None, ...]], ...]:
    """Each head with the place of its first flat field, that after its last, and its Nones."""
    spans, place = [], 0
    for head, names in FIELDS_OF_HEAD.items():
        spans.append((head, place, place + len(names), (None,) * len(names)))
        place += len(names)
    return tuple(spans)


_SPANS = _spans()

if TYPE_CHECKING:
    TamiyoPolicyUpdatePayload = PolicyUpdate
else:
    # The fields that events carry for each head of the vocabulary. Nothing but `heads` reads them.
    TamiyoPolicyUpdatePayload = msgspec.defstruct(
        "TamiyoPolicyUpdatePayload",
        _FLAT_FIELDS,
        bases=(PolicyUpdate,),
        namespace={"__doc__": "A policy update as events carry it."},
        module=__name__,
        frozen=True,
        dict=True,
    )


class TamiyoInitiatedPayload(msgspec.Struct, frozen=True, gc=False):
    """A host became stable: Tamiyo may germinate from here on."""

    env_id: EnvId
    epoch: Whole
    stable_count: Whole
    stabilization_epochs: Whole
    val_loss: float
    episode_idx: Whole | None = None
    unexported: ClassVar[Unexported] = {
        COUNTED + "esper_tamiyo_initiations_total": (
            "env_id epoch stable_count stabilization_epochs val_loss episode_idx"
        ),
    }


EVENTS = (
    EventType(
        "TAMIYO_POLICY_UPDATE",
        TamiyoPolicyUpdatePayload,
        "apply_policy.apply_policy_update",
        aliases=("PPO_UPDATE_COMPLETED",),
        identity=(
            *("batch", "ppo_update_idx", "policy_loss", "value_loss", "entropy"),
            *("kl_divergence", "clip_fraction"),
        ),
        latest="update",
        reports_faults=True,
    ),
    EventType(
        "TAMIYO_INITIATED",
        TamiyoInitiatedPayload,
        "apply_policy.apply_tamiyo_initiated",
        group_unreliable=True,
    ),
)
