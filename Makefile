# Two commands on a fresh machine: `make book` and `make test`. Both set up the same virtual environment first.
#   make PYTHON=python3.12 book     another Python for the environment (when it is made)
#   make notebooks NB=book/02_boxes.ipynb    NB=stale: those with results that may have changed
#   make book RUN=all                        run every chapter, not only those that changed

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help book test check fuzz gpu lint browser pdf notebooks student colab lab constraints clean distclean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NOTEBOOKS := $(sort $(wildcard book/*.ipynb))
NB ?= $(NOTEBOOKS)

# Nothing of the caller's environment may decide which packages, kernel or figures are used.
unexport PYTHONPATH PYTHONHOME MPLBACKEND
export JUPYTER_PREFER_ENV_PATH := 1
# Nor may a list of fonts that a program cut short, or another version, left in the user's cache.
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/matplotlib

help: ## Show the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): requirements.txt constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt
	# By itself: it asks for opencv-python, which would overwrite opencv-python-headless; all else that it needs is there.
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps trackeval==1.3.0
	touch $@

book: $(INSTALLED) ## Build the site; chapters that changed are run (RUN=all: every one)
	BOOK_RUN="$(if $(filter command,$(origin RUN)),$(RUN))" $(BIN)/jupyter-book build . -W --keep-going
	@echo "Open this page: $(CURDIR)/_build/html/index.html"

# The tests of the pages and widgets take any Chromium that is there; without one they are skipped and say so.
browser: $(INSTALLED)
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y chromium; } || \
		$(BIN)/playwright install chromium || echo "No Chromium could be installed: tests in a browser will be skipped." >&2

# One process for each core, and a module to one of them, so that what its tests share is made once. A thread that has
# nothing to do sleeps: the processes have the cores for themselves. A process that dies ends the run with its test named.
SPREAD := -n logical --maxprocesses 4 --max-worker-restart 0 --dist loadscope --no-loadscope-reorder --durations=15
test check: export OMP_WAIT_POLICY := passive

test: $(INSTALLED) browser lint ## Lint, format, types, tests, and every number in the chapters
	$(BIN)/pytest $(SPREAD) --nbval --nbval-current-env --nbval-cell-timeout=600 tests book

check: $(INSTALLED) lint ## Lint, format, types, and quick tests without commands, pages, exports: while you work
	$(BIN)/pytest $(SPREAD) -m "not slow and not browser" --ignore=tests/book --ignore=tests/cli --ignore=tests/deploy

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

MINUTES ?= 10
fuzz: $(INSTALLED) ## Throw hostile input at the package for MINUTES=10, each time other cases
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES) --seed $$(date +%s)

CELLS ?= data/BCCD
ONLY ?=
gpu: $(INSTALLED) ## Measure all that wants a GPU, in parts of 9 minutes that go on (ONLY=smoke,latency for some)
	$(BIN)/python benchmarks/gpu.py --workers "$$(nproc)" --only "$(ONLY)" $(if $(wildcard $(CELLS)),--cells $(CELLS))

pdf: book browser ## Print the book to _build/ssd-from-scratch.pdf
	$(BIN)/python tools/print_book.py

notebooks: $(INSTALLED) ## Run the notebooks (NB=file for one, NB=stale for those that changed) and save them clean
ifeq ($(NB),stale)
	$(BIN)/ruff format --quiet $(NOTEBOOKS)
	$(BIN)/python tools/notebooks.py run --stale
else ifneq ($(NB),)
	$(BIN)/ruff format --quiet $(NB)
	$(BIN)/python tools/notebooks.py run $(NB)
endif

student: $(INSTALLED) ## Make the notebooks without solutions, in build/student
	$(BIN)/python tools/student.py

colab: $(INSTALLED) ## Make the notebooks in plain Markdown, for Colab and plain JupyterLab, in build/colab
	$(BIN)/python tools/colab.py

lab: $(INSTALLED) ## Open the book in JupyterLab
	$(BIN)/jupyter lab book

constraints: $(INSTALLED) ## Take the newest versions into constraints.txt (then run both commands)
	$(BIN)/python -m pip install --quiet uv
	{ sed '/^$$/q' constraints.txt; $(BIN)/uv pip compile --universal --python-version 3.10 --quiet \
		--no-emit-package ssdlib --no-annotate --no-header requirements.txt; } > constraints.part
	mv constraints.part constraints.txt
	{ sed '/^$$/q' constraints-lowest.txt; $(BIN)/uv pip compile --universal --python-version 3.10 --quiet \
		--resolution lowest-direct --no-emit-package ssdlib --no-annotate --no-header pyproject.toml \
		--extra coco --extra family --extra tensorboard --extra widgets --extra test; } > constraints.part
	mv constraints.part constraints-lowest.txt

clean: ## Remove what was built, and keep the environment
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info

distclean: clean ## Remove the environment too
	rm -rf $(VENV)
