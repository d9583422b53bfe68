# Two commands from nothing: `make demo` shows it, `make test` proves it. `make` alone lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The interpreter to build the environment from; empty: the first Python >= 3.11 that is found.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
SERVERS := prometheus:prometheus prometheus:promtool prometheus-alertmanager:prometheus-alertmanager \
           prometheus-node-exporter:prometheus-node-exporter chromium:chromium docker-compose:docker-compose
CHECKED := exporter grafana tests examples scripts/demo.py scripts/manifests.py scripts/mutate_alerts.py $(wildcard benchmarks)

.PHONY: help demo demo-replay test test-all lint bench soak mutate-alerts docs dashboards manifests lock clean

help:
	@echo 'make demo      train for real and serve it on 127.0.0.1:9108, with Prometheus beside it; ARGS=… as in'
	@echo '               docs/DEMO.md'
	@echo 'make demo-replay  the same with a recorded training'
	@echo 'make test      install all the tests need, then lint, types and tests'
	@echo 'make test-all  the tests on every newer Python that is installed, too'
	@echo 'make lint      ruff and mypy'
	@echo 'make bench     measure against prometheus_client, side by side'
	@echo 'make soak      serve amid clients that behave badly, and measure'
	@echo 'make mutate-alerts  change the alerting rules place by place; a test must notice'
	@echo 'make docs      generate docs/METRICS.md'
	@echo 'make dashboards  generate grafana/dashboards/ and the manifests'
	@echo 'make manifests generate what deploy/kubernetes/ takes from rules and dashboards'
	@echo 'make lock      renew constraints.txt'
	@echo 'make clean     remove environments, caches and builds'

INSTALL = @scripts/install $(VENV)

demo:
	$(INSTALL) demo $(PYTHON)
	@exec $(BIN)/python scripts/demo.py demo $(ARGS)

demo-replay:
	$(INSTALL) runtime $(PYTHON)
	@exec $(BIN)/python scripts/demo.py replay --recording run1 $(ARGS)

test: lint
	@scripts/debian-packages $(SERVERS)
	@echo "· pytest ($$($(BIN)/python --version))"
	@$(BIN)/python -m pytest -q $(ARGS)

test-all: test
	@scripts/test-other-pythons $(ARGS)

lint:
	$(INSTALL) dev $(PYTHON)
	@echo '· ruff'
	@$(BIN)/ruff check --quiet $(CHECKED)
	@echo '· mypy'
	@$(BIN)/mypy --no-error-summary

bench:
	$(INSTALL) dev $(PYTHON)
	@$(BIN)/python -m benchmarks $(ARGS)

soak:
	$(INSTALL) dev $(PYTHON)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

mutate-alerts:
	$(INSTALL) dev $(PYTHON)
	@scripts/debian-packages prometheus:promtool
	@$(BIN)/python scripts/mutate_alerts.py

docs:
	$(INSTALL) runtime $(PYTHON)
	@$(BIN)/python -m esper_exporter catalog --format markdown > docs/METRICS.md.new
	@mv docs/METRICS.md.new docs/METRICS.md
	@echo '· docs/METRICS.md'

dashboards:
	$(INSTALL) runtime $(PYTHON)
	@$(BIN)/python -m grafana.generator
	@$(MAKE) manifests

manifests:
	$(INSTALL) runtime $(PYTHON)
	@$(BIN)/python scripts/manifests.py

lock:
	@scripts/lock constraints.txt $(PYTHON)

clean:
	@rm -rf $(VENV) .venvs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
