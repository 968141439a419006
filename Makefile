# One line per target: make help
SUBJECT ?=
SESSION ?=
DATA ?= sample_data
OUT ?= derivatives
CONFIG ?= configs/default.yaml
ENGINE ?=
NAME ?=
WEIGHTS ?=
PEERS ?=
SUBJECTS ?=
PROFILE ?= local
MEMORY_MB ?= 6000
DRY ?=
SNAKEMAKE_OPTIONS ?=

VENV := .venv
BIN := $(VENV)/bin
VALIDATION := whole_runs real_scans planted_change pseudo_replicates robustness side_blind phantoms \
  unseen_anatomy interval_coverage follow_up segmentation_speed not_legs report_speed registration \
  cohort_norms many_subjects
STAMP := $(VENV)/.installed
BATCH_VENV := .venv-batch
WHEELHOUSE := wheelhouse
BATCH_STAMP := $(BATCH_VENV)/.installed
TABLE = $(if $(SUBJECTS),--table "$(SUBJECTS)")
CHANGES = $(if $(CONFIG),--config "$(if $(filter /%,$(firstword $(CONFIG))),,$(CURDIR)/)$(CONFIG)") $(if $(ENGINE),--engine $(ENGINE))
PROGRAM = $(abspath $(BIN))/myosymmetry
FREE_MB = $(shell awk '/MemAvailable/ {print int($$2 / 1024)}' /proc/meminfo)
PYTHON := $(shell command -v python3.11 || command -v python3)

.DEFAULT_GOAL := help
.PHONY: help process test lint slow validate-engine sample schema lock clean setup \
  batch-setup batch batch-slurm status group norms test-batch wheelhouse bench

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

batch-setup: $(BATCH_STAMP) ## Make the environment of the workflow engine (Snakemake), apart from the program's

$(BATCH_STAMP): requirements-batch.lock
	"$(PYTHON)" -m venv $(BATCH_VENV)
	$(BATCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-batch.lock
	@touch $(BATCH_STAMP)

# Called as $(call snakemake,target): everything is absolute, since its own files go to OUT/batch.
# The group is always made again: its configuration (the smallest cell that may be published) can
# change while no subject does.
snakemake = $(BATCH_VENV)/bin/snakemake --snakefile pipeline/batch/Snakefile \
  --profile "configs/cluster/$(PROFILE)" --directory "$(abspath $(OUT))/batch" --quiet all $(if $(DRY),--dry-run) $(if $(filter group,$(1)),--forcerun group) $(SNAKEMAKE_OPTIONS) \
  $(if $(filter local,$(PROFILE)),--resources mem_mb=$(FREE_MB)) \
  --config plan="$(abspath $(OUT))/batch/plan.tsv" data="$(abspath $(DATA))" out="$(abspath $(OUT))" \
  program="$(PROGRAM)" memory_mb=$(MEMORY_MB) options='$(CHANGES)' -- $(1)

batch: $(STAMP) $(BATCH_STAMP) ## Many subjects: DATA= OUT= [SUBJECTS=list.tsv] [PROFILE=local|slurm] [MEMORY_MB=] [DRY=1] (docs/batch.md)
	@mkdir -p "$(OUT)/batch"
	@$(BIN)/myosymmetry plan "$(DATA)" "$(OUT)" $(TABLE) $(CHANGES) > "$(OUT)/batch/plan.tsv"
	@$(call snakemake,subjects); code=$$?; $(if $(DRY),,$(call snakemake,group) || exit $$?;) exit $$code

batch-slurm: $(STAMP) ## The same through SLURM alone, without Snakemake
	@PROGRAM="$(PROGRAM)" MEMORY_MB=$(MEMORY_MB) \
	  pipeline/batch/submit_slurm.sh "$(DATA)" "$(OUT)" $(TABLE) $(CHANGES)

status: $(STAMP) ## How far each subject is: DATA= OUT= [SUBJECTS=list.tsv]
	@$(BIN)/myosymmetry status "$(DATA)" "$(OUT)" $(TABLE) $(CHANGES)

group: $(STAMP) ## Put results together in OUT/group: DATA= OUT=
	@$(BIN)/myosymmetry "$(DATA)" "$(OUT)" group $(if $(CONFIG),--config "$(CONFIG)") --nprocs "$$(nproc)"

norms: $(STAMP) ## Limits from a healthy cohort: DATA= OUT= [SUBJECTS=list.tsv]
	@$(BIN)/myosymmetry norms "$(DATA)" "$(OUT)" $(TABLE) $(if $(CONFIG),--config "$(CONFIG)")

test: $(STAMP) ## All checks: style, types, architecture, tests (under 15 minutes on two cores)
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile

lint: $(STAMP) ## Style, types and the direction of dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(STAMP) ## Tests that take minutes: full-size phantoms
	$(BIN)/python -m pytest -m slow

bench: $(STAMP) ## Time and memory of the whole flow on an idle machine: [PEERS=python with them]; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.whole_flow "$(OUT)/bench" --page docs/benchmarks.md \
	  $(if $(PEERS),--peers-python "$(PEERS)")

wheelhouse: $(STAMP) ## Everything that an install without a network needs, in wheelhouse/ (docs/batch.md)
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --constraint requirements.lock --wheel-dir "$(WHEELHOUSE)" .

test-batch: $(STAMP) $(BATCH_STAMP) ## Snakemake and a one-node SLURM of its own (Debian: slurm-wlm, munge) on phantoms: minutes
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_workflow.py

validate-engine: $(STAMP) ## Hold the engine against what was promised: [NAME=real_scans] [OUT=] [ENGINE=] [WEIGHTS=] (docs/validation.md)
	@for name in $(or $(NAME),$(VALIDATION)); do \
	  $(BIN)/python -m benchmarks.$$name "$(OUT)/validation" $(if $(ENGINE),--engine $(ENGINE)) \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)") || exit $$?; done

sample: $(STAMP) ## Make the sample data again from the phantom
	$(BIN)/python sample_data/generate.py

schema: $(STAMP) ## Write the JSON schemas of the published documents again
	$(BIN)/myosymmetry schema measures > docs/measures.schema.json
	$(BIN)/myosymmetry schema change > docs/change.schema.json

lock: $(STAMP) ## Write requirements.lock from what is installed
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip > requirements.lock

clean: ## Remove the environment and caches (never results)
	rm -rf $(VENV) $(BATCH_VENV) $(WHEELHOUSE) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
