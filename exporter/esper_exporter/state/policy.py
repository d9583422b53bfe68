"""The policy's state (Sanctum schema: TamiyoState and the metric groups nested in it)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from esper_exporter.contract.unexported import BY_OP, COUNTED, HISTORY, SAME, Unexported
from esper_exporter.contract.vocabulary import HEADS, OPS
from esper_exporter.state.decision import DecisionSnapshot
from esper_exporter.state.head_state import HeadState, view_heads


def _all_clear() -> dict[str, bool]:
    return dict.fromkeys(HEADS, False)


@dataclass
class ValueFunctionMetrics:
    """Quality of the value function; the correlation of V(s) and returns comes first."""

    v_return_correlation: float | None = 0.0
    td_error_mean: float | None = 0.0
    td_error_std: float | None = 0.0
    bellman_error: float | None = 0.0
    return_p10: float | None = 0.0
    return_p50: float | None = 0.0
    return_p90: float | None = 0.0
    return_skewness: float | None = 0.0
    return_variance: float | None = 0.0


@dataclass
class GradientQualityMetrics:
    """Quality of the gradients: coefficient of variation, and where PPO clips (shares, 0 to 1)."""

    gradient_cv: float | None = 0.0
    clip_fraction_positive: float | None = 0.0
    clip_fraction_negative: float | None = 0.0


@dataclass
class InfrastructureMetrics:
    """torch's memory (GiB), its fragmentation and data waits (0 to 1), and how it compiles."""

    cuda_memory_allocated_gb: float | None = 0.0
    cuda_memory_reserved_gb: float | None = 0.0
    cuda_memory_peak_gb: float | None = 0.0
    cuda_memory_fragmentation: float | None = 0.0
    dataloader_wait_ratio: float | None = 0.0
    compile_enabled: bool = False
    compile_backend: str = ""
    compile_mode: str = ""

    @property
    def memory_usage_percent(self) -> float:
        """Allocated over reserved CUDA memory in percent; 0.0 when nothing is reserved."""
        reserved = self.cuda_memory_reserved_gb or 0.0
        allocated = self.cuda_memory_allocated_gb or 0.0
        return allocated / reserved * 100 if reserved > 0 else 0.0


