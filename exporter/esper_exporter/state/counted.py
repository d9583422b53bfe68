"""Every counter and histogram, declared once: the state counts in them, the catalogue shows them.

A counter of what happens (events, updates, decisions) exists at 0 from the start of the run, with
the label values known beforehand: a counter that begins above 0 is invisible to ``increase()``.
A counter or histogram of what an optional field reports (``measured``) begins with the first
report, at 0 if that was 0: before, a 0 would be a value that was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from esper_exporter.contract.event_table import BY_NAME
from esper_exporter.contract.vocabulary import (
    AUX_HEADS,
    BLUEPRINTS,
    CHOICES_OF_HEAD,
    HEADS,
    OPS,
    OTHER,
    PHASES,
)
from esper_exporter.state.counters import Counter, Histogram, Labels

GRAD_NORM_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 1000.0, 1e6)
UPDATE_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
ACCURACIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
IMPROVEMENTS = (-0.1, -0.05, -0.02, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
REWARDS = (-100.0, -30.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
LIFESPANS = (5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0)
STEP_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
TORCH_PHASE_SECONDS = (*STEP_SECONDS, 30.0)
PHASE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
EMIT_SECONDS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 0.025, 0.1)
SCRAPE_SECONDS = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


def _each(*values: str) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


_TRAINER_PHASES = _each("train", "val", "rollout", "action", "ppo_update")

# The run
EVENTS = Counter("esper_run_events_total", ("type",), _each(*sorted(BY_NAME)))
EVENTS_OUT_OF_BOUNDS = Counter("esper_run_events_out_of_bounds_total")
CHECKPOINTS_LOADED = Counter("esper_run_checkpoints_loaded_total")
MEMORY_WARNINGS = Counter("esper_torch_memory_warnings_total")

# Policy updates
UPDATES = Counter("esper_tamiyo_updates_total")
UPDATES_SKIPPED = Counter(
    "esper_tamiyo_updates_skipped_total",
    ("reason",),
    _each("nonfinite", "rollback", "requested", "unexplained"),
)
UPDATES_INCOMPLETE = Counter(
    "esper_tamiyo_updates_incomplete_total",
    ("reason",),
    _each("raised", "skipped", "no_event"),
)
FINITENESS_FAILURES = Counter("esper_tamiyo_finiteness_failures_total")
GRADIENT_EXPLOSIONS = Counter("esper_tamiyo_gradient_explosions_total")
NONFINITE_GRAD_NORMS = Counter("esper_tamiyo_updates_nonfinite_grad_norm_total")
EARLY_STOPS = Counter("esper_tamiyo_updates_early_stopped_total")
LOW_RETURN_VARIANCE = Counter("esper_tamiyo_updates_low_return_variance_total", measured=True)
ADVANTAGE_STD_FLOORED = Counter("esper_tamiyo_updates_advantage_std_floored_total", measured=True)
ENTROPY_COLLAPSED = Counter("esper_tamiyo_updates_entropy_collapsed_total", measured=True)
AMP_OVERFLOWS = Counter("esper_tamiyo_amp_overflows_total", measured=True)
LOSS_SCALE_UPDATES = Counter("esper_tamiyo_loss_scale_updates_total", measured=True)
ROLLBACK_STEPS_ZEROED = Counter("esper_tamiyo_rollback_steps_zeroed_total", measured=True)
TRUST_REGION_VIOLATIONS = Counter("esper_tamiyo_trust_region_violations_total", measured=True)
LOG_PROB_UNDERFLOWS = Counter("esper_tamiyo_log_prob_underflows_total", measured=True)
UPDATE_GRAD_NORM = Histogram("esper_tamiyo_update_grad_norm", GRAD_NORM_BOUNDS)
UPDATE_DURATION = Histogram("esper_tamiyo_update_duration_seconds", UPDATE_SECONDS, measured=True)
HEAD_GRAD_NORM = Histogram(
    "esper_tamiyo_head_update_grad_norm",
    GRAD_NORM_BOUNDS,
    ("head",),
    _each(*HEADS, *AUX_HEADS),
    measured=True,
)

# Decisions
INITIATIONS = Counter("esper_tamiyo_initiations_total")
ACTIONS = Counter(
    "esper_tamiyo_actions_total", ("op", "success"), tuple(product(OPS, ("true", "false")))
)
DECISIONS = Counter("esper_tamiyo_decisions_total")
CHOICES = Counter(
    "esper_tamiyo_choices_total",
    ("head", "choice"),
    tuple((head, choice) for head, known in CHOICES_OF_HEAD.items() for choice in (*known, OTHER)),
    measured=True,
)
"""Choices of the vocabulary exist at 0 for each head that the policy has."""
MASKED_DECISIONS = Counter(
    "esper_tamiyo_masked_decisions_total", ("head",), _each(*HEADS), measured=True
)
DECISION_CONFIDENCE = Histogram(
    "esper_tamiyo_decision_confidence_ratio", SHARES, ("head",), _each(*HEADS), measured=True
)
DECISION_ENTROPY = Histogram(
    "esper_tamiyo_decision_entropy_ratio", SHARES, ("head",), _each(*HEADS), measured=True
)
NONFINITE_OBSERVATIONS = Counter(
    "esper_tamiyo_observation_nonfinite_values_total", ("kind",), _each("nan", "inf"), measured=True
)

# Host training
EPOCHS = Counter("esper_tolaria_epochs_total")
BATCHES = Counter("esper_tolaria_batches_total")
ROLLBACKS = Counter(
    "esper_tolaria_rollbacks_total", ("reason",), _each("nan", "lobotomy", "divergence")
)
STEP_DURATION = Histogram(
    "esper_tolaria_step_duration_seconds", STEP_SECONDS, ("phase",), _each(*PHASES), measured=True
)

# Reward, episodes, what the trainer detects
EPISODES = Counter(
    "esper_simic_episodes_total", ("outcome",), _each("success", "timeout", "unknown")
)
EPISODE_REWARD = Histogram("esper_simic_episode_reward", REWARDS)
EPISODE_FINAL_ACCURACY = Histogram("esper_simic_episode_final_accuracy_ratio", ACCURACIES)
TRENDS = Counter(
    "esper_simic_trends_total", ("trend",), _each("plateau", "degradation", "improvement")
)
ANOMALIES = Counter(
    "esper_simic_anomalies_total",
    ("type",),
    _each(
        "gradient_norm_drift",
        "gradient_health_drift",
        "numerical_instability",
        "ppo_finiteness_skip",
        "ppo_finiteness_failure",
        "ratio_explosion",
        "ratio_collapse",
        "ratio_nan_inf",
        "value_collapse",
    ),
)
"""Also ``entropy_collapse_HEAD`` of each of the policy's heads, from when they are known."""
PERFORMANCE_DEGRADATIONS = Counter("esper_simic_performance_degradations_total")
REWARD_HACKING = Counter("esper_simic_reward_hacking_suspected_total", ("pattern",))
GAMING_STEPS = Counter("esper_simic_gaming_steps_total", measured=True)
COUNTERFACTUAL_MATRICES = Counter("esper_simic_counterfactual_matrices_total")
COUNTERFACTUAL_SECONDS = Counter("esper_simic_counterfactual_compute_seconds_total", measured=True)
PHASE_DURATION = Histogram(
    "esper_simic_phase_duration_seconds", PHASE_SECONDS, ("phase",), _TRAINER_PHASES, measured=True
)
PHASE_CPU_SECONDS = Counter(
    "esper_simic_phase_cpu_seconds_total", ("phase",), _TRAINER_PHASES, measured=True
)

