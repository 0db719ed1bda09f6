# make demo: set up, then the whole experiment in miniature. make test: set up, then every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(shell cat pyproject.toml requirements.lock | cksum | cut -d' ' -f1)

.PHONY: demo test docs setup lock

demo: setup
	$(BIN)/modelsoups

test: setup
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

setup: $(INSTALLED)

# The locked versions with their hashes, then the package itself. uv when it is there, else pip.
$(INSTALLED):
	@if command -v uv >/dev/null; then \
		set -ex; uv venv --quiet --allow-existing --python $(PYTHON) $(VENV); \
		uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock; \
		uv pip install --quiet --python $(BIN)/python --no-deps -e .; \
	else \
		set -ex; $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock; \
		$(BIN)/python -m pip install --quiet --no-deps -e .; \
	fi
	@rm -f $(VENV)/.installed-*; touch $@

# Pins what pyproject.toml asks for, for every platform. Needs uv.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev --extra docs --extra wandb --extra slurm pyproject.toml -o requirements.lock
