"""The Helm chart, rendered by Helm's own library, is what kustomize applies, and valid."""

from __future__ import annotations

import base64
import gzip
import json
import runpy
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator
from scripts.chart import helm
from scripts.chart.values import Value

from esper_exporter.cli import build_parser
from support.installed import ROOT

CHART = ROOT / "deploy" / "helm" / "esper"
KUSTOMIZE = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.25", "1.30", "1.34")
OPERATOR = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}
VALUES = helm.all_values("0.1.0")
LARGEST_SECRET = 1 << 20
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast, where PyYAML has libyaml."""
WITHOUT_DASHBOARDS: dict[str, Any] = {"dashboards": {"enabled": False}}

OTHER: dict[str, Any] = {
    "agent.affinity": {"nodeAffinity": {}},
    "agent.tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "agent.resources": {"limits": {"memory": "1Gi"}},
    "image.pullSecrets": [{"name": "registry"}],
    "image.pullPolicy": "Always",
    "networkPolicy.from": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    "podMonitor.interval": "30s",
    "podMonitor.scrapeTimeout": "5s",
}
"""A value beside the default, where the schema does not suggest one."""


def other(value: Value) -> Any:
    """A value that is not the default."""
    if value.path in OTHER:
        return OTHER[value.path]
    if isinstance(value.default, bool):
        return not value.default
    if isinstance(value.default, int):
        return value.default + 1
    if isinstance(value.default, dict):
        return {"team": "on-call"}
    return f"{value.default}-other"


def nested(path: str, value: Any) -> dict[str, Any]:
    """Values for Helm with one of them set."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def rendered(values: dict[str, Any] | None = None) -> list[Any]:
    """The objects that ``helm template`` would print."""
    with helm_python.Chart.load(str(CHART)) as chart:
        texts = chart.render(values or {}, name="esper", namespace="esper")
    return [each for text in texts.values() for each in yaml.load_all(text, LOADER) if each]


@pytest.fixture(scope="module")
def objects() -> list[Any]:
    return rendered()


def test_helm_finds_nothing_wrong() -> None:
    said = helm_python.lint(str(CHART), strict=True)
    assert said["errors"] == []
    assert {each["error"] for each in said["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_own_objects_are_valid(objects: list[Any], version: str) -> None:
    kinds = []
    for each in objects:
        if each["kind"] not in OPERATOR:
            kubernetes_validate.validate(each, version, strict=True)
            kinds.append(each["kind"])
    assert kinds.count("ConfigMap") == len(list((ROOT / "grafana/dashboards").glob("*.json")))
    assert {"DaemonSet", "NetworkPolicy"} <= set(kinds)


def unknown_fields(given: Any, taken: Any, where: str = "") -> Iterator[str]:
    """Fields of an object that its model does not know."""
    if isinstance(given, dict):
        for key, inner in given.items():
            if key in taken:
                yield from unknown_fields(inner, taken[key], f"{where}.{key}")
            else:
                yield f"{where}.{key}"
    elif isinstance(given, list):
        for one, other_one in zip(given, taken, strict=True):
            yield from unknown_fields(one, other_one, where)


@pytest.mark.parametrize("kind", sorted(OPERATOR))
def test_the_operators_objects_are_valid(objects: list[Any], kind: str) -> None:
    (found,) = [each for each in objects if each["kind"] == kind]
    read = OPERATOR[kind].model_validate(found)
    assert list(unknown_fields(found, read.model_dump(by_alias=True, exclude_none=True))) == []


def test_chart_and_kustomize_apply_the_same(objects: list[Any]) -> None:
    for name in ("agent", "networkpolicy", "podmonitor", "prometheusrule"):
        (wanted,) = yaml.safe_load_all((KUSTOMIZE / f"{name}.yaml").read_text())
        (found,) = [each for each in objects if each["kind"] == wanted["kind"]]
        assert found["spec"] == wanted["spec"], name
        assert found["metadata"]["name"] == wanted["metadata"]["name"]
    dashboards = {
        name: json.loads(text)
        for each in objects
        if each["kind"] == "ConfigMap"
        for name, text in each["data"].items()
    }
    folder = ROOT / "grafana" / "dashboards"
    assert dashboards == {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_every_value_changes_what_is_applied(objects: list[Any]) -> None:
    small = rendered(WITHOUT_DASHBOARDS)
    unchanged = []
    for value in VALUES:
        given, before = nested(value.path, other(value)), objects
        if not value.path.startswith("dashboards."):
            given, before = given | WITHOUT_DASHBOARDS, small
        if rendered(given) == before:
            unchanged.append(value.path)
    assert unchanged == []


@pytest.mark.parametrize(
    "values",
    [
        {"agent": {"prot": 9108}},
        {"agent": {"port": "9108"}},
        {"agent": {"port": 0}},
        {"podMonitor": {"interval": "often"}},
        {"image": {"tag": ""}},
        {"dashboard": {"enabled": False}},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmValuesError):
        rendered(values)


def test_nothing_is_left_when_everything_is_off() -> None:
    switches = [value.path for value in VALUES if value.path.endswith(".enabled")]
    assert len(switches) == 5
    off: dict[str, Any] = {}
    for path in switches:
        off |= nested(path, False)
    assert rendered(off) == []


def test_the_chart_fits_into_the_secret_of_a_release(objects: list[Any]) -> None:
    """Helm keeps chart and manifest in one Secret, gzipped and base64 twice."""
    files = [path for path in CHART.rglob("*") if path.is_file()]
    chart = "".join(base64.b64encode(path.read_bytes()).decode() for path in files)
    whole = gzip.compress((chart + json.dumps(objects)).encode())
    assert len(base64.b64encode(whole)) < LARGEST_SECRET


def test_a_pod_that_mounts_the_host_is_in_a_namespace_that_allows_it() -> None:
    """Pod security refuses hostPath from the level baseline on."""
    documents = {path.name: yaml.safe_load(path.read_text()) for path in KUSTOMIZE.glob("*.yaml")}
    volumes = documents["agent.yaml"]["spec"]["template"]["spec"]["volumes"]
    assert any("hostPath" in volume for volume in volumes)
    labels = documents["namespace.yaml"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_the_agent_in_the_pod_has_a_command_it_understands(objects: list[Any]) -> None:
    (agent,) = [each for each in objects if each["kind"] == "DaemonSet"]
    pod = agent["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = build_parser().parse_args(container["args"])
    assert (options.host, options.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert pod["terminationGracePeriodSeconds"] > options.linger
    assert pod["automountServiceAccountToken"] is False
    # The user's share below /dev/shm: the kubelet makes no directory that only root may write to.
    assert container["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}]


def test_the_charts_links_lead_to_all_rules_and_dashboards() -> None:
    """When this fails: ``make manifests``."""
    wanted = runpy.run_path(str(ROOT / "scripts" / "manifests.py"))["links"](ROOT)
    folders = (CHART / "rules", CHART / "dashboards")
    found = {str(path.relative_to(ROOT)) for folder in folders for path in folder.iterdir()}
    assert found == set(wanted)
    assert all((ROOT / name).read_text() for name in wanted)
