"""Runs as a Prometheus server knows them: its last samples of a run, and their history.

Numbers only: what an event's text names (a source, a layer) is known where a metric has it as a
label. Between two scrapes the server saw nothing; latches, counters and the window's maximum keep
what happened there.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from typing import Any

from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.journal.record import Ending, Incident, Nonfinite, Rollback, RunRecord, Update

SECONDS = 10.0
LOOK_BACK = "14d"
POINTS = 2_000
SCRAPE_GONE_SECONDS = 120.0
MOST_BYTES = 64 << 20

Series = dict[str, str]
Sample = tuple[float, float]

_GAUGES = {
    "esper_tamiyo_grad_norm": "grad_norm",
    "esper_tamiyo_grad_norm_pre_clip": "pre_clip_grad_norm",
    "esper_tamiyo_kl_divergence_nats": "kl_divergence",
    "esper_tamiyo_clipped_ratio": "clip_fraction",
    "esper_tamiyo_importance_ratio_max": "ratio_max",
    "esper_tamiyo_value_loss": "value_loss",
    "esper_tamiyo_value_max": "value_max",
    "esper_tamiyo_value_min": "value_min",
    "esper_tamiyo_log_prob_min_nats": "log_prob_min",
    "esper_tamiyo_explained_variance_ratio": "explained_variance",
}
_BY_HEAD = {
    "esper_tamiyo_head_choice_entropy_ratio": "entropy",
    "esper_tamiyo_head_grad_norm": "grad_norm",
    "esper_tamiyo_head_ratio_max": "ratio_max",
}


class PrometheusError(ValueError):
    """The server does not answer, or has no such run. The text is for the user."""


class _Server:
    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PrometheusError(f"{url}: no http:// or https:// address")
        self._url = url.rstrip("/")

    def ask(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode(parameters).encode()
        try:
            request = urllib.request.Request(f"{self._url}/api/v1/{path}", data=query)
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                body = answer.read(MOST_BYTES + 1)
            if len(body) > MOST_BYTES:
                raise PrometheusError(f"{self._url}: the answer is longer than 64 MiB")
            given = json.loads(body)
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{self._url}: {error.code} {error.reason}") from None
        except (OSError, ValueError) as error:
            if isinstance(error, PrometheusError):
                raise
            reason = getattr(error, "reason", error)
            raise PrometheusError(f"{self._url}: {reason}") from None
        if given.get("status") != "success":
            raise PrometheusError(f"{self._url}: {given.get('error', 'no success')}")
        result: list[dict[str, Any]] = given["data"]["result"]
        return result

    def last(self, selector: str) -> list[tuple[Series, float]]:
        """The last sample of every series, however old (within `LOOK_BACK`)."""
        found = self.ask("query", query=f"last_over_time({selector}[{LOOK_BACK}])")
        return [(each["metric"], float(each["value"][1])) for each in found]

    def seen(self, selector: str) -> list[tuple[Series, float]]:
        """When every series was sampled last."""
        query = f"max_over_time(timestamp({selector})[{LOOK_BACK}:15s])"
        found = self.ask("query", query=query)
        return [(each["metric"], float(each["value"][1])) for each in found]

    def history(self, selector: str, start: float, end: float) -> list[tuple[Series, list[Sample]]]:
        """The samples of every series over a time, `POINTS` at most."""
        step = max((end - start) / POINTS, 0.1)
        found = self.ask(
            "query_range",
            query=selector,
            start=f"{start:.3f}",
            end=f"{end:.3f}",
            step=f"{step:.3f}",
        )
        return [
            (each["metric"], [(float(t), float(v)) for t, v in each["values"]]) for each in found
        ]


def quote(text: str) -> str:
    """A label's value in PromQL."""
    return json.dumps(text, ensure_ascii=False)


