"""The MCP server, asked by the SDK's own client over standard input and output."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from esper_exporter.demo.bundled import recording


async def _ask(source: str, calls: list[tuple[str, dict[str, Any]]]) -> tuple[list[Any], list[Any]]:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    arguments = ["-m", "esper_exporter", "mcp", source]
    server = StdioServerParameters(command=sys.executable, args=arguments)
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        answers = [await session.call_tool(name, arguments) for name, arguments in calls]
    return tools, answers


def text_of(answer: Any) -> str:
    return "".join(part.text for part in answer.content)


def test_an_assistant_asks_for_runs_causes_and_rows() -> None:
    with recording("run2b") as path:
        run_id = "ppo_44_20ep-20261121T004450Z"
        tools, answers = asyncio.run(
            _ask(
                str(path),
                [
                    ("runs", {}),
                    ("explain", {"run_id": run_id}),
                    ("query", {"sql": "SELECT head FROM latches ORDER BY head"}),
                    ("compare", {"first_run_id": run_id, "second_run_id": run_id}),
                    ("query", {"sql": "COPY (SELECT 1) TO 'esper-exporter-written'"}),
                    ("query", {"sql": "SELECT * FROM read_text('/etc/hostname')"}),
                    ("explain", {"run_id": "none"}),
                ],
            )
        )
    assert {tool.name for tool in tools} == {"runs", "explain", "query", "compare"}
    runs, report, rows, compared, *refused = answers
    assert "head_nan" in text_of(runs)
    assert json.loads(text_of(report))["head"] == "tempo"
    assert json.loads(text_of(rows))["rows"] == [{"head": "op"}, {"head": "tempo"}]
    assert json.loads(text_of(compared))["parts"] is None
    for answer in refused:
        assert getattr(answer, "is_error", None) or getattr(answer, "isError", None)


def test_a_query_that_needs_too_much_memory_fails_alone() -> None:
    with recording("run2b") as path:
        _, (huge, after) = asyncio.run(
            _ask(
                str(path),
                [
                    ("query", {"sql": "SELECT length(repeat('x', 3000000000)) AS n"}),
                    ("query", {"sql": "SELECT count(*) AS n FROM latches"}),
                ],
            )
        )
    assert "memory" in text_of(huge).lower(), text_of(huge)
    assert json.loads(text_of(after))["rows"] == [{"n": 2}]


def test_rows_are_limited() -> None:
    from esper_exporter.journal.mcp_server import MOST_ROWS, Tools
    from esper_exporter.journal.query import QueryRefused

    with recording("run1") as path:
        tools = Tools([str(path)])
        reported = tools.query("SELECT seq, 'NaN'::DOUBLE AS x FROM raw_events")
        assert (len(reported["rows"]), reported["cut"]) == (MOST_ROWS, True)
        assert reported["rows"][0]["x"] == "NaN"
        with pytest.raises(QueryRefused):
            tools.query("DROP VIEW runs")
