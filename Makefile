# `make bench` installs and runs the suite quick; `make test` installs and runs all tests.

VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter of a supported version.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$p && break; done)
# Where there is a GPU, TensorFlow gets an environment of its own: its CUDA libraries and torch's
# install the same files in different versions (docs/design.md, Devices).
GPU := $(shell { nvidia-smi -L || ls /proc/driver/nvidia/gpus/* || ls /dev/nvidia[0-9]*; } \
	>/dev/null 2>&1 && echo yes)
TENSORFLOW := $(if $(GPU),.venv-tensorflow/.installed,)
comma := ,
EXTRAS := embedded,torch,keras$(if $(GPU),,$(comma)tensorflow)
JAX := jax$(if $(GPU),-gpu)
PIP_FLAGS := --disable-pip-version-check --quiet
CHROMIUM := chromium fonts-liberation
INPUTS := Makefile pyproject.toml constraints.txt

.PHONY: bench test chromium check parity parity-zoo benchmarks calibrate advice-record upgrades peers format clean learning-rates statistics
.DELETE_ON_ERROR:

bench: $(VENV)/.installed $(TENSORFLOW)
	$(BIN)/python run_bench.py run

# JOBS test files run at once: half of the time goes into starting frameworks and compiling, on one
# core. Benchmarks do their work once, untimed; `make benchmarks` measures, with nothing beside it.
JOBS ?= 2
test: $(VENV)/.installed-test $(TENSORFLOW) chromium
	$(MAKE) check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder --benchmark-disable

# tests/browser need Chromium; install Debian's if there is none and the user may do that.
chromium:
	@command -v chromium >/dev/null && exit; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then as=; \
	elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then as="sudo -n"; \
	else echo "tests/browser need Chromium: apt-get install $(CHROMIUM)" >&2; exit; fi; \
	echo "installing $(CHROMIUM)"; \
	$$as apt-get update -qq && \
	$$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(CHROMIUM)

# Prove the article's backbones and three embedded ones under retrain_all, for every backend in
# float64 and for the default pair in float32; those of the suite quick under every policy. Heavy
# backbones come first, so that light ones fill the second core. A failure is reported at the end.
PROVED := vgg19 resnet152 vgg16 resnet101 resnet50 alexnet resnet34 mobilenet_v2 \
	efficientnet_lite0 squeezenet1_1
GO_ON := { test $$? -ne 130 || exit 130; failed=1; }
parity: $(VENV)/.installed-test $(TENSORFLOW)
	failed=0; \
	$(BIN)/python run_bench.py parity $(PROVED) --policy retrain_all \
		--backends torch,keras-tensorflow,keras-torch,keras-jax || $(GO_ON); \
	$(BIN)/python run_bench.py parity $(PROVED) --policy retrain_all --optimizer adamw \
		--dtype float32 || $(GO_ON); \
	$(BIN)/python run_bench.py parity efficientnet_lite0 squeezenet1_1 || $(GO_ON); \
	exit $$failed

# Calibrate the policies' default learning rates: an hour and a half on 2 idle cores, resumable.
learning-rates: $(VENV)/.installed
	$(BIN)/python run_bench.py run --suite tools/learning_rates.toml \
		--out results/runs/learning-rates
	$(BIN)/python -m tools.learning_rates results/runs/learning-rates

# Simulate experiments with a known truth, for the tables of docs/statistics.md (20 minutes).
statistics: $(VENV)/.installed
	$(BIN)/python -m tools.simulated_worlds 2000

parity-zoo: $(VENV)/.installed $(TENSORFLOW)
	$(BIN)/python -m tools.parity_zoo results/parity.md

# Measure training speed, and the overhead over hand-written loops. For other flags of
# pytest-benchmark: make benchmarks FLAGS="--benchmark-save=before".
DEVICE ?= $(if $(GPU),cuda:0,cpu)
FLAGS ?= --benchmark-json=results/benchmarks/speed.json
benchmarks: $(VENV)/.installed-test $(TENSORFLOW)
	mkdir -p results/benchmarks
	$(BIN)/python -m pytest tests/speed --speed-size usual --speed-device $(DEVICE) \
		--benchmark-columns=median,iqr,rounds --benchmark-sort=name $(FLAGS)

# Measure the errors of the speed gate: some three hours on an idle machine, resumable.
calibrate: $(VENV)/.installed
	$(BIN)/python -m tools.calibration collect results/runs/calibration
	$(BIN)/python -m tools.calibration report results/runs/calibration $$(git rev-parse --short HEAD)

# Measure how often advice is right: three and a half hours on 2 idle cores, resumable. Data of Debian's
# packages, which CONTRIBUTING.md names, take part if they are installed.
advice-record: $(VENV)/.installed
	THAWBENCH_CACHE=results/runs/advice-cache $(BIN)/python -m tools.advice_record collect \
		results/runs/advice-record
	$(BIN)/python -m tools.advice_record learn results/runs/advice-record
	$(BIN)/python -m tools.advice_record report results/runs/advice-record \
		$$(git rev-parse --short HEAD)

# Measure what each release of torch and of TensorFlow and Keras did to training speed: an hour and a
# half, 13 GB at a time, resumable.
upgrades: $(VENV)/.installed
	$(BIN)/python -m tools.upgrades --remove

# Compare with hand-written programs of other libraries, each in its own environment. VGG16 takes so
# long that one round suffices; its weights are random, so few test images do. For more flags:
# make peers PEERS_FLAGS="--timeout 7200".
PEERS := keras torch fastai
PEERS_FLAGS ?=
peers: $(VENV)/.installed-test $(TENSORFLOW) $(PEERS:%=.venv-peers/%/.installed)
	mkdir -p results/benchmarks
	$(BIN)/python -m tests.peers.compare --backbones efficientnet_lite0 \
		--json results/benchmarks/peers-lite0.json $(PEERS_FLAGS)
	$(BIN)/python -m tests.peers.compare --backbones vgg16 --rounds 1 --test-images 18 \
		--json results/benchmarks/peers-vgg16.json $(PEERS_FLAGS)
	$(BIN)/python -m tests.peers.compare --whole \
		--json results/benchmarks/peers-whole.json $(PEERS_FLAGS)

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 with the module venv is needed \
	(on Debian: apt-get install python3-venv), or name one: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(VENV)/bin/python
	@echo "installing into $(VENV): some 8 GB, a few minutes"
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip show --quiet torch $(if $(GPU),,tensorflow)
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS),$(JAX),test]'
	touch $@

.venv-tensorflow/.installed: $(INPUTS)
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed" >&2; exit 2; }
	$(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[tensorflow-gpu]'
	touch $@

.venv-peers/%/.installed: tests/peers/environments/%.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed" >&2; exit 2; }
	@echo "installing into .venv-peers/$*: up to 6 GB"
	$(PYTHON) -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -r $<
	touch $@

clean:
	rm -rf $(VENV) .venv-tensorflow .venv-peers *.egg-info .pytest_cache .mypy_cache .ruff_cache