# Seeds
GERMINATIONS = Counter("esper_kasmina_germinations_total", ("blueprint",), _each(*BLUEPRINTS))
FOSSILIZATIONS = Counter("esper_kasmina_fossilizations_total", ("blueprint",), _each(*BLUEPRINTS))
PRUNES = Counter("esper_kasmina_prunes_total", ("blueprint",), _each(*BLUEPRINTS))
PRUNES_BY_REASON = Counter("esper_kasmina_prunes_by_reason_total", ("reason", "initiator"))
FOSSILIZED_PARAMS = Counter("esper_kasmina_fossilized_params_total")
TRANSITIONS = Counter(
    "esper_kasmina_transitions_total",
    ("from_stage", "to_stage"),
    (
        ("DORMANT", "GERMINATED"),
        ("GERMINATED", "TRAINING"),
        ("TRAINING", "BLENDING"),
        ("BLENDING", "HOLDING"),
        ("HOLDING", "FOSSILIZED"),
        ("TRAINING", "PRUNED"),
        ("BLENDING", "PRUNED"),
        ("HOLDING", "PRUNED"),
        ("PRUNED", "EMBARGOED"),
        ("EMBARGOED", "RESETTING"),
        ("RESETTING", "DORMANT"),
    ),
)
GATE_EVALUATIONS = Counter(
    "esper_kasmina_gate_evaluations_total",
    ("gate", "result"),
    tuple(product(("G0", "G1", "G2", "G3", "G5"), ("passed", "failed"))),
)
MORPHOLOGY_EVENTS = Counter(
    "esper_kasmina_morphology_events_total",
    ("phase", "operation", "verdict"),
    tuple(product(("verdict",), OPS, ("approved", "refused"))),
)
TOPOLOGY_MANIFESTS = Counter("esper_kasmina_topology_manifests_total", ("role", "match"))
SEED_LIFESPAN = Histogram("esper_kasmina_seed_lifespan_epochs", LIFESPANS, measured=True)
FOSSILIZED_IMPROVEMENT = Histogram("esper_kasmina_fossilized_improvement_ratio", IMPROVEMENTS)

