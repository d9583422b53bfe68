# Two commands from nothing: `make demo` shows it, `make test` proves it. `make` alone lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The interpreter to build the environment from; empty: the first Python >= 3.11 that is found.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# Two processes, each with whole files of tests: no two tests of a file compete, and both cores are used.
PARALLEL := -n 2 --dist loadfile
# PACKAGE:COMMAND:WHY, what the tests run beside the package itself.
SERVERS := 'prometheus:prometheus:scrapes the exporter and evaluates the rules' \
           'prometheus:promtool:checks and tests the rules' \
           'prometheus-alertmanager:prometheus-alertmanager:routes the alerts' \
           'prometheus-node-exporter:prometheus-node-exporter:reads what the exporter writes for it' \
           'chromium:chromium:shows the exporter’s pages' \
           'docker-compose:docker-compose:checks docker-compose.yml; no container is started'
CHECKED := exporter grafana tests examples scripts/demo.py scripts/manifests.py scripts/chart scripts/mutate_alerts.py scripts/mutate_by_hand.py $(wildcard benchmarks)

.PHONY: cluster-chaos cluster-scale cluster-slurm cluster-store cluster-upgrades image lock-image test-adapters help demo demo-replay test test-all check lint bench soak mutate-alerts docs dashboards manifests generate site dist lock clean

help:
	@echo 'make demo-replay  a recorded training on 127.0.0.1:9108, with Prometheus beside it (first start: 15 s)'
	@echo 'make demo      the same with a real training; ARGS=… as in docs/DEMO.md (first start: a minute, 1.2 GB)'
	@echo 'make test      install all that the tests need, then lint, types and tests (10 to 15 minutes)'
	@echo 'make test-all  the tests on every newer Python that is installed, and the trials on a cluster (docs/CLUSTER.md), too'
	@echo 'make image     build the image with buildah and try it, unprivileged (root; 10 minutes)'
	@echo 'make cluster-upgrades  let versions from git history meet this one: agents, exporters, state, rules (2 minutes)'
	@echo 'make cluster-chaos  faults in a simulated fleet: is each reported once, and nothing else (root; an hour; ARGS="--minutes 25 --interval 5")'
	@echo 'make cluster-scale  what fleets of 10 to 5,000 runs cost a Prometheus, and what the laws of docs/SCALE.md say (12 minutes, 12 GB)'
	@echo 'make cluster-store  two Prometheus replicas of 200 simulated runs, VictoriaMetrics and vmalert (15 minutes, 4 GB)'
	@echo 'make cluster-slurm  jobs on a real Slurm in a chroot, watched by Prometheus (root; 4 minutes, 7 the first time)'
	@echo 'make test-adapters  the fields of each trainer beside a second opinion, in an environment apart (5 minutes, 1 GB)'
	@echo 'make check     lint, types and the fast tests, in parallel (under a minute)'
	@echo 'make lint      ruff and mypy'
	@echo 'make bench     measure against prometheus_client, side by side'
	@echo 'make soak      serve amid clients that behave badly, and measure'
	@echo 'make mutate-alerts  change the alerting rules place by place; a test must notice'
	@echo 'make docs      generate docs/METRICS.md'
	@echo 'make dashboards  generate grafana/dashboards/ and the manifests'
	@echo 'make manifests generate what deploy/kubernetes/ takes from rules and dashboards'
	@echo 'make generate  all generated files: these, runbook index, code map, completions'
	@echo 'make site      the documentation as a site, in build/site'
	@echo 'make dist      wheel and source archive, checked, in dist'
	@echo 'make lock      renew constraints.txt'
	@echo 'make lock-image  renew the versions and hashes of the image'
	@echo 'make clean     remove environments, caches and builds'

SETUP = @scripts/install $(VENV)

demo:
	@scripts/check-arguments demo $(ARGS)
	$(SETUP) demo $(PYTHON)
	@exec $(BIN)/python scripts/demo.py demo $(ARGS)

demo-replay:
	@scripts/check-arguments replay --recording run1 $(ARGS)
	$(SETUP) runtime $(PYTHON)
	@exec $(BIN)/python scripts/demo.py replay --recording run1 $(ARGS)

test:
	@echo '· make test: what is missing is installed, then ruff, mypy, pytest; 10 to 15 minutes on two quiet cores'
	@scripts/debian-packages $(SERVERS)
	@$(MAKE) lint
	@echo "· pytest ($$($(BIN)/python --version))"
	@$(BIN)/python -m pytest -q $(PARALLEL) $(ARGS)

