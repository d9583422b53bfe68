"""Rules, routes and dashboards for a view of several clusters: whose label, and which series.

The shipped files call the label that distinguishes clusters ``cluster``. Where there is none, it is
empty everywhere and changes nothing; where it has another name, the files are written with that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

SHIPPED_LABEL = "cluster"
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MATCHERS = re.compile(
    r'[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*"'
    r'(?:\s*,\s*[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*")*'
)
_IN_PROMQL = re.compile(r"(?<![\w$:.{-])cluster(?=\s*(?:[,)]|=~|!~|!=|=))|(?<=\{)cluster(?==)")
_IN_ROUTES = re.compile(r"(?<=[\[ ,])cluster(?=[,\]])")
_IN_TEMPLATES = re.compile(r"(?<=\.Labels\.)cluster\b|(?<=\$labels\.)cluster\b")
# A metric in an expression; a recorded series has a colon, and what is recorded was selected.
_SERIES = re.compile(r"(?<![\w:\"/-])(esper_[a-z0-9_]+|up|scrape_duration_seconds)\b(?![:(])(\{)?")
_EXPRESSION = re.compile(r"^(?P<indent> *)(?:- )?expr:(?P<rest>.*(?:\n(?P=indent) +.*|\n$)*)", re.M)


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """``cluster_label`` instead of ``cluster``, and ``selector`` in every selector of the rules.

    Raises ValueError for what is no label, and for what are no matchers.
    """

    cluster_label: str = SHIPPED_LABEL
    selector: str = ""

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.cluster_label):
            raise ValueError(f"--cluster-label: {self.cluster_label!r} is no label name")
        if self.selector and not _MATCHERS.fullmatch(self.selector):
            raise ValueError(f'--selector: {self.selector!r} are no matchers, such as env="prod"')

    def applied(self, name: PurePosixPath, content: bytes) -> bytes:
        """A shipped file with these options; files they do not concern stay as they are."""
        if self == RuleOptions() or name.suffix not in (".yml", ".yaml", ".json", ".tmpl"):
            return content
        text = content.decode()
        rules = name.parent.name == "rules" or name.name == "prometheusrule.yaml"
        if rules and self.selector:
            text = _EXPRESSION.sub(lambda found: self._selected(found[0]), text)
        if rules or name.parent.name == "dashboards":
            text = _IN_PROMQL.sub(self.cluster_label, text)
            text = _IN_TEMPLATES.sub(self.cluster_label, text)
        elif name.name == "alertmanager.yml":
            text = _IN_ROUTES.sub(self.cluster_label, text)
        elif name.suffix == ".tmpl":
            text = _IN_TEMPLATES.sub(self.cluster_label, text)
        return text.encode()

    def _selected(self, expression: str) -> str:
        matchers = self.selector
        if "\n" not in expression and expression.split("expr:", 1)[1].lstrip().startswith('"'):
            matchers = matchers.replace("\\", "\\\\").replace('"', '\\"')

        def with_matchers(found: re.Match[str]) -> str:
            return f"{found[1]}{{{matchers}," if found[2] else f"{found[1]}{{{matchers}}}"

        # A comment among the lines of an expression stays one.
        return "\n".join(
            line if line.lstrip().startswith("#") else _SERIES.sub(with_matchers, line)
            for line in expression.split("\n")
        )