def runs_of(url: str, run_id: str | None) -> list[RunRecord]:
    """The runs that a server has samples of, oldest first; of one id, or the newest.

    Raises PrometheusError.
    """
    server = _Server(url)
    chosen = "" if run_id is None else f"run_id={quote(run_id)}"
    starts = server.last(f"esper_run_start_timestamp_seconds{{{chosen}}}")
    if not starts:
        what = f"no run {run_id!r}" if run_id is not None else "no run"
        raise PrometheusError(f"{url}: {what} in the last {LOOK_BACK}")
    starts.sort(key=lambda each: each[1])
    newest = starts[-1][0].get("run_id")
    return [
        _record(server, url, labels, begun)
        for labels, begun in starts
        if labels.get("run_id") == newest
    ]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _record(server: _Server, url: str, labels: Series, begun: float) -> RunRecord:
    group, rank = labels.get("group_id", "default"), int(labels.get("rank", "0") or 0)
    same = ",".join(
        f"{name}={quote(labels[name])}" for name in ("run_id", "group_id", "rank") if name in labels
    )
    last: dict[str, list[tuple[Series, float]]] = {}
    for metric, found in server.last(
        f'{{__name__=~"esper_(run|tamiyo|tolaria|torch|simic)_.+",{same}}}'
    ):
        last.setdefault(metric.get("__name__", ""), []).append((metric, found))
    if "" in last:  # last_over_time drops the name before Prometheus 3
        last = _named(server, same)

    def one(name: str) -> float | None:
        return last[name][0][1] if last.get(name) else None

    seen = [
        moment for _, moment in server.seen(f"esper_run_last_event_timestamp_seconds{{{same}}}")
    ]
    alive = max(seen, default=begun)
    newest = one("esper_run_last_event_timestamp_seconds") or begun
    run = RunRecord(labels.get("run_id", "run"), group, rank, url, _moment(begun))
    run.last_event = _moment(newest)
    run.alive_at = _moment(alive)
    for name, metric_name in (
        ("n_envs", "esper_run_environments"),
        ("max_batches", "esper_run_batches"),
        ("n_episodes", "esper_run_episodes"),
    ):
        given = one(metric_name)
        if given is not None:
            run.config[name] = int(given)
    slots = one("esper_kasmina_configured_slots")
    if slots is not None:
        run.config["slot_ids"] = [str(n) for n in range(int(slots))]
    end = max(alive, newest) + 30.0
    _updates(server, run, same, begun, end)
    run.carried_out = int(one("esper_tamiyo_updates_total") or 0)
    batches = server.history(f"esper_run_batch{{{same}}}", begun, end)
    done = [sample for _, samples in batches for sample in samples]
    known = int(one("esper_run_batch") or 0)
    if known:
        first = next((t for t, v in done if v >= known), newest)
        run.batches.append(_batch(known, first))

    # A replay of old telemetry: its times are not those of the samples.
    old = bool(done) and newest < done[0][0] - 300.0
    if old:
        run.alive_at = None

    def number_at(moment: float) -> int:
        before = [v for t, v in done if t <= moment]
        if before:
            return int(before[-1]) + 1
        return max(int(done[0][1]), 1) if done else 1  # before the first scrape

    lit = {
        (metric.get("head"), metric.get("kind"), metric.get("source")): samples[0][0]
        for metric, samples in server.history(
            f'{{__name__=~"esper_tamiyo_(head_)?nonfinite_latched",{same}}} == 1', begun, end
        )
        if samples
    }
    _latches(run, last, number_at, lit if old else {})
    _counters(server, run, same, begun, end, number_at)
    ended_at = _moment(one("esper_run_end_timestamp_seconds") or newest)
    run.ending = _ending(last, one("esper_run_exit_code"), one("esper_run_exit_signal"), ended_at)
    if run.ending is None and one("esper_run_finished") == 1.0:
        run.ending = Ending("finished", ended_at)
    silent = datetime.now(UTC).timestamp() - alive
    run.orphaned = run.ending is None and silent > SCRAPE_GONE_SECONDS
    run.last_seq = 1 << 60
    _missing_updates(server, run, same, last)
    return run


