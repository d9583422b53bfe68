"""What a run was started with, as a table."""

from __future__ import annotations

from grafana.generator.model import Panel
from grafana.generator.queries import RUN, by, over_range, select, worst
from grafana.generator.tables import column, table

_TEXTS = {
    "task": "Task",
    "reward_mode": "Reward mode",
    "seed": "Seed",
    "policy_device": "Policy on",
    "env_devices": "Envs on",
    "amp_dtype": "AMP",
    "compile_backend": "Compile",
    "job_id": "Job",
    "partition": "Partition",
    "user": "User",
}

CONFIGURATION: Panel = table(
    "Configuration",
    {"run_id": "Run", "group_id": "Group", **_TEXTS},
    (
        column(
            "Info",
            by("max", (*RUN, *_TEXTS), over_range("last_over_time", select("esper_run_info"))),
        ),
        column("Learning rate", worst("max", "esper_run_initial_learning_rate"), width=120),
        column("Clip range", worst("max", "esper_run_clip_ratio")),
        column("Entropy coef.", worst("max", "esper_run_initial_entropy_coefficient"), width=120),
        column("Envs", worst("max", "esper_run_environments"), decimals=0),
        column("Batches", worst("max", "esper_run_batches"), decimals=0),
        column("Epochs", worst("max", "esper_run_episode_epochs"), decimals=0),
        column("Budget", worst("max", "esper_run_param_budget"), unit="short"),
    ),
    "What the run was started with. Look here first when two runs differ; what the start event did"
    " not tell is a dash.",
    height=5,
    hidden=("Info",),
    key_properties={
        "Run": (("custom.width", 230),),
        "Task": (("custom.width", 130),),
        "Reward mode": (("custom.width", 120),),
    },
)
