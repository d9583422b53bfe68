"""Read YAML with every scalar as its literal text. Needs PyYAML, from the extra ``web``."""

from __future__ import annotations

from typing import Any

import yaml


class YamlError(ValueError):
    """Invalid YAML; the message begins with the line number, if known, and a colon."""


class _PlainLoader(yaml.BaseLoader):
    """Loads every scalar as its literal text, as Go does for string fields."""


def _mapping(loader: yaml.BaseLoader, node: yaml.MappingNode) -> dict[str, Any]:
    """A mapping with text keys, without duplicates."""
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str) or key in mapping:
            problem = "a key that is not text" if not isinstance(key, str) else "a repeated key"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_PlainLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def plain_yaml(text: str) -> Any:
    """The document's mappings, lists and texts. Raises YamlError."""
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        what = getattr(error, "problem", None) or "not readable"
        raise YamlError(f"{where}: invalid YAML: {what}") from None
    except RecursionError:
        raise YamlError(": nested too deeply") from None
