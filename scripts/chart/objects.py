"""The objects: node agent, network policy, pod monitor, rules and dashboards."""

from __future__ import annotations

from typing import Any

from scripts.chart.values import (
    DURATION,
    NAME,
    OBJECT,
    OBJECTS,
    PORT,
    SWITCH,
    TEXT,
    TEXTS,
    WHOLE,
    Joined,
    Value,
)

from esper_exporter.settings import KEEP_SECONDS

PART_OF = {"app.kubernetes.io/part-of": "esper"}
NAMES = ["esper-trainer", "esper-agent"]
USER = 10001

PORT_NUMBER = Value("agent.port", 9108, PORT, "Port of the agent's page.")
POD_LABELS = {"app.kubernetes.io/name": "esper-agent", **PART_OF}

AGENT_ENABLED = Value("agent.enabled", True, SWITCH, "A node agent on every node.")
POLICY_ENABLED = Value(
    "networkPolicy.enabled",
    True,
    SWITCH,
    "Let only those of `networkPolicy.from` reach the pages, and the agent reach nobody.",
)
MONITOR_ENABLED = Value(
    "podMonitor.enabled", True, SWITCH, "A PodMonitor; it needs prometheus-operator."
)
RULES_ENABLED = Value(
    "prometheusRule.enabled", True, SWITCH, "The alerts; they need prometheus-operator."
)
DASHBOARDS_ENABLED = Value(
    "dashboards.enabled", True, SWITCH, "The dashboards, as ConfigMaps for Grafana's sidecar."
)
RULE_LABELS = Value(
    "prometheusRule.labels", {}, TEXTS, "Labels by which your Prometheus selects its rules."
)
DASHBOARD_LABELS = Value(
    "dashboards.labels",
    {"grafana_dashboard": "1"},
    TEXTS,
    "Labels by which Grafana's sidecar finds dashboards.",
)
DASHBOARD_FOLDER = Value("dashboards.folder", "esper", NAME, "Grafana's folder for them.")


def agent(version: str) -> dict[str, Any]:
    """One agent a node. It and the trainings share the host's /dev/shm; no root is needed there."""
    image = [
        Value(
            "image.repository", "esper-exporter", NAME, "The image, as `deploy/image` builds it."
        ),
        ":",
        Value("image.tag", version, NAME, "Its tag."),
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "esper-agent", "labels": POD_LABELS},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": "esper-agent"}},
            "template": {
                "metadata": {"labels": POD_LABELS},
                "spec": {
                    "automountServiceAccountToken": False,
                    # Longer than the agent's own wait for Prometheus.
                    "terminationGracePeriodSeconds": Value(
                        "agent.terminationGracePeriodSeconds",
                        75,
                        WHOLE,
                        "More than `agent.linger`.",
                    ),
                    "priorityClassName": Value(
                        "agent.priorityClassName", "", TEXT, "The pods' priority class."
                    ),
                    "runtimeClassName": Value(
                        "agent.runtimeClassName", "", TEXT, "`nvidia` to see the node's GPUs."
                    ),
                    "imagePullSecrets": Value(
                        "image.pullSecrets", [], OBJECTS, "Secrets of a private registry."
                    ),
                    "nodeSelector": Value("agent.nodeSelector", {}, TEXTS, "Which nodes."),
                    "tolerations": Value(
                        "agent.tolerations", [], OBJECTS, "Taints of GPU nodes, for example."
                    ),
                    "affinity": Value("agent.affinity", {}, OBJECT, "Which nodes, in full."),
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": Value(
                            "agent.runAsUser",
                            USER,
                            WHOLE,
                            "The user of trainings and agent alike: a share is one user's.",
                        ),
                        "runAsGroup": Value("agent.runAsGroup", USER, WHOLE, "Their group."),
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "agent",
                            "image": Joined(image),
                            "imagePullPolicy": Value(
                                "image.pullPolicy",
                                "IfNotPresent",
                                {"enum": ["Always", "IfNotPresent", "Never"]},
                                "When the image is pulled.",
                            ),
                            "args": [
                                *("agent", "--host", "0.0.0.0"),
                                *("--port", Joined([PORT_NUMBER])),
                                *("--linger", Joined([_linger()])),
                                *("--keep", Joined([_keep()])),
                            ],
                            "ports": [{"name": "metrics", "containerPort": PORT_NUMBER}],
                            "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "metrics"}},
                            "livenessProbe": {"httpGet": {"path": "/-/healthy", "port": "metrics"}},
                            "resources": Value(
                                "agent.resources",
                                {
                                    "requests": {"cpu": "20m", "memory": "96Mi"},
                                    "limits": {"memory": "512Mi"},
                                },
                                OBJECT,
                                "Requests and limits.",
                            ),
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
                        }
                    ],
                    "volumes": [
                        {"name": "shm", "hostPath": {"path": "/dev/shm", "type": "Directory"}}
                    ],
                },
            },
        },
    }


def _linger() -> Value:
    return Value(
        "agent.linger", 60, WHOLE, "Seconds to stay at an end until it was fetched, at most."
    )


def _keep() -> Value:
    about = "Seconds that the page of an ended process stays."
    return Value("agent.keep", int(KEEP_SECONDS), WHOLE, about)


def network_policy() -> dict[str, Any]:
    """Who may fetch pages. The agent asks nobody: it may connect nowhere."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "esper-agent", "labels": PART_OF},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "esper-agent"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "ports": [{"port": "metrics", "protocol": "TCP"}],
                    "from": Value(
                        "networkPolicy.from",
                        [{"namespaceSelector": {}}],
                        OBJECTS,
                        "Who may fetch pages: pods of any namespace; name your Prometheus' here.",
                    ),
                }
            ],
            "egress": [],
        },
    }


def pod_monitor() -> dict[str, Any]:
    """Scrapes every trainer pod that serves itself, and every node agent."""
    wanted = {"key": "app.kubernetes.io/name", "operator": "In", "values": NAMES}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {
            "name": "esper-trainers",
            "labels": Value(
                "podMonitor.labels",
                {},
                TEXTS,
                "Labels by which your Prometheus selects monitors, such as `release`.",
            ),
        },
        "spec": {
            "selector": {"matchExpressions": [wanted]},
            "sampleLimit": Value(
                "podMonitor.sampleLimit", 150000, WHOLE, "A page with more samples is refused."
            ),
            "podMetricsEndpoints": [
                {
                    "port": "metrics",
                    "path": "/metrics",
                    "interval": Value(
                        "podMonitor.interval", "15s", DURATION, "From scrape to scrape."
                    ),
                    "scrapeTimeout": Value(
                        "podMonitor.scrapeTimeout", "10s", DURATION, "At most the interval."
                    ),
                    "relabelings": [
                        {"targetLabel": "job", "replacement": "esper"},
                        {
                            "sourceLabels": ["__meta_kubernetes_pod_node_name"],
                            "targetLabel": "host",
                        },
                    ],
                }
            ],
        },
    }
