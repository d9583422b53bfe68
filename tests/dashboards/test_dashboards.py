"""The dashboards: generated, readable by Grafana, and about metrics that there are."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from grafana.generator.folder import files

from dashboards.boards import (
    BOARDS,
    FILES,
    GROUPING,
    MATCHER,
    METRIC,
    expressions,
    panels,
    variables,
)
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.metric import columns_of

TARGET_LABELS = {"cluster", "job", "instance"}
GREENS = re.compile(r"(?i)green|#1f9e75")

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def test_the_committed_files_are_what_the_generator_writes() -> None:
    """When this fails: ``make dashboards``."""
    wanted = files()
    assert sorted(path.name for path in FILES) == sorted(wanted)
    stale = [path.name for path in FILES if path.read_text() != wanted[path.name]]
    assert stale == []


@each_board
def test_grafana_can_load_it(board: dict[str, Any]) -> None:
    assert 39 <= board["schemaVersion"] <= 42
    assert board["uid"] in BOARDS and "id" not in board
    assert (board["editable"], board["graphTooltip"]) == (False, 1)
    numbers = Counter(p["id"] for row in board["panels"] for p in (row, *row.get("panels", [])))
    assert set(numbers.values()) == {1}
    # The one with everything is closed rows, opened one at a time.
    assert board["uid"] == "esper-run" or len(list(panels(board))) <= 40
    for panel in panels(board):
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        refs = [target["refId"] for target in panel.get("targets", [])]
        assert len(refs) == len(set(refs))
        assert panel["datasource"]["uid"] == "${datasource}"


@each_board
def test_every_panel_says_what_is_good_and_has_a_unique_title(board: dict[str, Any]) -> None:
    titles = Counter(panel["title"] for panel in panels(board))
    assert set(titles.values()) == {1}
    for panel in panels(board):
        assert len(panel["description"]) > 40, panel["title"]


def test_everything_that_is_exported_can_be_looked_at() -> None:
    """A family is on a panel, the last dashboard at the latest; nothing is excused."""
    queries = " ".join(query for board in BOARDS.values() for _, query in expressions(board))
    named = set(re.findall(r"[a-z_][a-z0-9_]*", queries))
    unseen = [
        metric.name
        for metric in catalogue().metrics
        if not named & {metric.name + column.suffix for column in columns_of(metric)}
    ]
    assert unseen == []


def test_everything_of_a_run_costs_nothing_until_a_row_is_opened() -> None:
    assert all(row["type"] == "row" and row["collapsed"] for row in BOARDS["esper-run"]["panels"])


def test_every_metric_and_label_is_in_the_catalogue() -> None:
    labels = {
        column.metric.name + column.suffix: {
            *column.metric.labels,
            *(name for name, _ in column.labels),
        }
        for metric in catalogue().metrics
        for column in columns_of(metric)
    }
    known = set().union(*labels.values()) | TARGET_LABELS | {"alertname", "severity", "__name__"}
    for uid, board in BOARDS.items():
        for where, expression in expressions(board):
            for name, _, matchers in METRIC.findall(expression):
                assert name in labels, f"{uid}, {where}: {name}"
                for label in MATCHER.findall(matchers):
                    assert label in labels[name] | TARGET_LABELS, f"{uid}, {where}: {label}"
            named = {
                label.strip() for each in GROUPING.findall(expression) for label in each.split(",")
            }
            assert named - {""} <= known, f"{uid}, {where}"


@each_board
def test_every_query_follows_the_variables_and_none_pins_a_choice(board: dict[str, Any]) -> None:
    names = {variable["name"] for variable in board["templating"]["list"]}
    for where, expression in expressions(board):
        used = set(re.findall(r"\$\{?(\w+)", expression))
        assert used <= names | {"__interval", "__range", "__rate_interval"}, where
        for name, selector, _ in METRIC.findall(expression if where != "$job" else ""):
            assert 'job=~"$job"' in selector, f"{where}: {name}{selector}"
        windows = re.findall(r"\b(?:rate|increase)\([^\[]*\[([^\]]*)\]", expression)
        assert set(windows) <= {"$__rate_interval"}, where
    for variable in variables(board):
        assert variable["multi"] and variable["refresh"] == 2 and variable["current"] == {}


@each_board
def test_nothing_is_green_when_data_is_missing(board: dict[str, Any]) -> None:
    """The base step is what an empty panel, a null and a NaN are drawn with."""
    for panel in panels(board):
        field = panel["fieldConfig"]
        steps = [field["defaults"].get("thresholds", {}).get("steps", [])]
        for override in field["overrides"]:
            looks = {each["id"]: each["value"] for each in override["properties"]}
            steps.append(looks.get("thresholds", {}).get("steps", []))
        for each in steps:
            assert not each or not GREENS.search(each[0]["color"]), panel["title"]
        if panel["type"] in ("stat", "gauge", "bargauge"):
            special = {
                mapping["options"]["match"]: mapping["options"]["result"]["color"]
                for mapping in field["defaults"]["mappings"]
                if mapping["type"] == "special"
            }
            assert {"null", "nan"} <= set(special), panel["title"]
            assert not any(GREENS.search(color) for color in special.values())
            assert field["defaults"]["noValue"]


@each_board
def test_vitals_ask_for_one_moment_only(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] in ("stat", "gauge", "bargauge", "table"):
            assert all(target["instant"] for target in panel["targets"]), panel["title"]


@each_board
def test_marks_and_links_are_there(board: dict[str, Any]) -> None:
    marks = {annotation["name"]: annotation["expr"] for annotation in board["annotations"]["list"]}
    assert "(ALERTS{" in marks["Alerts"]
    assert {"Run starts", "Run ends", "Latches"} <= set(marks)
    (links,) = board["links"]
    assert (links["includeVars"], links["keepTime"], links["tags"]) == (True, True, ["esper"])
    assert "esper" in board["tags"]


def test_links_lead_to_dashboards_and_variables_that_there_are() -> None:
    for board in BOARDS.values():
        for panel in panels(board):
            for url in re.findall(r'"url": "(/d/[^"]+)"', str(panel).replace("'", '"')):
                uid, _, query = url.removeprefix("/d/").partition("?")
                assert uid in BOARDS, url
                there = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
                assert set(re.findall(r"var-(\w+)=", query)) <= there, url


def color_of(name: str) -> str:
    """The colour of a run's line in the fleet's graphs; there must be one."""
    (panel,) = (each for each in panels(BOARDS["esper-fleet"]) if each["title"] == "Mean return")
    (color,) = (
        override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
        if re.search(override["matcher"]["options"].strip("/"), name)
    )
    return str(color)


@pytest.mark.parametrize(
    "name", ["run-{}", "{}", "2026-11-2{}-lr3e-4", "seed{}/shaped", "run-20261121T20563{}Z"]
)
def test_runs_whose_names_differ_in_one_digit_have_different_colors(name: str) -> None:
    assert len({color_of(name.format(digit)) for digit in range(10)}) == 10


def test_a_run_without_digits_has_a_color() -> None:
    assert color_of("baseline") != color_of("baseline-b")
