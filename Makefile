# Everything here sets up what it needs. Python 3.11 or 3.12 with venv and pip is all that must be there.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.ready-test
OUT ?= runs/default

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

PEERS := .cache/peers

.PHONY: run test fuzz test-full test-vllm lint types docs setup setup-test golden clean

run: $(READY)  ## curate, mix, tokenize, train, evaluate and report on the embedded default
	@$(BIN)/gristmill run --out $(OUT)

test: $(TEST_READY)  ## set up and pass the tests, two folders of them at a time
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

test-full: $(TEST_READY)  ## the long tests that `make test` leaves out; the last result stands in tests/FULL_RESULT.txt
	$(BIN)/python -m pytest -m "slow and not gpu" -rpfEs --tb=short -o addopts="-q --strict-markers --import-mode=importlib" --durations=0 | tee tests/FULL_RESULT.txt

test-vllm: $(TEST_READY)  ## vLLM for real, on the CPU, in an environment of its own (3 GB, built once under .cache/vllm)
	$(BIN)/python -m pytest tests/vllm -m vllm -rs --tb=short -o addopts="-q --strict-markers --import-mode=importlib"

fuzz: $(TEST_READY)  ## ten thousand damaged files through every reader (ARGS="--seed 20000" for others)
	$(BIN)/python -m benchmarks fuzz $(ARGS)

lint: $(TEST_READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(TEST_READY)  ## the documentation as a site under site/
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]' && $(BIN)/mkdocs build --strict

golden: $(TEST_READY)  ## renew generated files: JSON Schemas, the CLI reference
	$(BIN)/python -m mixtures.json_schemas && $(BIN)/python -m pipelines.rubrics && $(BIN)/python -m pipelines.briefs && \
	$(BIN)/python -m pipelines.reference

# The peers stand in a folder of their own: what Gristmill runs on never depends on them.
bench-%: $(PEERS)/.ready  ## measure beside the peers: bench-rules, bench-language, … (ARGS="--help" for the options)
	$(BIN)/python -m benchmarks $* $(ARGS)

$(PEERS)/.ready: benchmarks/peers.txt benchmarks/tokenizer_files.txt benchmarks/harness.txt benchmarks/litgpt.txt $(TEST_READY)
	$(BIN)/python -m pip install -q --no-warn-conflicts -c constraints.txt --target $(PEERS) -r benchmarks/peers.txt
	$(BIN)/python -m pip install -q --no-warn-conflicts --no-deps --target $(PEERS) -r benchmarks/tokenizer_files.txt -r benchmarks/harness.txt \
		-r benchmarks/litgpt.txt
	@touch $@

setup: $(READY)
setup-test: $(TEST_READY)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Gristmill needs Python 3.11 or 3.12 with venv; none was found (set PYTHON=...)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone: where a CPU build is offered for exactly this version, pip takes it.
$(READY): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) (once; some minutes)"
	$(BIN)/python -m pip install -q --no-warn-conflicts -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(TEST_READY): $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) .cache site runs/default
