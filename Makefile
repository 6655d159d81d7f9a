# Every target sets up .venv by itself; nothing has to be installed by hand.
#   make demo    generate grasps on the held-out objects and write runs/demo/report.html
#   make test    the unit suite; test-slow and test-long: what takes longer
#   make check   format, lint, types and import layers
#   make bench   speed against peers (installs torch)
#   make docs    the documentation as pages, into build/docs
#   make notebooks  run them, and write them as pages into build/notebooks
#   make data    rebuild the embedded dataset from its recipe
#   make clean   remove .venv and everything that runs wrote

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv/.installed-bench
DOCS_STAMP := .venv/.installed-docs
# By files, so that one process makes what a file's tests share. A worker that dies is not replaced:
# pytest-xdist 3.8 may wait forever after it did.
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --max-worker-restart 0 --durations 30
JOBS ?= auto
# These run each program a few times: fewer of the compiler's passes save a fifth of the processor's time.
QUICK_COMPILE = XLA_FLAGS="$${XLA_FLAGS:---xla_backend_optimization_level=1}"

.PHONY: demo test test-slow test-long check format bench docs notebooks data setup clean

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none found. \
	Install it or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	# A folder that an interrupted setup left has no pip.
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -e .
	touch $@

$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.lock
	touch $@

$(DOCS_STAMP): $(STAMP) requirements-docs.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m experiments.demo $(ARGS)

# Compiling takes most of the time: what is compiled is shared by processes and kept between runs.
test test-slow test-long notebooks: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/build/compiled
test test-slow test-long notebooks: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.3

test: $(STAMP)
	$(QUICK_COMPILE) $(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE) $(ARGS)

test-slow: $(STAMP)
	$(QUICK_COMPILE) $(BIN)/python -m pytest -m "slow and not alone and not long" $(SIDE_BY_SIDE) $(ARGS) || test $$? = 5
	$(BIN)/python -m pytest -m "slow and alone and not long" --durations 10 $(ARGS) || test $$? = 5  # 5: ARGS chose none

test-long: $(STAMP)
	$(BIN)/python -m pytest -m long $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH_STAMP)
	$(BIN)/python -m benchmarks.run $(ARGS)

docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -d build/doctrees docs build/docs $(ARGS)
	@echo build/docs/index.html

notebooks: $(STAMP)
	$(BIN)/python -m experiments.notebooks $(ARGS)

data: $(STAMP)
	$(BIN)/python -m experiments.make_dataset $(ARGS)

clean:
	rm -rf .venv runs build dist docs/api .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
