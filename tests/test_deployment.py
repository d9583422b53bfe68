"""The deployment files, by the programs and schemas that will read them."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

from support.installed import ROOT
from support.ports import free_port
from support.programs import end, program, wait_until

KUBERNETES = ROOT / "deploy" / "kubernetes"
PROMETHEUS = sorted((ROOT / "deploy" / "prometheus").glob("*.yml"))
OWN_SCHEMA = {"PodMonitor", "PrometheusRule", "Kustomization"}
"""Kinds that Kubernetes itself has no schema for."""


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stack as compose understands it."""
    folder = tmp_path_factory.mktemp("stack")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    done = subprocess.run(
        [program("docker-compose"), "--profile", "gpu", "config"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_every_service_is_pinned_read_only_and_local(composed: Any) -> None:
    services = composed["services"]
    assert set(services) == {"trainer", "trainer-gpu", "prometheus", "alertmanager", "grafana"}
    for name, service in services.items():
        # What comes from a registry is pinned by its digest.
        pinned = r"(-cuda)?$" if "build" in service else r"@sha256:[0-9a-f]{64}$"
        assert re.search(r":v?\d+\.\d+\.\d+" + pinned, service["image"]), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        for port in service.get("ports", []):
            local = port.startswith("127.0.0.1:") if isinstance(port, str) else port["host_ip"]
            assert local in (True, "127.0.0.1"), name
    for name in ("prometheus", "alertmanager", "grafana"):
        assert services[name]["healthcheck"]["test"], name
    assert re.search(r"^HEALTHCHECK", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_the_image_begins_with_a_digest_and_every_version_has_its_hashes() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=\S+:\S+@sha256:[0-9a-f]{64}$", dockerfile, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE}"}
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in constraints if "==" in line)
    listed = set()
    for path in sorted((ROOT / "deploy").glob("requirements-*.txt")):
        for entry in re.split(r"\n(?=\S)", path.read_text()):
            if entry.startswith("#"):
                continue
            name, version = re.match(r"([\w.-]+)==([\w.]+)", entry).groups()
            listed.add(name)
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), f"{path.name}: {name}"
            assert tested.get(name, version) == version, f"{path.name}: {name}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["demo"], *extras["push"], *extras["web"]]
    assert {re.split(r"[<>=]", one)[0] for one in wanted} <= listed
    assert "esper-exporter" not in listed


def test_the_image_never_takes_the_package_from_an_index() -> None:
    """A wheel that is named or lies beside, or one that is built of the tree, and no other way."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (install,) = re.findall(r'pip install --no-deps "\$@" "\$wheel"', dockerfile)
    assert install
    assert "--no-index ;; esac" in dockerfile
    assert not re.search(r"pip install[^\n]*esper[-_]exporter", dockerfile)


def test_nothing_in_the_stack_has_a_default_password(composed: Any) -> None:
    grafana = composed["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"].startswith("/run/secrets/")
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not [name for name in grafana if name.endswith("PASSWORD")]


def test_what_is_mounted_from_the_checkout_is_there() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounted = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service["volumes"]
        if volume.startswith("./")
    ]
    assert len(mounted) == 6
    assert [name for name in mounted if not (ROOT / name).exists()] == []


DOCKER = """#!/bin/sh
case "$*" in
"compose version") exit ${COMPOSE:-0} ;;
info) exit ${DAEMON:-0} ;;
esac
echo "$ESPER_EXPORTER_PACKAGE" "$@"
"""


def up(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``deploy/up`` of a folder with a docker that only says how it was called."""
    (folder / "deploy").mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "up", folder / "deploy")
    docker = folder / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return subprocess.run(
        [folder / "deploy" / "up"],
        env={"PATH": f"{docker.parent}:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_password_is_made_once_and_only_the_owner_finds_it(tmp_path: Path) -> None:
    (tmp_path / "esper_exporter-0.1.0-py3-none-any.whl").touch()
    called = r"^/src/esper_exporter-\S+\.whl\[demo,web\] compose up --build --detach --wait$"
    assert re.search(called, up(tmp_path).stdout, re.MULTILINE)
    secret = tmp_path / "secrets" / "grafana_admin_password"
    made = secret.read_text()
    assert re.fullmatch(r"[0-9a-f]{48}", made)
    assert secret.parent.stat().st_mode & 0o777 == 0o700
    assert up(tmp_path).returncode == 0
    assert secret.read_text() == made


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PATH": "/nowhere"}, "docker is not installed"),
        ({"COMPOSE": "1"}, "docker has no `compose`"),
        ({"DAEMON": "1"}, "the Docker daemon does not answer"),
        ({}, "no esper_exporter-*.whl lies here"),
    ],
)
def test_what_the_stack_needs_is_checked_before_a_password_is_written(
    variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    if "PATH" in variables:
        tools = tmp_path / "tools"
        tools.mkdir()
        for tool in ("sh", "dirname", "ls", "head"):
            (tools / tool).symlink_to(program_path(tool))
        variables = {"PATH": str(tools)}
    done = up(tmp_path, **variables)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "secrets").exists()


def program_path(name: str) -> str:
    """Where a standard tool lies."""
    found = shutil.which(name)
    assert found is not None
    return found


