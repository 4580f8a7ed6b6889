# Two commands do everything: `make run` and `make test`. Both make the environment first.
# `make test-all` has the slow tests too, in one process.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
ARGS ?=

.PHONY: run test test-all tools-test docs env lint types resolve lock locked audit clean

run: env
	@$(BIN)/qcq run experiments/classroom.toml $(ARGS)

test: env lint types
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
		-m 'not slow and not tools'

test-all: env lint types
	@$(BIN)/python -m pytest

docs: env
	@$(BIN)/python docs/build.py build/site
	@echo "build/site/html/index.html"

# The tests with the released tools, in an environment that has them beside all of $(VENV). embedding-atlas asks for
# language models, which its reader needn't have and whose packages contradict constraints.txt.
tools-test: $(TOOLS)/.ready
	@QCQ_REQUIRE_TOOLS=1 $(TOOLS)/bin/python -m pytest -m tools

$(TOOLS)/.ready: $(VENV)/.ready
	@rm -rf $(TOOLS) && $(BIN)/python -m venv $(TOOLS)
	@echo "installing into $(TOOLS) (once; a minute or two)"
	@base=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	site=$$($(TOOLS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	echo "import site; site.addsitedir('$$base')" > "$$site/base.pth"
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tools]'
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps embedding-atlas==0.26.0
	@touch $@

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,hf]'
	@touch $@

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@said=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$said"; exit 1; }

types: env
	@$(BIN)/mypy --num-workers auto

# Is there a wheel of everything, for every Python that pyproject.toml names? Asked of what a user installs and of what
# `env` installs; nothing is installed but uv, in a folder that goes again. A mirror is named by UV_DEFAULT_INDEX.
PYTHONS = $(shell sed -n 's/.*:: Python :: \(3\.[0-9]*\)",.*/\1/p' pyproject.toml)
WHEELS = --python-platform x86_64-manylinux_2_28 --only-binary :all: --no-python-downloads

resolve:
	@test -n "$(PYTHONS)" || { echo "pyproject.toml names no Python"; exit 1; }
	@here=$$(mktemp -d) && trap 'rm -rf "$$here"' EXIT && \
	$(PYTHON) -m venv "$$here" && \
	"$$here/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: uv && \
	for python in $(PYTHONS); do \
		for more in "" "--extra dev --extra hf --constraint constraints.txt"; do \
			echo "Python $$python $$more"; \
			"$$here/bin/uv" pip compile pyproject.toml $$more --python-version $$python $(WHEELS) > /dev/null || exit 1; \
		done; \
	done

# What `env` installs, for every system and Python, with the SHA-256 of each file that the index has. torch and its
# libraries for GPUs have a file of their own: who takes a build of torch from another index can't use their hashes.
FRESH = here=$$(mktemp -d) && trap 'rm -rf "$$here"' EXIT && $(PYTHON) -m venv "$$here" && \
	"$$here/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all:

lock:
	@$(FRESH) uv && \
	"$$here/bin/uv" pip compile pyproject.toml --extra dev --extra hf --constraint constraints.txt --universal \
		--python-version $(firstword $(PYTHONS)) --generate-hashes --no-annotate --no-header --quiet \
		--output-file "$$here/all.txt" && \
	awk '/^[^ ]/ { into = /^(torch|triton|nvidia-.*|cuda-.*)==/ ? "locked-torch.txt" : "locked.txt" } { print > into }' \
		"$$here/all.txt"

# The environment of `run` and `test` anew, by these hashes. A build of torch from another place than PyPI comes first,
# without a hash: make locked TORCH="torch==2.13.0 --index-url ..."
TORCH ?= --require-hashes --requirement locked-torch.txt
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

locked:
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --only-binary :all: $(TORCH)
	@$(INSTALL) --only-binary :all: --require-hashes --requirement locked.txt
	@$(INSTALL) --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $(VENV)/.ready

# Known vulnerabilities of the locked versions; asks a service on the network.
audit:
	@$(FRESH) pip-audit && \
	"$$here/bin/pip-audit" --strict --disable-pip --require-hashes --requirement locked.txt --requirement locked-torch.txt

clean:
	@rm -rf $(VENV) $(TOOLS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
