# `make` alone lists the targets. Everything slow is built once and kept in ~/.cache/darkroom, keyed by version.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
NAME ?= darkroom
NODES ?= real

.PHONY: help setup demo test check generate lock images cluster-up cluster-down bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## Debian packages, the Python environment, Kubernetes binaries: what the other targets need
	@scripts/setup.sh all

demo: setup ## train on real images on a real cluster (CLUSTER=current: the present kube context)
	@$(PYTHON) -m scripts.demo

test: setup ## every test, on real components
	@scripts/test.sh

check: ## the fast loop: format, lint, types, contracts, generated files, pure tests
	@scripts/setup.sh python
	@scripts/check.sh

generate: ## write CRDs, deploy/install.yaml and the reference from models and chart
	@scripts/setup.sh python
	@$(PYTHON) scripts/generate.py

lock: ## resolve constraints.txt anew from pyproject.toml
	@scripts/setup.sh lock

images: setup ## build both container images
	@$(PYTHON) -m scripts.images all

cluster-up: setup ## start a cluster (NAME=darkroom NODES=real|real:2|kwok:500|none)
	@$(PYTHON) -m localcluster up --name $(NAME) --nodes $(NODES)

cluster-down: ## stop it
	@$(PYTHON) -m localcluster down --name $(NAME)

bench: setup ## measure (BENCH=failover: that one); results are printed and kept in bench/results
	@PYTHONPATH=operator:trainer-image $(PYTHON) -m bench $(BENCH)

clean: ## stop the clusters of demo and tests, and remove the Python environment
	@for name in demo tests; do $(PYTHON) -m localcluster down --name $$name || true; done
	@rm -rf .venv
