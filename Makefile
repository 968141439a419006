# One line per target: make help
SUBJECT ?=
SESSION ?=
DATA ?= sample_data
OUT ?= derivatives
CONFIG ?= configs/default.yaml
ENGINE ?=
NAME ?=
WEIGHTS ?=

VENV := .venv
BIN := $(VENV)/bin
VALIDATION := whole_runs real_scans planted_change pseudo_replicates robustness side_blind phantoms \
  unseen_anatomy segmentation_speed not_legs report_speed registration
STAMP := $(VENV)/.installed
PYTHON := $(shell command -v python3.11 || command -v python3)

.DEFAULT_GOAL := help
.PHONY: help process test lint slow validate-engine sample schema lock clean setup

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

setup: $(STAMP) ## Make the virtual environment (the other targets do it themselves)

$(STAMP): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; found: $$("$(PYTHON)" --version 2>&1). Install it and run make again." >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

process: $(STAMP) ## Measure one subject: SUBJECT=sub-01 [SESSION=] [DATA=] [OUT=] [CONFIG=] [ENGINE=]
	@test -n "$(SUBJECT)" || { echo "Say which subject: make process SUBJECT=sub-01" >&2; exit 2; }
	@$(BIN)/myosymmetry "$(DATA)" "$(OUT)" participant --participant-label "$(SUBJECT)" \
	  $(if $(SESSION),--session-label "$(SESSION)") $(if $(CONFIG),--config "$(CONFIG)") $(if $(ENGINE),--engine "$(ENGINE)")

test: $(STAMP) ## All checks: style, types, architecture, tests (under 15 minutes on two cores)
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -m "not slow"

lint: $(STAMP) ## Style, types and the direction of dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(STAMP) ## Tests that take minutes: full-size phantoms
	$(BIN)/python -m pytest -m slow

validate-engine: $(STAMP) ## Hold the engine against what was promised: [NAME=real_scans] [OUT=] [WEIGHTS=] (docs/validation.md)
	@for name in $(or $(NAME),$(VALIDATION)); do \
	  $(BIN)/python -m benchmarks.$$name "$(OUT)/validation" $(if $(WEIGHTS),--weights "$(WEIGHTS)") || exit $$?; done

sample: $(STAMP) ## Make the sample data again from the phantom
	$(BIN)/python sample_data/generate.py

schema: $(STAMP) ## Write the JSON schemas of the published documents again
	$(BIN)/myosymmetry schema measures > docs/measures.schema.json
	$(BIN)/myosymmetry schema change > docs/change.schema.json

lock: $(STAMP) ## Write requirements.lock from what is installed
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip > requirements.lock

clean: ## Remove the environment and caches (never results)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
