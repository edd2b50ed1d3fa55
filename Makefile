# Everything a person or CI does with this project. Python 3.11, pip and make are all it needs.
PYTHON ?= python3
VENV   ?= .venv
MINUTES ?= 10
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo demo-full test test-server soak check format clean

demo: $(VENV)/.demo            ## the whole loop on the standard library's documentation
	$(BIN)/embed-plus demo

demo-full: $(VENV)/.demo       ## the same with a full fine-tune, a re-embedding and an alias switch
	$(BIN)/embed-plus demo --full

test: $(VENV)/.test            ## all tests, on every core
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

test-server: $(VENV)/.test     ## the tests of collections on a running, empty server too: QDRANT_URL=http://localhost:6333
	@test -n "$(QDRANT_URL)" || { echo "usage: make test-server QDRANT_URL=http://localhost:6333"; exit 2; }
	QDRANT_URL=$(QDRANT_URL) $(BIN)/python -m pytest -k server

soak: $(VENV)/.test            ## kills, damage, full disks, threads: MINUTES=10, SEED=... for the same draws again
	cd tests && ../$(BIN)/python -m damage --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

check: $(VENV)/.test           ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) demo demo-report.json demo-report.png