def _missing_updates(
    server: _Server, run: RunRecord, same: str, last: dict[str, list[tuple[Series, float]]]
) -> None:
    """Updates that ran and were neither reported nor skipped: `find_missing_update` reads them."""
    ran = server.last(f'esper_simic_phase_duration_seconds_count{{phase="ppo_update",{same}}}')
    accounted = sum(
        value
        for name in ("esper_tamiyo_updates_total", "esper_tamiyo_updates_skipped_total")
        for _, value in last.get(name, [])
    )
    missing = int(ran[0][1] - accounted) if ran else 0
    if missing > 0 and run.last_event is not None:
        run.updates_ran = len(run.updates) + len(run.skipped) + missing
        run.update_ran_at = (run.last_event, run.last_seq)


def _ending(
    last: dict[str, list[tuple[Series, float]]],
    code: float | None,
    signal: float | None,
    moment: datetime,
) -> Ending | None:
    """How the run failed, by its page and by the node agent's record of its process."""
    failed = {metric.get("reason", "") for metric, up in last.get("esper_run_failed", []) if up}
    if not failed and signal:
        failed = {"killed"}
    if not failed:
        return None
    # What only says that the process is gone gives way to what says how.
    reason = min(failed, key=lambda each: (each in ("", "unknown", "died"), each))
    return Ending(
        reason or "unknown",
        moment,
        exit_code=None if code is None else int(code),
        signal=int(signal) if signal else None,
    )


def _named(server: _Server, same: str) -> dict[str, list[tuple[Series, float]]]:
    from esper_exporter.metrics.catalogue import catalogue

    found: dict[str, list[tuple[Series, float]]] = {}
    wanted = ("run", "tamiyo", "tolaria", "torch", "kasmina")
    for metric in catalogue().metrics:
        if metric.name.split("_")[1] in wanted and "histogram" not in str(metric.kind):
            found[metric.name] = server.last(f"{metric.name}{{{same}}}")
    return found


def _batch(number: int, moment: float) -> dict[str, Any]:
    return {
        "number": number,
        "time": _moment(moment),
        "accuracy": None,
        "rolling": None,
        "reward": None,
        "seq": int(moment * 1000),
    }


def _updates(server: _Server, run: RunRecord, same: str, begun: float, end: float) -> None:
    """An update for each number of a batch that was sampled, with the gauges of that time."""
    values: dict[float, dict[str, Any]] = {}
    names = "|".join((*_GAUGES, *_BY_HEAD, "esper_tamiyo_update_batch"))
    names += "|esper_tamiyo_grad_norm_window_max"
    selector = f'{{__name__=~"{names}",{same}}}'
    for metric, samples in server.history(selector, begun, end):
        name = metric["__name__"]
        if name in _BY_HEAD:
            field = f"head_{metric.get('head')}_{_BY_HEAD[name]}"
        else:
            field = _GAUGES.get(name, name)
        for moment, value in samples:
            cell = values.setdefault(moment, {})
            cell[field] = value
            if name == "esper_tamiyo_head_choice_entropy_ratio":
                # What the metric holds is over the steps with a choice already.
                cell[f"head_{metric.get('head')}_learnable_fraction"] = 1.0
    latest: dict[int, tuple[float, dict[str, Any]]] = {}
    for moment in sorted(values):
        cell = values[moment]
        number = cell.pop("esper_tamiyo_update_batch", None)
        if number is None:
            continue
        largest = cell.pop("esper_tamiyo_grad_norm_window_max", None)
        norm = cell.get("pre_clip_grad_norm") or cell.get("grad_norm")
        known = latest.get(int(number))
        if known is None and largest is not None and norm and largest > 20 * norm:
            earlier = [c["_largest"] for _, c in latest.values() if c.get("_largest")]
            if not earlier or largest > max(earlier):
                cell["pre_clip_grad_norm"] = largest  # between two scrapes
        if largest is not None:
            cell["_largest"] = largest
        if known is None:
            latest[int(number)] = (moment, cell)
    for number, (moment, cell) in sorted(latest.items()):
        for head in HEADS:
            cell.setdefault(f"head_{head}_learnable_fraction", None)
        run.updates.append(Update(number, _moment(moment), int(moment * 1000), cell))


