"""What only a probe in the training loop measures: one step's norms, the finished update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from esper_exporter.metrics.families.policy_metrics import update_field
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import counter, counter_in, gauge
from esper_exporter.state import counted

UPDATE = "event:PPO_UPDATE_COMPLETED."


def _after(field: str) -> Callable[[Any], Any]:
    """A field of the last update of which the finished policy was measured: one in several."""
    return lambda roots: getattr(roots["run"].after_update, field, None)


def _head_kl_after(roots: Any) -> Any:
    reported = _after("head_kl_after_update")(roots)
    return reported.get(roots["name"]) if reported else None


POLICY_METRICS: tuple[Metric, ...] = (
    update_field(
        "esper_tamiyo_policy_entropy_nats",
        "policy_entropy_nats",
        "Entropy of the whole action: the sum of all heads' entropies in nats, averaged over the"
        " steps. Differential entropy, which may be negative, for continuous heads.",
    ),
    update_field(
        "esper_tamiyo_max_grad_norm",
        "max_grad_norm",
        "Norm that the trainer clips the gradients to.",
    ),
    gauge(
        "policy",
        "esper_tamiyo_explosion_grad_norm",
        "derived: 100 times the trainer's max_grad_norm, else the setting explosion_norm",
        "Norm before clipping above which a gradient counts as exploding: 100 times the norm that"
        " the trainer clips to, or the setting explosion_norm where that is not known.",
        read=lambda roots: roots["run"].explosion_norm,
    ),
    update_field(
        "esper_tamiyo_grad_norm_step",
        "grad_norm_step",
        "Optimizer step of the last update, counted from 1, whose gradient norms are reported: the"
        " one with the largest.",
    ),
    update_field(
        "esper_tamiyo_grad_norms_of_shard",
        "grad_norms_of_shard",
        "1 if head and layer gradient norms cover this rank's shard of the parameters only.",
    ),
    gauge(
        "policy",
        "esper_tamiyo_kl_divergence_after_update_nats",
        UPDATE + "kl_divergence_after_update",
        "KL divergence of the policy after its last optimizer step from the one that acted, of the"
        " last update in which it was measured.",
        read=_after("kl_divergence_after_update"),
    ),
    gauge(
        "policy",
        "esper_tamiyo_clipped_after_update_ratio",
        UPDATE + "clip_fraction_after_update",
        "Share of samples whose ratio, after the last optimizer step, lies outside the clip range,"
        " of the last update in which it was measured.",
        read=_after("clip_fraction_after_update"),
    ),
)

HEAD_METRICS: tuple[Metric, ...] = (
    gauge(
        "head",
        "esper_tamiyo_head_kl_after_update_nats",
        UPDATE + "head_kl_after_update[{head}]",
        "KL divergence of a head after the last optimizer step from the policy that acted.",
        read=_head_kl_after,
    ),
)

LAYER_METRICS: tuple[Metric, ...] = (
    gauge(
        "layer_fault",
        "esper_tamiyo_layer_nonfinite_latched",
        "derived: 1 once the probe saw NaN or Inf in a layer's gradients or weights, or in a loss",
        "1 once NaN or Inf was seen in a layer's gradients or weights, or in the loss that the"
        " label layer names (value_loss), until the run ends.",
    ),
    gauge(
        "layer_fault",
        "esper_tamiyo_layer_nonfinite_first_update",
        "derived: batch of the first update that lit the latch",
        "Batch of the update in which the layer was not finite first.",
    ),
    gauge(
        "layer_fault",
        "esper_tamiyo_layer_nonfinite_first_timestamp_seconds",
        "derived: time of the first report that lit the latch",
        "When the layer was not finite first.",
    ),
    counter_in(
        "layer_fault",
        "esper_tamiyo_layer_nonfinite_updates_total",
        "derived: updates that lit the latch, each counted once",
        "Policy updates in which the layer was not finite.",
    ),
)

COUNTERS: tuple[Metric, ...] = (
    counter(
        counted.UPDATES_INCOMPLETE,
        "derived: number of policy updates that were measured and not completed",
        "Policy updates that the probe measured and the trainer did not complete: raised (an"
        " exception left the update), skipped, no_event (the trainer did not report it).",
    ),
    counter(
        counted.PROBE_DISAGREEMENTS,
        "derived: reports in which the trainer's value and the probe's differ beyond tolerance",
        "Times that the trainer and the probe reported different values for a field; the trainer's"
        " is on the page.",
    ),
)

SEAM_METRICS: tuple[Metric, ...] = (
    gauge(
        "seam",
        "esper_exporter_probe_seams",
        "derived: 1 where the trainer has the function that a group of fields is measured at",
        "1 if a group of fields is measured, 0 if this version of the trainer has no such function"
        " and the fields stay absent.",
    ),
)
