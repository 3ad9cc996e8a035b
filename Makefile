# The chain, one file a stage. Each stage's output is a target, so only what is stale runs again:
#   make demo                      everything on rendered people
#   make evaluate DATASET=mars     everything on MARS, from data/mars on
#   make report DATASET=kgbd       skeletons alone: train, evaluate, report
#   make splits DATASET=ilidsvid   everything on each of its ten splits, and the mean
#   make search DATASET=hall VIDEOS=visits FROM=runs/mars   people in videos, described by another run's model, and searched
#   make review DATASET=hall VIDEOS=visits FROM=runs/mars   people in videos, to be told apart in the browser
#   make ablate                    what each part of the method adds, on rendered people: hours
DATASET ?= demo
# The Python of the environment: its own, else the newest of 3.11 to 3.14 on PATH or in pyenv. `make setup` also takes
# TORCH=cpu|cuda|pypi|ADDRESS, INSTALLER=uv|pip and OPS=compiled|gpu: see pipelines/maintain/bootstrap.py.
PYTHON ?= $(shell sh pipelines/maintain/find_python.sh)
# Settings for every stage, e.g. SET="stage1.epochs=3 runtime.device=cpu"; flags for `csip synth`.
SET ?=
SYNTH ?= --seed 5 --train-ids 96 --test-ids 48 --tracklets 1
SPLITS ?= 0 1 2 3 4 5 6 7 8 9
# Videos, flags for `csip ingest`, the run whose model describes people, and what is searched for.
VIDEOS ?=
INGEST ?=
FROM ?= $(RUN)
QUERY ?= --all --out $(RUN)/search.csv
# The benchmark of the method's parts: its people and seeds.
ABLATION ?= --train-ids 160 --test-ids 64
SEEDS ?= 3

# Data sets of skeletons alone have a model of their own and no stages.
SKELETONS_ALONE := kgbd biwi ias ks20

CSIP := .venv/bin/csip
DATA := data/$(DATASET)
RUN := runs/$(DATASET)
CONFIG := $(wildcard configs/$(DATASET).yaml)
MODEL := $(RUN)/$(if $(filter $(SKELETONS_ALONE),$(DATASET)),skeleton,stage2)/model.safetensors
FLAGS := --dataset '$(DATASET)' $(foreach setting,$(SET),--set '$(setting)')

# Make splits names at spaces, and these characters mean something to it or to the shell. `csip` itself takes any name.
AWKWARD := \# % : ; | = \ * ? [ ] ( ) ~ & ' " ` $$ < >
awkward = $(strip $(if $(word 2,x$(value $1)x),spaces) $(foreach c,$(AWKWARD),$(findstring $c,$(value $1))))
check = $(if $(call awkward,$1),$(error $1=$(value $1): Make cannot carry a name with $(call awkward,$1); rename the folder, or \
    run the stages as `csip ... --dataset NAME`, which takes any name))
$(foreach name,DATASET RUN FROM VIDEOS,$(if $(filter command% environment%,$(origin $(name))),$(call check,$(name))))

.PHONY: ASK setup ingest skeletons stage1 stage2 evaluate splits report search review export ablate demo test quick lint bench bench-gpu plan-scale wheel clean
.DELETE_ON_ERROR:

# Asks each time whether what is there is what is wanted, which takes a moment; other targets ask when its inputs change.
BOOTSTRAP := pipelines/maintain/bootstrap.py
setup:
	@python='$(PYTHON)'; if [ -z "$$python" ]; then \
	    echo 'setup: no Python 3.11 to 3.14 with venv on PATH or in pyenv' >&2; \
	    echo '  fix: apt-get install python3 python3-venv, or install uv; or name one: make setup PYTHON=/path/to/python' >&2; \
	    exit 1; fi; \
	TORCH='$(TORCH)' INSTALLER='$(INSTALLER)' OPS='$(OPS)' "$$python" $(BOOTSTRAP)
.venv/csip-setup.sha256: pyproject.toml $(BOOTSTRAP) pipelines/maintain/constraints.txt
	@$(MAKE) --no-print-directory setup
	@touch $@

ingest: $(DATA)/tracklets.csv
skeletons: $(DATA)/skeletons.h5
stage1: $(RUN)/stage1/model.safetensors
stage2: $(RUN)/stage2/model.safetensors
evaluate: $(RUN)/metrics.json
report: $(RUN)/report.md
export: $(RUN)/export/model.onnx

# Rendered people are the one data set that the project makes itself.
data/demo/truth.npz: | .venv/csip-setup.sha256
	$(CSIP) synth --out data/demo --force --world motion $(SYNTH)
ifeq ($(DATASET),demo)
FRAMES := data/demo/truth.npz
endif