test-adapters:
	$(SETUP) dev $(PYTHON)
	@$(BIN)/python -m venv --system-site-packages build/adapters
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > build/adapters/lib/python$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages/tests.pth
	@$(BIN)/python -c 'import pathlib; print(pathlib.Path("exporter").resolve())' >> build/adapters/lib/python$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages/tests.pth
	@build/adapters/bin/python -m pip install -q stable-baselines3 trl lightning gymnasium torchrl tianshou
	@rm -rf build/adapters/fields
	@ADAPTER_FIELDS=build/adapters/fields build/adapters/bin/python -m pytest -q -p no:cacheprovider tests/adapters/third_party $(ARGS)
	@PYTHONPATH=tests:exporter build/adapters/bin/python -m adapters.third_party.field_table build/adapters/fields

check: lint
	@echo '· pytest, in parallel, without servers'
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m 'not slow and not e2e' $(ARGS)

test-all: test
	@scripts/test-other-pythons $(ARGS)
	@scripts/cluster-slurm
	@scripts/cluster-store
	@deploy/image
	@$(MAKE) cluster-upgrades ARGS=
	@$(MAKE) cluster-chaos ARGS='--minutes 25 --interval 5'
	@$(MAKE) cluster-scale ARGS='--targets 10 100 --slim'
	@$(BIN)/python scripts/check_dashboard_schema.py

cluster-chaos:
	$(SETUP) dev $(PYTHON)
	@scripts/when-installed 'each fault of a fleet is reported once, and nothing else' \
	    prometheus:prometheus prometheus-alertmanager:prometheus-alertmanager victoria-metrics:victoria-metrics faketime:faketime \
	    -- $(BIN)/python -m benchmarks.chaos $(ARGS)

cluster-scale:
	$(SETUP) dev $(PYTHON)
	@scripts/when-installed 'what fleets of runs cost a Prometheus' prometheus:prometheus -- $(BIN)/python -m benchmarks.fleet $(ARGS)
	@$(BIN)/python -m benchmarks.scale_document

cluster-upgrades:
	$(SETUP) dev $(PYTHON)
	@scripts/when-installed 'versions beside each other: agents, exporters, state, rules' prometheus:promtool -- $(BIN)/python -m benchmarks.upgrades $(ARGS)

image:
	$(SETUP) dev $(PYTHON)
	@deploy/image $(ARGS)

lock-image:
	@scripts/lock-image

cluster-slurm:
	$(SETUP) dev $(PYTHON)
	@scripts/cluster-slurm $(ARGS)

cluster-store:
	$(SETUP) dev $(PYTHON)
	@scripts/cluster-store $(ARGS)

lint:
	$(SETUP) dev $(PYTHON)
	@echo '· ruff'
	@$(BIN)/ruff check --quiet $(CHECKED)
	@echo '· mypy'
	@$(BIN)/mypy --no-error-summary

bench:
	$(SETUP) dev $(PYTHON)
	@$(BIN)/python -m benchmarks $(ARGS)

soak:
	$(SETUP) dev $(PYTHON)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

mutate-alerts:
	$(SETUP) dev $(PYTHON)
	@scripts/debian-packages prometheus:promtool prometheus-alertmanager:prometheus-alertmanager
	@$(BIN)/python scripts/mutate_alerts.py
	@$(BIN)/python scripts/mutate_by_hand.py

docs:
	$(SETUP) runtime $(PYTHON)
	@$(BIN)/python -m esper_exporter catalog --format markdown > docs/METRICS.md.new
	@mv docs/METRICS.md.new docs/METRICS.md
	@echo '· docs/METRICS.md'

dashboards:
	$(SETUP) runtime $(PYTHON)
	@$(BIN)/python -m grafana.generator
	@$(MAKE) manifests

manifests:
	$(SETUP) runtime $(PYTHON)
	@$(BIN)/python scripts/manifests.py

generate: docs dashboards
	@$(BIN)/python scripts/runbooks.py
	@$(BIN)/python scripts/event_docs.py
	@$(BIN)/python scripts/codemap.py
	$(SETUP) dev $(PYTHON)
	@$(BIN)/python scripts/completions.py

site:
	$(SETUP) dev $(PYTHON)
	@$(BIN)/python scripts/site.py

dist:
	$(SETUP) dev $(PYTHON)
	@rm -rf dist
	@$(BIN)/python -m hatchling build
	@$(BIN)/python -m twine check --strict dist/*

lock:
	@scripts/lock constraints.txt $(PYTHON)

clean:
	@rm -rf $(VENV) .venvs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
