# `make` alone prints this help. Works with GNU make 3.81 and later and any POSIX sh.
.DEFAULT_GOAL := help
.PHONY: help live test test-long check-engine defects chaos chaos-small kafka bench lab lint format constraints environment
SHELL := /bin/sh
VENV := .venv
PYTHON := $(VENV)/bin/python
PYTHONS := python3 python3.11 python3.12 python3.13 python3.14
ARGS :=
ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# Accepts the Pythons of `requires-python` in pyproject.toml; a test holds the two equal.
ACCEPTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
# What the environment is installed from, and where: complete when its stamp says the same.
WANTED := import hashlib as h, pathlib as p; \
	parts = [p.Path(f).read_bytes() for f in ("pyproject.toml", "constraints.txt")]; \
	print(h.sha256(b"".join(parts) + bytes(p.Path.cwd())).hexdigest())

help:  ## this list
	@echo "sysquant: what you promoted is what trades"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | \
		while IFS='|' read -r target does; do printf '%-20s %s\n' "  $$target" "$$does"; done

live: environment  ## sample history, then momentum on the replay feed, to its summary
	@$(PYTHON) runners/live.py strategy=momentum feed.speed=1500 $(ARGS)

test: environment  ## the whole test suite; ARGS="-k bars" for a part
	@$(PYTHON) -m pytest -n 3 --dist loadfile $(ARGS)

test-long: environment  ## what takes minutes, and shows at length what the suite shows briefly
	@$(PYTHON) -m pytest -n 2 --dist loadfile --long $(ARGS)

check-engine: environment  ## the engine against its plain-Python oracle on 100,000 random streams
	@$(PYTHON) tests/check_engine.py $(ARGS)

defects: environment  ## seeds defects into copies of the tree, and shows the check that catches each
	@$(PYTHON) -m tests.defects $(ARGS)

chaos-small: environment  ## kills, outages and disorder, a short round of each; ARGS="kills" for one
	@$(PYTHON) -m tests.chaos --small $(ARGS)

chaos: environment  ## the same at full size (an hour); resumes, and adds rows to runs/chaos.jsonl
	@$(PYTHON) -m tests.chaos $(ARGS)

bench: environment  ## the benchmarks: tables, and runs/bench.json; ONLY=engine ARGS="1e6 5" for one
	-@$(PYTHON) -c 'import hftbacktest' 2>/dev/null || \
		$(PYTHON) -m pip install --quiet -c constraints.txt -e '.[bench]'
	@for script in tests/benchmarks/bench_$(or $(ONLY),*).py; do \
		echo "$$script"; $(PYTHON) $$script $(if $(ONLY),$(ARGS)) || exit 1; \
	done

kafka: environment  ## a real Kafka broker on 127.0.0.1:9092 (needs Java 17 and Maven)
	@$(PYTHON) runners/kafka.py $(ARGS)

lab: environment  ## JupyterLab on the notebooks
	@$(PYTHON) -m jupyterlab --notebook-dir=notebooks $(ROOT) $(ARGS)

lint: environment  ## ruff, import-linter and pyright
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-logo
	@$(PYTHON) -m pyright --pythonpath $(PYTHON)

format: environment  ## ruff: order imports, mend what it can, lay out the code
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

constraints: environment  ## resolve the pins anew (needs Python 3.11, 3.12 and 3.13)
	@$(PYTHON) .ci/constraints.py

# Nothing to do costs one Python start. An interrupted install leaves no stamp and is resumed; a
# virtual environment without a working Python and pip is made anew.
environment:
	@wanted=$$($(PYTHON) -c '$(WANTED)' 2>/dev/null); \
	if [ -n "$$wanted" ] && [ "$$wanted" = "$$(cat $(VENV)/.stamp 2>/dev/null)" ]; then exit 0; fi; \
	if ! $(PYTHON) -c 'import pip; $(ACCEPTED)' 2>/dev/null; then \
		found=; chosen=; \
		for python in $(PYTHONS); do \
			$$python -c '$(ACCEPTED)' 2>/dev/null || continue; \
			found=$$python; \
			if $$python -c 'import ensurepip, venv' 2>/dev/null; then chosen=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "sysquant needs Python 3.11, 3.12, 3.13 or 3.14, and none of $(PYTHONS) is one: install it, or make PYTHONS=/path/to/python" >&2; exit 1; \
		fi; \
		if [ -z "$$chosen" ]; then \
			echo "$$found has no venv module: install it (Debian: apt install python3-venv) and run make again" >&2; exit 1; \
		fi; \
		echo "Creating $(VENV) with $$chosen"; \
		$$chosen -m venv --clear $(VENV) || exit 1; \
	fi; \
	echo "Installing the pinned packages into $(VENV) (some minutes the first time)"; \
	rm -f $(VENV)/.stamp; \
	quiet=--quiet; if [ -t 1 ]; then quiet=; fi; \
	install="env PYTHONWARNINGS=ignore $(PYTHON) -m pip install --disable-pip-version-check $$quiet -c constraints.txt"; \
	$$install pip && $$install -e '.[dev]' || exit 1; \
	$(PYTHON) -c '$(WANTED)' > $(VENV)/.stamp