# A video that changed under its name leaves the folder as old as it was: ingest itself looks, and keeps the table's time if
# nothing has changed.
ifneq ($(VIDEOS),)
FRAMES := $(DATA)/tracklets.csv
$(DATA)/tracklets.csv: ASK | .venv/csip-setup.sha256
	$(CSIP) ingest $(VIDEOS) --out $(DATA) $(INGEST)
endif

# What the stages read of the data, by content: written anew only where that has changed, so that a picture that was replaced
# under its name counts and one that was only touched does not.
TRAINED := $(RUN)/train.fingerprint
TESTED := $(RUN)/test.fingerprint
# Whose skeletons are wanted; `make splits` extracts those of all splits itself.
WANTED ?= $(TRAINED)
$(TRAINED): ASK | $(FRAMES) .venv/csip-setup.sha256
	@$(CSIP) fingerprint $(FLAGS) --run $(RUN)
$(TESTED): ASK | $(TRAINED)
	@test -f $@
ASK:

# The demo's test has skeletons too, so that its report can say what a model that sees them would reach.
$(DATA)/skeletons.h5: $(FRAMES) $(WANTED) | .venv/csip-setup.sha256
	$(CSIP) skeletons $(FLAGS) $(if $(filter demo,$(DATASET)),--test-too)

$(RUN)/stage1/model.safetensors: $(DATA)/skeletons.h5 $(TRAINED) $(CONFIG)
	$(CSIP) train-stage1 $(FLAGS) --run $(RUN) --overwrite

$(RUN)/stage2/model.safetensors: $(RUN)/stage1/model.safetensors
	$(CSIP) train-stage2 $(FLAGS) --run $(RUN) --overwrite

$(RUN)/skeleton/model.safetensors: $(TRAINED) $(CONFIG) | .venv/csip-setup.sha256
	$(CSIP) train-skeleton $(FLAGS) --run $(RUN) --overwrite

$(RUN)/metrics.json: $(MODEL) $(TESTED)
	$(CSIP) evaluate $(FLAGS) --run $(RUN)

$(RUN)/report.md: $(RUN)/metrics.json
	$(CSIP) report $(FLAGS) --run $(RUN)

$(RUN)/descriptors.h5: $(FROM)/stage2/model.safetensors $(FRAMES) $(TESTED)
	$(CSIP) embed $(FLAGS) --run $(RUN) --model $(FROM)
search: $(RUN)/descriptors.h5
	$(CSIP) search $(QUERY) $(FLAGS) --run $(RUN) --model $(FROM)

review: $(RUN)/descriptors.h5
	$(CSIP) review $(FLAGS) --run $(RUN)

$(RUN)/export/model.onnx: $(RUN)/stage2/model.safetensors
	$(CSIP) export --run $(RUN) --out $(RUN)/export

# The benchmark of the method's parts: for each seed a motion world with test people of its own.
WORLDS := $(shell seq 0 $$(($(SEEDS) - 1)) | sed 's,.*,data/ablation-&,')
.PRECIOUS: data/ablation-%/truth.npz
data/ablation-%/truth.npz: | .venv/csip-setup.sha256
	$(CSIP) synth --out data/ablation-$* --force --world motion --test-people test --seed $* $(ABLATION)
data/ablation-%/skeletons.h5: data/ablation-%/truth.npz
	$(CSIP) skeletons --dataset ablation --root data/ablation-$* --test-too
ablate: $(WORLDS:%=%/skeletons.h5)
	$(CSIP) ablate --dataset ablation --root 'data/ablation-{seed}' --seeds $(SEEDS) --workers 2 \
	    $(foreach setting,$(SET),--set $(setting))

# Training identities of one split are test identities of another: skeletons of all are needed.
splits: | .venv/csip-setup.sha256
	$(CSIP) skeletons $(FLAGS) --test-too
	@for split in $(SPLITS); do $(MAKE) --no-print-directory evaluate DATASET=$(DATASET) RUN=$(RUN)/split$$split \
	    WANTED= SET="$(SET) dataset.split=$$split" || exit 1; done
	$(CSIP) average $(SPLITS:%=$(RUN)/split%) --out $(RUN)/splits.json

demo:
	@$(MAKE) --no-print-directory report DATASET=demo
	@cat runs/demo/report.md

test: setup
	.venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

quick: setup
	.venv/bin/python -m pytest -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadfile

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

bench: setup
	@for bench in $(wildcard tests/benchmarks/bench_*.py); do .venv/bin/python $$bench || exit 1; done

bench-gpu: setup
	.venv/bin/python tests/benchmarks/bench_gpu.py

# Time, disk and money of many frames: PLAN="--frames 5e7 --gpu-price 1.2".
PLAN ?=
plan-scale: | .venv/csip-setup.sha256
	$(CSIP) plan-scale $(PLAN)

# A wheel that works outside a clone, in dist/.
wheel: setup
	.venv/bin/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist/*.whl

clean:
	rm -rf dist build data/demo runs/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