@view_heads
@dataclass
class TamiyoState:
    """Everything the policy's last update reported, and what was computed from its predecessors.

    None means "the last update did not measure it". Head entropies are shares of their maximum,
    0 to 1; log-probabilities and KL are in nats; ``update_time_ms`` is in milliseconds.
    Histories hold the last values, oldest first.
    """

    entropy: float | None = 0.0
    clip_fraction: float | None = 0.0
    kl_divergence: float | None = 0.0
    explained_variance: float | None = 0.0
    value_nrmse: float | None = None
    ev_low_return_variance: bool | None = False
    ev_return_variance: float | None = None
    rollback_attempt_count: int | None = 0
    rollback_unattributed_count: int | None = 0
    policy_loss: float | None = 0.0
    value_loss: float | None = 0.0
    entropy_loss: float | None = 0.0
    grad_norm: float | None = 0.0
    learning_rate: float | None = None
    entropy_coef: float | None = 0.0
    ratio_mean: float | None = 1.0
    ratio_min: float | None = 1.0
    ratio_max: float | None = 1.0
    ratio_std: float | None = 0.0
    advantage_mean: float | None = 0.0
    advantage_std: float | None = 0.0
    advantage_skewness: float | None = math.nan
    advantage_kurtosis: float | None = math.nan
    advantage_min: float | None = 0.0
    advantage_max: float | None = 0.0
    advantage_raw_mean: float | None = 0.0
    advantage_raw_std: float | None = 0.0
    advantage_positive_ratio: float | None = math.nan
    log_prob_min: float | None = math.nan
    log_prob_max: float | None = math.nan
    decision_density: float | None = 1.0
    forced_step_ratio: float | None = 0.0
    advantage_std_floored: bool | None = False
    pre_norm_advantage_std: float | None = None
    dead_layers: int | None = 0
    exploding_layers: int | None = 0
    nan_grad_count: int | None = 0
    inf_grad_count: int | None = 0
    head_nan_latch: dict[str, bool] = field(default_factory=_all_clear)
    head_inf_latch: dict[str, bool] = field(default_factory=_all_clear)
    layer_gradient_health: dict[str, float] | None = None
    entropy_collapsed: bool | None = False
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
    lstm_has_nan: bool | None = False
    lstm_has_inf: bool | None = False
    update_time_ms: float | None = 0.0
    early_stop_epoch: int | None = None
    heads: dict[str, HeadState] = field(default_factory=dict)
    """Each head as the last update left it; ``head_{name}_{field}`` reads the same."""
    joint_ratio_max: float | None = 1.0
    current_episode_return: float = 0.0
    current_episode: int = 0
    entropy_history: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    clip_fraction_history: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    inner_epoch: int | None = 0
    ppo_batch: int = 0
    action_counts: dict[str, int] = field(default_factory=dict)
    total_actions: int = 0
    cumulative_action_counts: dict[str, int] = field(default_factory=dict)
    cumulative_total_actions: int = 0
    ppo_data_received: bool = False
    recent_decisions: list[DecisionSnapshot] = field(default_factory=list)
    group_id: str | None = None
    entropy_velocity: float = 0.0
    collapse_risk_score: float = 0.0
    _previous_risk: float = 0.0
    entropy_clip_correlation: float = 0.0
    value_mean: float | None = 0.0
    value_std: float | None = 0.0
    value_min: float | None = 0.0
    value_max: float | None = 0.0
    initial_value_spread: float | None = None
    op_q_values: tuple[float, ...] = (math.nan,) * len(OPS)
    op_valid_mask: tuple[bool, ...] = (False,) * len(OPS)
    q_variance: float | None = 0.0
    q_spread: float | None = 0.0
    q_aux_loss: float | None = None
    last_action_success: bool = True
    infrastructure: InfrastructureMetrics = field(default_factory=InfrastructureMetrics)
    gradient_quality: GradientQualityMetrics = field(default_factory=GradientQualityMetrics)
    value_function: ValueFunctionMetrics = field(default_factory=ValueFunctionMetrics)
    unexported: ClassVar[Unexported] = {
        HISTORY: "entropy_history clip_fraction_history",
        "exported under the schema's name for it, tamiyo.head_{head}_{field}": "heads",
        "never filled by the real system; esper_run_episode": "current_episode",
        "always the maximum, so no progress; esper_tamiyo_update_index is": "inner_epoch",
        "refreshed only while a page is open; esper_tamiyo_episode_actions is from the"
        " environments": "action_counts",
        "refreshed only while a page is open; esper_tamiyo_running_episode_actions is"
        " from the environments": "total_actions",
        COUNTED + "esper_tamiyo_actions_total": "cumulative_action_counts cumulative_total_actions",
        "esper_tamiyo_updates_total is above 0": "ppo_data_received",
        "the hysteresis of collapse_risk_score, which is exported": "_previous_risk",
        BY_OP + "esper_tamiyo_q_value": "op_q_values",
        BY_OP + "esper_tamiyo_op_valid": "op_valid_mask",
        SAME + "esper_tamiyo_env_last_action_success of the environment that acted last;"
        " esper_tamiyo_actions_total counts them all": "last_action_success",
        "esper_tamiyo_rollback_attempts is taken from the event": "rollback_attempt_count",
        "esper_tamiyo_rollbacks_unattributed is taken from the event": (
            "rollback_unattributed_count"
        ),
    }

    @property
    def q_wait(self) -> float:
        """Q-value of WAIT; NaN when unknown."""
        return self.op_q_values[OPS.index("WAIT")]

    @property
    def q_germinate(self) -> float:
        """Q-value of GERMINATE; NaN when unknown."""
        return self.op_q_values[OPS.index("GERMINATE")]

    @property
    def q_set_alpha(self) -> float:
        """Q-value of SET_ALPHA_TARGET; NaN when unknown."""
        return self.op_q_values[OPS.index("SET_ALPHA_TARGET")]

    @property
    def q_prune(self) -> float:
        """Q-value of PRUNE; NaN when unknown."""
        return self.op_q_values[OPS.index("PRUNE")]

    @property
    def q_fossilize(self) -> float:
        """Q-value of FOSSILIZE; NaN when unknown."""
        return self.op_q_values[OPS.index("FOSSILIZE")]

    @property
    def q_advance(self) -> float:
        """Q-value of ADVANCE; NaN when unknown."""
        return self.op_q_values[OPS.index("ADVANCE")]
