# make demo [DATA=folder]   train on your recordings, or on synthesised ones, and write a report
# make test                 every check that a change must pass
# make lint                 the checks that run no code of ours
# make sanitize             the kernels' tests under address and undefined-behaviour sanitizers
# make benchmarks           time stapes beside other programs, on a quiet machine (installs gigabytes)
# make clean                remove the environment and everything these commands made
#
# Each target installs what it needs into .venv first (the benchmarks into .venv-peers); a second run
# finds it there.

PYTHON ?= python3
BIN := .venv/bin
# Recordings for the tests that need real ones; those tests skip where there are none.
STAPES_DATA ?= $(abspath $(wildcard ../shared/data))
ifneq ($(STAPES_DATA),)
export STAPES_DATA
endif

INSTALL = @echo 'Installing into .venv (minutes the first time, then never)' && \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# An editable install takes changes to Python files at once; these need it done again.
INSTALLED_FROM := pyproject.toml constraints.txt $(wildcard CMakeLists.txt native/*)

# What is timed, in this order.
SPEED := train_step inference end_to_end scaling install

.DELETE_ON_ERROR:
.PHONY: demo test lint sanitize benchmarks clean

demo: .venv/installed-train
	$(BIN)/stapes demo $(if $(DATA),"$(DATA)") --out demo --overwrite

test: lint
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# An environment that borrows all but the kernels from the other one.
SANITIZED := build/sanitized
RUNTIMES = $(foreach name,libasan.so libubsan.so,$(shell g++ -print-file-name=$(name)))
sanitize: .venv/installed-dev
	$(PYTHON) -m venv --clear $(SANITIZED)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $$(echo $(SANITIZED)/lib/python*/site-packages)/borrowed.pth
	$(SANITIZED)/bin/python -m pip install --quiet --no-deps -C cmake.define.STAPES_SANITIZE=ON .
	LD_PRELOAD="$(RUNTIMES)" ASAN_OPTIONS=detect_leaks=0 $(SANITIZED)/bin/python -m pytest \
	  -p no:cacheprovider tests/test_native.py tests/test_listener.py tests/test_augment.py \
	  tests/test_batches.py

benchmarks: .venv-peers/installed
	for name in $(SPEED); do .venv-peers/bin/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf .venv .venv-peers build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo '$(PYTHON) is older than Python 3.11: run make PYTHON=python3.11 (or newer)'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed-train: $(INSTALLED_FROM) | .venv/bin/python
	$(INSTALL) --editable '.[train]'
	@$(BIN)/python -c 'import stapes._native' 2> /dev/null || \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,torch]'  # in place of the kernels
	@touch $@

.venv/installed-dev: $(INSTALLED_FROM) | .venv/bin/python
	$(INSTALL) --editable '.[train,torch,dev,fetch]'
	@touch $@ .venv/installed-train

.venv-peers/installed: $(INSTALLED_FROM) benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	@echo 'Installing into .venv-peers (minutes the first time, then never)'
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r benchmarks/peers.txt --editable '.[train,torch]'
	@touch $@
