# The chain, one file a stage. Each stage's output is a target, so only what is stale runs again:
#   make demo                      everything on rendered people
#   make evaluate DATASET=mars     everything on MARS, from data/mars on
DATASET ?= demo
PYTHON ?= python3
ESTIMATOR ?=
ARGS ?=

CSIP := .venv/bin/csip
DATA := data/$(DATASET)
RUN := runs/$(DATASET)
CONFIG := $(wildcard configs/$(DATASET).yaml)

.PHONY: setup skeletons stage1 stage2 evaluate report demo test lint bench clean
.DELETE_ON_ERROR:

setup: .venv/csip-setup.sha256
.venv/csip-setup.sha256: pyproject.toml pipelines/bootstrap.py
	@$(PYTHON) pipelines/bootstrap.py
	@touch $@

skeletons: $(DATA)/skeletons.h5
stage1: $(RUN)/stage1/model.safetensors
stage2: $(RUN)/stage2/model.safetensors
evaluate: $(RUN)/metrics.json
report: $(RUN)/report.md

# Rendered people are the one data set that the project makes itself.
data/demo/truth.h5: | .venv/csip-setup.sha256
	$(CSIP) synth --out data/demo
ifeq ($(DATASET),demo)
FRAMES := data/demo/truth.h5
endif

$(DATA)/skeletons.h5: $(FRAMES) | .venv/csip-setup.sha256
	$(CSIP) skeletons extract --dataset $(DATASET) $(ARGS)

$(RUN)/stage1/model.safetensors: $(DATA)/skeletons.h5 $(CONFIG)
	$(CSIP) train-stage1 --dataset $(DATASET) --overwrite $(ARGS)

$(RUN)/stage2/model.safetensors: $(RUN)/stage1/model.safetensors
	$(CSIP) train-stage2 --dataset $(DATASET) --overwrite $(ARGS)

$(RUN)/metrics.json: $(RUN)/stage2/model.safetensors
	$(CSIP) evaluate --dataset $(DATASET) $(ARGS)

$(RUN)/report.md: $(RUN)/metrics.json
	$(CSIP) report --dataset $(DATASET)

demo:
	@$(MAKE) --no-print-directory report DATASET=demo
	@cat runs/demo/report.md

test: setup
	.venv/bin/python -m pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

bench: setup
	for bench in tests/benchmarks/bench_*.py; do .venv/bin/python $$bench || exit 1; done

clean:
	rm -rf data/demo runs/demo