def _latches(
    run: RunRecord,
    last: dict[str, list[tuple[Series, float]]],
    number_at: Any,
    sampled: dict[tuple[str | None, str | None, str | None], float],
) -> None:
    def by_head(name: str) -> dict[tuple[str | None, str | None], float]:
        return {(m.get("head"), m.get("kind")): value for m, value in last.get(name, [])}

    firsts = by_head("esper_tamiyo_head_nonfinite_first_timestamp_seconds")
    numbers = by_head("esper_tamiyo_head_nonfinite_first_batch")
    heads = False
    for metric, lit in last.get("esper_tamiyo_head_nonfinite_latched", []):
        if lit == 1.0:
            heads = True
            key = (metric.get("head"), metric.get("kind"))
            moment = firsts.get(key, 0.0)
            given = numbers.get(key)
            number = int(given) if given else number_at(sampled.get((*key, None), moment))
            note = _nonfinite(number, moment, "log_probs", metric["head"], metric["kind"])
            run.nonfinite.append(note)
    name = "esper_tamiyo_nonfinite_first_timestamp_seconds"
    sources = {metric.get("source"): value for metric, value in last.get(name, [])}
    for metric, lit in last.get("esper_tamiyo_nonfinite_latched", []):
        source = metric.get("source", "other")
        if lit == 1.0 and not (heads and source in ("log_probs", "ref_log_probs")):
            moment = sources.get(source, 0.0)
            at = sampled.get((None, None, source), moment)
            run.nonfinite.append(_nonfinite(number_at(at), moment, source, None, "nan"))
    # Heads that were hit in one update stand in the order of the trainer's own message.
    order = {head: place for place, head in enumerate(HEADS)}
    run.nonfinite.sort(key=lambda each: (each.seq, order.get(each.name or "", -1)))


def _nonfinite(number: int, moment: float, source: str, name: str | None, kind: str) -> Nonfinite:
    return Nonfinite(number, _moment(moment), int(moment * 1000), source, name, kind, None)


def _counters(
    server: _Server, run: RunRecord, same: str, begun: float, end: float, number_at: Any
) -> None:
    names = {
        "esper_tolaria_rollbacks_total": "rollback",
        "esper_torch_memory_ooms_total": "cuda_oom",
        "esper_tamiyo_updates_nonfinite_grad_norm_total": "gradient",
    }
    for metric, samples in server.history(f'{{__name__=~"{"|".join(names)}",{same}}}', begun, end):
        kind, before = names[metric["__name__"]], 0.0
        for moment, value in samples:
            for _ in range(min(int(value - before), 100)):
                number, seq = number_at(moment), int(moment * 1000)
                if kind == "rollback":
                    env = int(metric.get("env_id", -1))
                    run.rollbacks.append(
                        Rollback(number, _moment(moment), seq, env, metric.get("reason", ""), None)
                    )
                elif kind == "gradient":
                    known = any(n.source == "gradients" for n in run.nonfinite)
                    if not known:
                        note = _nonfinite(number - 1 or 1, moment, "gradients", None, "nan")
                        run.nonfinite.append(note)
                else:
                    run.incidents.append(Incident(kind, number, _moment(moment), seq))
            before = max(before, value)
    run.rollbacks.sort(key=lambda each: each.seq)
    loss = server.last(f"esper_tolaria_last_rollback_loss{{{same}}}")
    if run.rollbacks and loss and not math.isfinite(loss[0][1]):
        first = run.rollbacks[0]
        run.rollbacks[0] = Rollback(
            first.number, first.time, first.seq, first.env, first.reason, loss[0][1]
        )
    gpu = server.history('esper_gpu_xid_errors_total{xid!~"43|45"} > 0', begun, end)
    for metric, samples in gpu:
        if samples:
            moment = samples[0][0]
            detail = f"XID {metric.get('xid')} on GPU {metric.get('gpu')} ({metric.get('uuid')})"
            run.incidents.append(
                Incident(
                    "gpu_fault", number_at(moment), _moment(moment), int(moment * 1000), detail
                )
            )
