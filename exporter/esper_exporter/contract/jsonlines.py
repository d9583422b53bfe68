"""One line of a telemetry file: JSON, with the bare NaN and Infinity that Python writes."""

from __future__ import annotations

import json
from typing import Any

import orjson

from esper_exporter.contract.rejection import MALFORMED_JSON, Rejected

MAX_LINE = 8 * 1024 * 1024


def parse_line(line: bytes | str) -> dict[str, Any]:
    """The object on a line. Raises Rejected (malformed_json) for anything else.

    The strict, fast parser first; what it refuses may hold NaN, which the standard library reads.
    """
    if not isinstance(line, bytes | str):
        raise Rejected(MALFORMED_JSON, f"a {type(line).__name__[:64]} is no line")
    if len(line) > MAX_LINE:
        raise Rejected(MALFORMED_JSON, "the line is longer than 8 MiB")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            found = json.loads(line if isinstance(line, str) else line.decode("utf-8"))
        except (ValueError, RecursionError, MemoryError):
            raise Rejected(MALFORMED_JSON, "not JSON") from None
    if not isinstance(found, dict):
        raise Rejected(MALFORMED_JSON, "not a JSON object")
    return found