# torch
TORCH_PHASE_DURATION = Histogram(
    "esper_torch_phase_duration_seconds",
    TORCH_PHASE_SECONDS,
    ("phase",),
    _each(*PHASES),
    measured=True,
)

# The exporter itself
EMITTED = Counter("esper_exporter_events_total", of_run=False)
EVENTS_REJECTED = Counter(
    "esper_exporter_events_rejected_total",
    ("reason",),
    _each(
        "malformed",
        "malformed_json",
        "unknown_type",
        "missing_field",
        "wrong_type",
        "invalid_value",
        "reentered",
        "no_run",
        "too_many_groups",
    ),
    of_run=False,
)
EVENTS_DUPLICATE = Counter(
    "esper_exporter_events_duplicate_total",
    ("reason",),
    _each("repeated", "dual_emit"),
    of_run=False,
)
FIELDS_IGNORED = Counter("esper_exporter_fields_ignored_total", of_run=False)
SERIES_DROPPED = Counter("esper_exporter_series_dropped_total", of_run=False)
ENVIRONMENTS_DROPPED = Counter("esper_exporter_environments_dropped_total", of_run=False)
INTERNAL_ERRORS = Counter(
    "esper_exporter_internal_errors_total",
    ("where",),
    _each(
        "emit",
        "publish",
        "render",
        "snapshot",
        "server",
        "ending",
        "final_page",
        "probe",
        "vitals",
        "hub",
    ),
    of_run=False,
)
STATE_PROBLEMS = Counter(
    "esper_exporter_state_problems_total",
    ("problem",),
    _each("file", "field", "unwritable"),
    of_run=False,
)
HUB_DROPPED = Counter(
    "esper_exporter_hub_events_dropped_total", ("queue",), measured=True, of_run=False
)
HUB_DELIVERED = Counter(
    "esper_exporter_hub_events_delivered_total", ("queue",), measured=True, of_run=False
)
PROBE_DISAGREEMENTS = Counter("esper_exporter_probe_disagreements_total", ("field",), of_run=False)
SCRAPES = Counter("esper_exporter_scrapes_total", of_run=False)
PUSH_SAMPLES = Counter("esper_exporter_push_samples_total", measured=True, of_run=False)
PUSH_SAMPLES_DROPPED = Counter(
    "esper_exporter_push_samples_dropped_total", ("reason",), measured=True, of_run=False
)
PUSH_FAILURES = Counter(
    "esper_exporter_push_failures_total", ("reason",), measured=True, of_run=False
)
GPU_FIELD_ERRORS = Counter(
    "esper_exporter_gpu_field_errors_total", ("field", "error"), of_run=False
)
EMIT_DURATION = Histogram("esper_exporter_emit_duration_seconds", EMIT_SECONDS, of_run=False)
SCRAPE_DURATION = Histogram("esper_exporter_scrape_duration_seconds", SCRAPE_SECONDS, of_run=False)


def of_head(head: str) -> Iterator[tuple[Counter, Labels]]:
    """What begins for one of the policy's heads, once it is known that the policy has it."""
    yield ANOMALIES, (f"entropy_collapse_{head}",)
    for choice in CHOICES_OF_HEAD.get(head, ()):
        yield CHOICES, (head, choice)
    if head in CHOICES_OF_HEAD:
        yield CHOICES, (head, OTHER)


ALL: tuple[Counter | Histogram, ...] = tuple(
    declared for declared in globals().values() if isinstance(declared, Counter | Histogram)
)
OF_RUN = tuple(declared for declared in ALL if declared.of_run)
OF_EXPORTER = tuple(declared for declared in ALL if not declared.of_run)