@pytest.mark.parametrize("path", PROMETHEUS, ids=lambda path: path.name)
def test_promtool_accepts_the_prometheus_configurations(path: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    for job in config["scrape_configs"]:
        # Debian builds Prometheus without it; its structure is the operator's business as well.
        found = job.pop("kubernetes_sd_configs", None)
        assert found is None or [one["role"] for one in found] == ["pod"]
    text = yaml.safe_dump(config).replace("/etc/prometheus/rules", str(ROOT / "alerts" / "rules"))
    secret = tmp_path / "secret"
    secret.touch()
    text = text.replace("/etc/prometheus/secrets/remote-write", str(secret))
    (tmp_path / "prometheus.yml").write_text(text)
    done = subprocess.run(
        [program("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shipped_alertmanager_configuration_starts(tmp_path: Path) -> None:
    config = (ROOT / "alerts" / "alertmanager.yml").read_text()
    config = config.replace("/etc/alertmanager/templates", str(ROOT / "alerts" / "templates"))
    (tmp_path / "alertmanager.yml").write_text(config)
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus-alertmanager"),
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:

        def status() -> Any:
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/v2/status", timeout=2
                ) as answer:
                    return json.load(answer)
            except OSError:
                return None

        wait_until(status, "Alertmanager answers")
        receivers = {one["name"] for one in yaml.safe_load(config)["receivers"]}
        assert all(name in status()["config"]["original"] for name in receivers)
    finally:
        end(process)


def manifests() -> list[tuple[str, Any]]:
    """Every document of the Kubernetes files."""
    return [
        (path.name, document)
        for path in sorted(KUBERNETES.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def test_kubernetes_own_kinds_are_valid() -> None:
    checked = []
    for name, document in manifests():
        if document["kind"] not in OWN_SCHEMA:
            for version in ("1.30", "1.34"):
                kubernetes_validate.validate(document, version, strict=True)
            checked.append(name)
    assert checked == ["agent.yaml", "namespace.yaml", "networkpolicy.yaml", "trainer.yaml"]


def unread(given: Any, taken: Any, where: str = "") -> list[str]:
    """What a document has and its model left out: fields that the schema does not know."""
    if isinstance(given, dict):
        return [
            missing
            for key, inner in given.items()
            for missing in (
                unread(inner, taken[key], f"{where}.{key}") if key in taken else [f"{where}.{key}"]
            )
        ]
    if isinstance(given, list):
        pairs = enumerate(zip(given, taken, strict=True))
        return [each for place, pair in pairs for each in unread(*pair, f"{where}[{place}]")]
    return []


OPERATOR = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}


@pytest.mark.parametrize("kind", sorted(OPERATOR))
def test_the_operator_s_kinds_are_valid(kind: str) -> None:
    """By models generated from prometheus-operator's CRDs. They pass over fields they do not know,
    as the API server does, which drops them: so every field must come out again."""
    ((_, document),) = [(n, d) for n, d in manifests() if d["kind"] == kind]
    read = OPERATOR[kind].model_validate(document)
    assert unread(document, read.model_dump(by_alias=True, exclude_none=True)) == []


def test_a_wrong_monitor_would_be_found() -> None:
    monitor = dict(manifests())["podmonitor.yaml"]
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    endpoint["intervall"] = endpoint["interval"]
    read = operator.PodMonitor.model_validate(monitor)
    assert unread(monitor, read.model_dump(by_alias=True, exclude_none=True)) == [
        ".spec.podMetricsEndpoints[0].intervall"
    ]
    endpoint["interval"] = "often"
    with pytest.raises(ValueError, match="interval"):
        operator.PodMonitor.model_validate(monitor)


def test_a_wrong_manifest_would_be_found() -> None:
    ((_, job),) = [(n, d) for n, d in manifests() if d["kind"] == "Job"]
    job["spec"]["template"]["spec"]["restartPolicie"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.30", strict=True)


def test_the_pod_monitor_finds_the_pods_of_the_examples() -> None:
    documents = dict(manifests())
    monitor = documents["podmonitor.yaml"]["spec"]
    (wanted,) = monitor["selector"]["matchExpressions"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    found = []
    for name in ("trainer.yaml", "agent.yaml"):
        pod = documents[name]["spec"]["template"]
        found.append(pod["metadata"]["labels"][wanted["key"]])
        ports = [port["name"] for one in pod["spec"]["containers"] for port in one["ports"]]
        assert endpoint["port"] in ports
    assert (wanted["operator"], sorted(wanted["values"])) == ("In", sorted(found))
    assert set(documents["kustomization.yaml"]["resources"]) - {"../../grafana"} == {
        name for name in documents if name != "kustomization.yaml"
    }


def test_generated_kubernetes_files_are_up_to_date() -> None:
    """When this fails: ``make manifests``."""
    generated = runpy.run_path(str(ROOT / "scripts" / "manifests.py"))["GENERATED"]
    stale = [name for name, make in generated.items() if (ROOT / name).read_text() != make(ROOT)]
    assert stale == []


def test_promtool_accepts_the_rules_of_the_prometheus_rule(tmp_path: Path) -> None:
    rule = yaml.safe_load((KUBERNETES / "prometheusrule.yaml").read_text())
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    subprocess.run(
        [program("promtool"), "check", "rules", tmp_path / "rules.yml"],
        check=True,
        capture_output=True,
    )


def test_grafana_is_provisioned_with_what_the_stack_has(composed: Any) -> None:
    folder = ROOT / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "esper.yml").read_text())
    assert sources["apiVersion"] == 1
    for source in sources["datasources"]:
        name, port = re.fullmatch(r"http://([\w-]+):(\d+)", source["url"]).groups()
        service = composed["services"][name]
        assert any(
            str(target).endswith(port) or str(port) in str(target) for target in service["ports"]
        )
        assert {"name", "uid", "type", "access"} <= set(source)
    assert [one["uid"] for one in sources["datasources"]] == ["prometheus", "alertmanager"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "esper.yml").read_text())["providers"]
    mounted = (ROOT / "docker-compose.yml").read_text()
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounted
