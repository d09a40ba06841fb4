# Two commands for a newcomer: `make demo` and `make test`. Both install what they need first, once.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help install weights demo test test-slow lint format docs docs-pages wheel clean

help:
	@echo "make demo   install, then run the whole job on the sample recordings and print where the report is"
	@echo "make test   install, then run the tests"
	@echo "make lint   ruff, import-linter and mypy"
	@echo "make docs   the documentation as a site, in build/site"
	@echo "make docs-pages   docs/configuration.md and docs/dataset-format.md again, from the models and records"
	@echo "make wheel  the package, in build/dist"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x "$(BIN)/python" || $(PY) -m venv $(VENV)
	@echo "installing (about 4 minutes the first time) ..."
	@"$(BIN)/python" -m pip install -q --disable-pip-version-check torch -c constraints.txt
	@"$(BIN)/python" -m pip install -q --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@# PESQ is a C extension: where there is no compiler, its column and its tests are left out.
	@"$(BIN)/python" -m pip install -q --disable-pip-version-check pesq -c constraints.txt >/dev/null 2>&1 || echo "no PESQ: it needs a C compiler"
	@# The released code, which tests and benchmarks run beside ours; its own requirements ask for more than it uses.
	@"$(BIN)/python" -m pip install -q --disable-pip-version-check --no-deps voxcpm==2.0.3
	@"$(BIN)/python" -m voxmill.core.torchaudio_cpu
	@touch $(VENV)/.installed

weights: install
	@"$(BIN)/python" -m voxmill.core.assets

demo: weights
	@"$(BIN)/python" -m voxmill.cli.demo

test: weights
	@"$(BIN)/python" -m pytest -q $(ARGS)

test-slow: weights
	@"$(BIN)/python" -m pytest -q -m slow $(ARGS)

lint: install
	@"$(BIN)/python" -m ruff check . && "$(BIN)/python" -m ruff format --check . && "$(BIN)/lint-imports" && "$(BIN)/python" -m mypy

format: install
	@"$(BIN)/python" -m ruff format . && "$(BIN)/python" -m ruff check --fix .

docs: install
	@NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build --quiet
	@echo "open build/site/index.html"

docs-pages: install
	@"$(BIN)/python" -m voxmill.cli.keys > docs/configuration.md
	@"$(BIN)/python" -m voxmill.cli.columns > docs/dataset-format.md

wheel: install
	@"$(BIN)/python" -m pip wheel -q --disable-pip-version-check --no-deps -w build/dist .

clean:
	rm -rf demo-out build .pytest_cache .ruff_cache .mypy_cache
