"""What the policy decides: operations, confidence, and value against reward."""

from __future__ import annotations

from grafana.generator.head_queries import HEAD_NAME, OF_HEADS
from grafana.generator.look import (
    HEAD_COLORS,
    OP_COLORS,
)
from grafana.generator.model import Target
from grafana.generator.panels import RUN_NAME, heatmap, ranking, series
from grafana.generator.queries import (
    RUN,
    buckets,
    by,
    mean_of_histogram,
    rates,
    select,
    so_far,
)

_CHOSEN = so_far("esper_tamiyo_choices_total", "head", "choice", scope=OF_HEADS)
_DECIDED = so_far("esper_tamiyo_choices_total", "head", scope=OF_HEADS)
_SHARE_OF_CHOICES = (
    f"sort_desc({_CHOSEN} / on (run_id, group_id, head) group_left () ({_DECIDED} > 0) > 0)"
)

DECISIONS = (
    series(
        "Mix of operations",
        Target(
            f"{rates('esper_tamiyo_actions_total', 'op')} / on (run_id, group_id) group_left ()"
            f" ({rates('esper_tamiyo_actions_total')} > 0)",
            f"{{{{op}}}} {RUN_NAME}",
        ),
        "Share of each operation among a run's actions, a panel for each group. Good: a mix. More"
        " than 70 % WAIT means that the policy avoids risk; one operation above 80 % means that it"
        " collapsed onto it.",
        unit="percentunit",
        stack="normal",
        repeat="group",
        maximum=1.0,
        minimum=0.0,
        colors=OP_COLORS,
        width=12,
    ),
    ranking(
        "Operations so far",
        f"sort_desc({so_far('esper_tamiyo_actions_total', 'op')})",
        f"{{{{op}}}} {RUN_NAME}",
        "Actions of the run by operation. PRUNE far above FOSSILIZE: what is grown is not worth"
        " keeping.",
        unit="none",
        colors=OP_COLORS,
        width=6,
    ),
    ranking(
        "Actions that succeeded",
        f"sort({so_far('esper_tamiyo_actions_total', 'op', success='true')}"
        f" / ({so_far('esper_tamiyo_actions_total', 'op')} > 0))",
        f"{{{{op}}}} {RUN_NAME}",
        "Share of each operation's actions that could be carried out. Good: near 100 %. Low: the"
        " policy asks for what the slots cannot do; look at the masks.",
        unit="percentunit",
        decimals=0,
        minimum=0.0,
        maximum=1.0,
        colors=OP_COLORS,
        width=6,
    ),
    ranking(
        "Choices of the heads",
        f"topk by (run_id, group_id) (16, {_SHARE_OF_CHOICES})",
        f"{{{{head}}}}: {{{{choice}}}} {RUN_NAME}",
        "Share of each choice among a head's decisions that mattered, the largest sixteen. Good:"
        " several of each head. One at 100 %: that head chooses no more.",
        unit="percentunit",
        decimals=0,
        minimum=0.0,
        maximum=1.0,
        width=12,
    ),
    series(
        "Confidence by head",
        Target(
            mean_of_histogram("esper_tamiyo_decision_confidence_ratio", "head", scope=OF_HEADS),
            HEAD_NAME,
        ),
        "Mean probability of what each head chose, every decision counted. Rises as the policy"
        " learns; near 100 % it no longer explores.",
        unit="percentunit",
        maximum=1.0,
        colors=HEAD_COLORS,
    ),
    series(
        "Decision entropy by head",
        Target(
            mean_of_histogram("esper_tamiyo_decision_entropy_ratio", "head", scope=OF_HEADS),
            HEAD_NAME,
        ),
        "Mean entropy of each head at the decisions, as a share of its maximum. Good: above 0.25."
        " Absent where the decisions do not carry it.",
        unit="percentunit",
        maximum=1.0,
        colors=HEAD_COLORS,
    ),
    heatmap(
        "Confidence of the operation",
        buckets("esper_tamiyo_decision_confidence_ratio", head="op"),
        "How sure the op head was of each decision. Good: spread out while it learns, moving up"
        " later. All in the top band at once: collapse.",
        unit="percentunit",
    ),
    series(
        "Value against reward",
        (
            Target(by("avg", RUN, select("esper_tamiyo_decision_value")), f"value {RUN_NAME}"),
            Target(by("avg", RUN, select("esper_tamiyo_decision_reward")), f"reward {RUN_NAME}"),
        ),
        "Value estimate and reward of the environments' last decisions, on the mean. The value is"
        " of the whole rest of the episode, so compare how they move, not how large they are.",
        unit="short",
    ),
    series(
        "TD advantage",
        (
            Target(
                by("avg", RUN, select("esper_tamiyo_decision_td_advantage")), f"mean {RUN_NAME}"
            ),
            Target(
                by("min", RUN, select("esper_tamiyo_decision_td_advantage")),
                f"lowest {RUN_NAME}",
            ),
            Target(
                by("max", RUN, select("esper_tamiyo_decision_td_advantage")),
                f"highest {RUN_NAME}",
            ),
        ),
        "Reward plus discounted next value less value, of the environments' last decisions. Good:"
        " around 0. A lasting offset is a biased value function.",
        unit="short",
    ),
    series(
        "Decisions without a say",
        Target(
            rates("esper_tamiyo_masked_decisions_total", "head", scope=OF_HEADS)
            + " / on (run_id, group_id) group_left () "
            + f"({rates('esper_tamiyo_decisions_total')} > 0)",
            HEAD_NAME,
        ),
        "Share of decisions in which a head's choice was masked. High for sparse heads, and for"
        " slot in runs with one slot.",
        unit="percentunit",
        maximum=1.0,
        colors=HEAD_COLORS,
    ),
)
