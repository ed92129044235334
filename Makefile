# What a newcomer and CI run. Every target makes the environment first when it is missing; `make` alone lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := .venv/bin/python -m pip --disable-pip-version-check --no-input install -qq -c constraints.txt
# What is installed, in steps: a target asks for what it needs. Each but the first is an extra of pyproject.toml.
TORCH := .venv/.with-torch
STUDY := .venv/.with-study
DETECT := .venv/.with-detect
DEV := .venv/.with-dev
WHAT_study := what a study needs
WHAT_detect := what a detector needs
WHAT_dev := TensorFlow, JAX and the tools of tests and documentation
# Without a C++ compiler there are no kernels, and everything still runs.
LIBRARY := src/foveate/kernels/_cpu.so
KERNELS := $(if $(shell command -v $${CXX:-c++}),$(LIBRARY))
ARGS ?=
BACKENDS ?= tensorflow jax torch
KERAS_PAGE := docs/how-to/keras.md
COMPILE := PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m foveate.kernels.build
CPP := $(wildcard src/foveate/kernels/cpu/*)
# The parts of the suite that are done soonest: the mechanisms, attaching, boxes, gates; without those that build many
# whole networks, compile, export or try every entry of a gradient.
QUICK := $(addprefix tests/,mechanisms bind surgery detection gates test_imports.py test_public_api.py) \
	--ignore=tests/mechanisms/test_contract_can_fail.py \
	$(patsubst %,--ignore=tests/surgery/test_%.py,architectures bake dimensions lost_sites pretrained_host \
		public_sites quantise replace survival) \
	-k 'not test_compile and not test_export and not test_every_entry'

.NOTPARALLEL:
.PHONY: help venv kernels study detect quick test test-all coverage test-keras test-keras-all lint format types docs bench bench-keras examples readme clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

venv: $(DEV) $(KERNELS) ## make .venv with the pinned versions of everything, and compile the kernels

kernels: $(STUDY) ## compile the CPU kernels, every warning an error
	@$(COMPILE) --strict >.venv/kernels.log 2>&1 || { cat .venv/kernels.log; exit 1; }
	@tail -n 1 .venv/kernels.log

study: $(STUDY) $(KERNELS) ## run the main job on the embedded data and print its table and report (ARGS="--seeds 5")
	@.venv/bin/foveate study $(ARGS)

detect: $(DETECT) $(KERNELS) ## train a small detector on the embedded scenes (ARGS="--attention cbam")
	@.venv/bin/foveate train --task detect --name digit-scenes $(ARGS)

quick: $(DEV) $(KERNELS) ## run the fast tests, in a minute and a half
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 $(QUICK) $(ARGS)

test: $(DEV) $(KERNELS) ## run the test suite, all but the Keras layers (test-keras)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --durations=10 $(ARGS)

test-all: $(DEV) $(KERNELS) ## run the test suite with its slow tests but the Keras layers, and say what was tried of docs/reliability.md
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --durations=20 -m "slow or not slow" --timeout 3600 --reliability $(ARGS)

coverage: $(DEV) $(KERNELS) ## run the test suite, Keras on torch too, and say which share of the lines and branches it ran
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --cov --cov-report= $(ARGS)
	@OMP_NUM_THREADS=1 KERAS_BACKEND=torch .venv/bin/python -m pytest -q -n 2 --cov --cov-append --cov-report=term \
		--cov-fail-under=95 tests/on_keras $(ARGS)

test-keras: $(DEV) $(KERNELS) ## run the tests of the Keras layers and their page, on each backend (BACKENDS="jax")
	@for backend in $(BACKENDS); do \
		echo "Keras on $$backend"; \
		export KERAS_BACKEND=$$backend; \
		OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --durations=5 tests/on_keras $(ARGS) || exit 1; \
		.venv/bin/python tools/run_readme.py --together $(KERAS_PAGE) || exit 1; \
	done

test-keras-all: ## run the tests of the Keras layers with their slow tests, on each backend
	@$(MAKE) --no-print-directory test-keras ARGS='-m "slow or not slow" --timeout 3600 --reliability $(ARGS)'

lint: $(DEV) ## check style and formatting
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/clang-format --dry-run --Werror $(CPP)

format: $(DEV) ## put the source into its canonical form
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format . && .venv/bin/clang-format -i $(CPP)

types: $(DEV) ## check the types
	@.venv/bin/pyright --pythonpath .venv/bin/python

docs: $(DEV) ## build the documentation into site/, every warning an error
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

bench: $(DEV) $(KERNELS) ## measure the kernels, and what attention costs a host, on this machine (hours)
	@.venv/bin/python -m benchmarks $(ARGS)

bench-keras: $(DEV) $(KERNELS) ## measure the Keras layers, a process for each backend (BACKENDS="jax"; minutes)
	@for backend in $(BACKENDS); do KERAS_BACKEND=$$backend .venv/bin/python -m benchmarks keras_layers $(ARGS) || exit 1; done

examples: $(DETECT) $(KERNELS) ## run the examples as they are (two minutes); the tests run them small
	@for example in examples/*.py; do echo "$$example"; .venv/bin/python "$$example" $(ARGS) || exit 1; done

readme: $(DEV) $(KERNELS) ## run every block of the README and of the how-to pages; test-keras runs the page on Keras
	@.venv/bin/python tools/run_readme.py README.md
	@.venv/bin/python tools/run_readme.py --together docs/index.md docs/install.md $(filter-out $(KERAS_PAGE),$(wildcard docs/how-to/*.md))

clean: ## remove the environment and everything built
	@rm -rf .venv site build dist .pytest_cache .ruff_cache .hypothesis .coverage* $(LIBRARY)

$(TORCH): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Foveate needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making .venv"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing torch (a minute or two, once)"
	@$(PIP) torch==2.13.0 hatchling setuptools ninja
	@touch $@

.venv/.with-%: $(TORCH)
	@echo "Installing $(WHAT_$*)"
	@HATCH_BUILD_NO_HOOKS=true $(PIP) --no-build-isolation -e '.[$*]'
	@touch $@ $(if $(filter dev,$*),$(STUDY) $(DETECT))

$(LIBRARY): $(wildcard src/foveate/kernels/cpu/*) src/foveate/kernels/build.py | $(STUDY)
	@echo "Compiling the kernels (a minute)"
	@$(COMPILE) >.venv/kernels.log 2>&1 || { cat .venv/kernels.log; exit 1; }
