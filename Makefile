# Everything below sets itself up from make and Python 3.11 or newer; nothing needs to be installed first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-browser test-heavy lint format audit sbom bench bench-reliability classify-table fuzz lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.app ## Process the sample files and show what came out
	@$(BIN)/python examples/demo.py

serve: $(VENV)/.app ## Run the service on http://127.0.0.1:$(PORT) (PORT=... for another)
	@$(BIN)/bulletproof serve --port $(PORT)

test: $(VENV)/.dev ## Run the whole test suite
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev ## Check style, types and the floors of the architecture
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

test-browser: $(VENV)/.dev ## Test the dashboard in a real browser (needs chromium; CHROMIUM=/path for another)
	@$(BIN)/python -m pytest tests/browser -o addopts="-q --strict-markers --strict-config --import-mode=importlib" $(ARGS)

test-heavy: $(VENV)/heavy/.installed ## Test with PyTorch, Keras and transformers (downloads some gigabytes the first time)
	@KERAS_BACKEND=torch $(VENV)/heavy/bin/python -m pytest tests/heavy -o addopts="-q --strict-markers --strict-config --import-mode=importlib" $(ARGS)

classify-table: $(VENV)/.dev ## Walk every exception class of the libraries known and write them down
	@$(BIN)/python tests/errors/walk_exceptions.py $(ARGS)

audit: $(VENV)/.audit ## Look for known vulnerabilities in what is locked (asks PyPI's database)
	@$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements/app.lock $(ARGS) || { \
	  echo "Either vulnerabilities were found (listed above), or the database could not be reached (see the error above)." >&2; exit 1; }

sbom: $(VENV)/.audit $(VENV)/.app ## Write the bill of materials of the installed service (CycloneDX) to dist/sbom.json
	@mkdir -p dist
	@$(VENV)/audit/bin/cyclonedx-py requirements --output-reproducible --of JSON --output-file dist/sbom.json requirements/app.lock
	@echo "dist/sbom.json lists $$($(BIN)/python -c 'import json; print(len(json.load(open("dist/sbom.json"))["components"]))') components"

bench: $(VENV)/.bench ## Run the benchmarks and write benchmarks/results/ (ARGS="process resilience" for some)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-reliability: $(VENV)/.bench $(VENV)/.fuzz ## Run the campaigns against the running service and write docs/reliability.md (ARGS=--quick for less)
	@$(BIN)/python -m benchmarks.reliability --run $(ARGS)

fuzz: $(VENV)/.fuzz ## Fuzz all that reads untrusted input, for an hour in all (ARGS="json csv --seconds 60" for less)
	@$(BIN)/python -m fuzz $(ARGS)

lock: $(VENV)/.dev ## Resolve the dependencies anew and write requirements/*.lock
	@$(BIN)/python requirements/lock.py

clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed: $(PYTHON) is older or missing. Say which to use: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.app: requirements/app.lock pyproject.toml | $(BIN)/python
	@echo "Installing bulletproof into $(VENV) (once, about a minute) ..."
	@$(PIP) install --no-deps --require-hashes -r requirements/app.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.app
	@echo "Installing the test and lint tools into $(VENV) (once, about a minute) ..."
	@$(PIP) install --no-deps --require-hashes -r requirements/dev.lock
	@touch $@

$(VENV)/.bench: requirements/bench.lock $(VENV)/.dev
	@echo "Installing the peers of the benchmarks into $(VENV) (once) ..."
	@$(PIP) install --no-deps --require-hashes -r requirements/bench.lock
	@touch $@

$(VENV)/.serving: requirements/serving.lock | $(BIN)/python
	@echo "Installing the model servers of the benchmarks into $(VENV)/serving (once) ..."
	@$(PYTHON) -m venv $(VENV)/serving
	@$(VENV)/serving/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/serving.lock
	@touch $@

$(VENV)/.audit: requirements/audit.lock | $(BIN)/python
	@echo "Installing the audit tools into $(VENV)/audit (once) ..."
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/audit.lock
	@touch $@

$(VENV)/.fuzz: requirements/fuzz.lock $(VENV)/.app
	@echo "Installing the fuzzer into $(VENV)/fuzz (once) ..."
	@rm -rf $(VENV)/fuzz
	@$(PIP) install --no-deps --require-hashes -r requirements/fuzz.lock --target $(VENV)/fuzz
	@touch $@

$(VENV)/heavy/.installed: requirements/heavy.lock requirements/dev.lock requirements/app.lock pyproject.toml | $(BIN)/python
	@echo "Installing PyTorch, Keras and transformers into $(VENV)/heavy (once, some gigabytes) ..."
	@$(PYTHON) -m venv $(VENV)/heavy
	@for lock in app dev heavy; do \
	  $(VENV)/heavy/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/$$lock.lock || exit 1; done
	@$(VENV)/heavy/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@touch $@
