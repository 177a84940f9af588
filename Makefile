# Everything that a person or a machine does with this tree has one name here; CI calls the same names.
# All of it happens inside .venv, except bubblewrap (the sandbox), which is a package of the system.

V := .venv
PY ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
PIP := $(V)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt
EXAMPLE := examples/semver
PYTEST := $(V)/bin/python -m pytest -q
BENCHMARKS := repair_speed scoring starts escape kernels engine attention compression serving drafting turns
BWRAP ?= yes
TORCH := 2.13.0

# What the shell around us has activated is not what we test with.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

run: $(V)/.run sandbox ## set up, then repair the real bug in examples/ (shows the patch, changes nothing)
	@$(V)/bin/riallm fix $(EXAMPLE) </dev/null
	@echo "To write the patch into the file:  $(V)/bin/riallm fix $(EXAMPLE) --apply"

test: $(V)/.dev sandbox ## set up, then run all tests but the slow ones
	@$(PYTEST) -n auto --maxprocesses 4 --dist loadfile -m 'not slow and not gpu and not net and not browser'

test-slow: $(V)/.dev sandbox ## the tests that take over ten seconds, or the package registries
	@$(PIP) -e '.[fuzz]'
	@$(PYTEST) -m 'slow or net'

test-browser: $(V)/.dev ## the server's page in a real Chromium; where there is none, says how to install it
	@$(PIP) -e '.[browser]'
	@$(PYTEST) -m browser tests/serve/test_page*.py

check: $(V)/.dev ## lint, layout and strict types
	$(V)/bin/ruff check .
	$(V)/bin/ruff format --check .
	$(V)/bin/mypy

bench: SHELL := bash
bench: $(V)/.dev sandbox ## the benchmarks; each prints a card, kept in results/ with SAVE=results
	@set -o pipefail; for name in $(BENCHMARKS); do \
		{ $(V)/bin/riallm doctor && $(V)/bin/python -m riallm.bench.$$name; } \
			| tee $(if $(SAVE),$(SAVE)/`date +%F`-$$name.txt) || exit $$?; done

docs: $(V)/.dev sandbox ## write again what is generated: docs/cli.md, docs/api.md and the picture in the README
	$(V)/bin/python docs/generate.py
	$(V)/bin/riallm fix $(EXAMPLE) --save-picture docs/pictures/fix.svg </dev/null

# Regenerated, never edited; run it with the oldest Python that we support: make lock PY=python3.11
# torch is pinned by hand here: a resolver would write down the build of this machine, and with it gigabytes of CUDA.
lock: python ## resolve the dependencies anew into constraints.txt
	$(PY) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check install -q 'pip-tools>=7.5'
	echo 'torch==$(TORCH)' > build/torch.txt
	build/lock/bin/pip-compile -q --upgrade --all-extras --strip-extras --no-emit-find-links --no-emit-index-url \
		--no-emit-trusted-host --no-header --no-annotate --unsafe-package torch -c build/torch.txt \
		-o constraints.txt pyproject.toml
	sed -i '/^#/d;/^$$/d;/^torch==/d' constraints.txt
	cat build/torch.txt >> constraints.txt

setup: $(V)/.dev sandbox ## set up without running anything

python:
	@test -n "$(PY)" || { echo "riallm needs Python 3.11 or newer; none of python3, python3.11 ... python3.14 is." >&2; \
		echo "Install one, or name it: make run PY=/path/to/python3.12" >&2; exit 1; }
	@command -v $(PY) >/dev/null || { echo "There is no $(PY). Name a Python: make run PY=python3.12" >&2; exit 1; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "riallm needs Python 3.11 or newer; $(PY) is `$(PY) -V 2>&1`. Name another: make run PY=python3.12" >&2; exit 1; }
	@$(PY) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PY) has no venv or ensurepip. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }

$(V)/bin/python:
	@$(MAKE) --no-print-directory python
	@echo "Making $(V) with $(PY) ..."
	@$(PY) -m venv $(V) || { rm -rf $(V); exit 1; }

$(V)/.run: pyproject.toml constraints.txt | $(V)/bin/python
	@echo "Installing what riallm needs ..."
	@$(PIP) -e .
	@touch $@

$(V)/.dev: $(V)/.run
	@echo "Installing what its tests and checks need ..."
	@$(PIP) -e '.[dev,models,data,serve]'
	@touch $@

sandbox: ## install bubblewrap where we may, or say how
	@BWRAP=$(BWRAP) sh .ci/bubblewrap

clean: ## remove .venv and all caches
	rm -rf $(V) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help run test test-slow test-browser check docs lock setup python sandbox clean bench
