"""Parts of the views: their common columns, unions and rows that count once."""

from __future__ import annotations

from dataclasses import dataclass, field

from esper_exporter.journal.columns import Column, Table, tables

COMMON: dict[str, str] = {
    "event_id": "_event_id",
    "timestamp": "_timestamp",
    "run_dir": "run_dir(_source)",
    "run_id": "_run_id",
    "group_id": "_group_id",
    "rank": "_rank",
    "seq": "_seq",
    "source": "_source",
}
"""Column → expression over a table's envelope, in front of every view."""

COMMON_COMMENTS = {
    "event_id": "id of the event, as emitted",
    "timestamp": "time of the event, UTC",
    "run_dir": "directory of the telemetry file",
    "run_id": "the run, as labels on the exporter's page name it",
    "group_id": "A/B group",
    "rank": "rank of the process",
    "seq": "number of the event's line in its source, from 1",
    "source": "file or journal that the event came from",
}

RUN_DIR = r"""CREATE MACRO run_dir(name) AS
    regexp_extract(name, '(?:^|[\\/])([^\\/]+)[\\/][^\\/]*$', 1)"""


@dataclass(frozen=True, slots=True)
class View:
    """A view: what it shows, its query, its other names, and comments (units) by column."""

    name: str
    about: str
    query: str
    aliases: tuple[str, ...] = ()
    comments: dict[str, str] = field(default_factory=dict)


def relation(kind: str) -> str:
    """The name of an event type's table in the database."""
    return f"event_{kind.lower()}"


def _expression(column: Column) -> str:
    quoted = f'"{column.name}"'
    return f"{quoted}::JSON AS {quoted}" if column.shape == "JSON" else quoted


def common(names: tuple[str, ...] = tuple(COMMON)) -> str:
    return ", ".join(f'{COMMON[name]} AS "{name}"' for name in names)


def fields_of(table: Table, without: frozenset[str] = frozenset()) -> str:
    taken = without | COMMON.keys()
    return ", ".join(_expression(each) for each in table.columns if each.name not in taken)


def units_of(*kinds: str) -> dict[str, str]:
    found = {
        column.name: column.unit
        for kind in kinds
        for column in tables()[kind].columns
        if column.unit
    }
    return COMMON_COMMENTS | found


_FINGERPRINTS: dict[str, tuple[str, ...]] = {
    "TAMIYO_POLICY_UPDATE": (
        *("batch", "coalesce(ppo_update_idx, ppo_updates_count)", "policy_loss", "value_loss"),
        *("entropy", "kl_divergence", "clip_fraction"),
    ),
    "TOLARIA_EPOCH_COMPLETED": (
        *("env_id", "inner_epoch", "episode_idx", "val_accuracy", "val_loss"),
    ),
    "TOLARIA_BATCH_COMPLETED": ("batch_idx", "episodes_completed", "avg_accuracy", "avg_reward"),
    "TOLARIA_ROLLBACK": ("env_id", "reason", "episode_idx", "loss_at_panic"),
}
"""Fields that are equal in the two events of one update under its two names."""


def once(kind: str) -> str:
    """The rows of a type, each update once although it was emitted under both its names."""
    if kind not in _FINGERPRINTS:
        return relation(kind)
    keys = ", ".join(("_source", "_run_id", "_group_id", *_FINGERPRINTS[kind]))
    return f"""(SELECT * EXCLUDE (_turn) FROM (
            SELECT *, row_number() OVER (PARTITION BY {keys}, _event_type ORDER BY _seq) AS _turn
            FROM {relation(kind)})
        QUALIFY row_number() OVER (PARTITION BY {keys}, _turn ORDER BY _seq) = 1)"""


def plain_view(
    name: str,
    kind: str,
    about: str,
    *,
    aliases: tuple[str, ...] = (),
    extra: str = "",
    where: str = "",
    dual: frozenset[str] = frozenset(),
) -> View:
    source = once(kind) if kind in dual else relation(kind)
    table = tables()[kind]
    parts = [common(), *([extra] if extra else []), fields_of(table)]
    query = f"SELECT {', '.join(parts)} FROM {source}" + (f" WHERE {where}" if where else "")
    return View(name, about, query, aliases, units_of(kind))


def union_of(kinds: tuple[str, ...], wanted: tuple[str, ...] = ()) -> str:
    """Rows of several types under one set of columns; what a type lacks is NULL."""
    shapes: dict[str, Column] = {}
    for kind in kinds:
        for column in tables()[kind].columns:
            if not wanted or column.name in wanted:
                shapes.setdefault(column.name, column)
    selects = []
    for kind in kinds:
        has = {column.name for column in tables()[kind].columns}
        cells = [
            (
                f'"{name}"::{column.sql} AS "{name}"'
                if name in has
                else f'NULL::{column.sql} AS "{name}"'
            )
            for name, column in shapes.items()
        ]
        selects.append(
            "SELECT _event_type, _event_id, _timestamp, _run_id, _group_id, _rank, _seq, _source,"
            f" _epoch, _message, _seed_id, _slot_id, {', '.join(cells)} FROM {relation(kind)}"
        )
    return "(" + " UNION ALL BY NAME ".join(selects) + ")"


def _data(table: Table) -> str:
    cells = ", ".join(
        f"'{column.name}': \"{column.name}\"" + ("::JSON" if column.shape == "JSON" else "")
        for column in table.columns
    )
    return f"to_json({{{cells}}})::JSON"


MORPHOLOGY_EPOCH = (
    "coalesce(_epoch, try_cast(regexp_extract(action_id, '-e([0-9]+)-', 1) AS BIGINT))"
)
"""Its events carry the epoch in the action's id only."""


def raw(present: tuple[str, ...]) -> str:
    selects = []
    for kind in present:
        epoch = MORPHOLOGY_EPOCH if kind == "MORPHOLOGY_CAUSAL_LOG" else "_epoch"
        selects.append(
            f"SELECT {common()}, _event_type AS event_type, _seed_id AS seed_id,"
            f" _slot_id AS slot_id, {epoch} AS epoch, _message AS message,"
            f" {_data(tables()[kind])} AS data, _severity AS severity, _source AS filename"
            f" FROM {relation(kind)}"
        )
    return " UNION ALL ".join(selects)
