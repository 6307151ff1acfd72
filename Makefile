# One command each: `make demo` shows the platform running, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# The system's own first: a distribution's build is optimized by profile, which saves an eighth of a playbook's CPU time. Then
# the first that really runs (a name in PATH may be a shim without an interpreter); one without ensurepip where there is no other
PYTHON ?= $(shell for needs in ensurepip sys; do for p in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	$$p -c "import sys, $$needs; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && { echo $$p; exit; }; done; done)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help dev lock lint unit molecule test test-chaos bench lab demo demo-down
help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

dev: $(VENV)/.ready ## Create the virtual environment with the pinned dependencies

$(VENV)/.ready: requirements.lock
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is missing. On Debian: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks venv. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "==> virtual environment ($$($(PYTHON) --version), about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@# ansible-lint's args rule, mypy and pytest import our shared code under the name the modules use
	@ln -sfn $(CURDIR)/module_utils/qianjiang $$($(BIN)/python -c 'import ansible.module_utils as m; print(m.__path__[0])')/qianjiang
	@touch $@

lock: dev ## Write requirements.lock from requirements.in
	@$(BIN)/pip install --quiet uv==0.13.9
	@$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet requirements.in --output-file requirements.lock

lint: dev ## ruff, mypy, yamllint, ansible-lint
	@tests/lint.sh

unit: dev ## Unit tests
	@$(BIN)/pytest

molecule: dev ## Role scenarios and stories on a lab made for them (40 minutes); SCENARIO=name for one, on a lab that is up
	@if [ -n "$(SCENARIO)" ]; then $(BIN)/molecule test --scenario-name $(SCENARIO) --destroy never --no-command-borders; \
	else $(BIN)/ansible localhost --become --module-name ansible.builtin.apt --args "name=chromium install_recommends=false update_cache=true" \
	&& $(BIN)/pytest --capture=no --override-ini addopts= -p no:cacheprovider --durations=0 tests/scenarios; fi

test: dev ## Everything, cheapest first
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint unit
	@$(MAKE) --no-print-directory molecule

test-chaos: dev ## On a lab that is up: the controller is killed at every task of a rollout
	@CHAOS_SAMPLE=1 $(BIN)/pytest --capture=no --override-ini addopts= -p no:cacheprovider molecule/stories/tests/test_4_deployers.py -k killed_at_any

bench: dev ## On a lab that is up: ours beside the usual playbook, as ratios
	@$(BIN)/python bench/rollout.py

lab: dev ## The lab's bare hosts
	@$(BIN)/ansible-playbook playbooks/lab.yml

demo: lab ## Two datacenters from bare hosts to a WebUI that answers
	@$(BIN)/ansible-playbook playbooks/site.yml

demo-down: dev ## Remove everything that `make demo` made
	@$(BIN)/ansible-playbook playbooks/lab.yml --extra-vars lab_state=absent
