# make book · make test · make lab · make check · make outputs · make bench · make recorded [NAME=...] · make chapter-mutants [NAME=...] · make mutants [NAME=...] · make properties · make pins · make clean; each sets up .venv by itself.
PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
EXTRAS := book,test
V := .venv/bin
# One thread, and Python's own variables left aside; the rest of the environment is fixed by _ext/environment.py.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
RUN := $(ONE_THREAD) $(V)/python -E
.DEFAULT_GOAL := help
.PHONY: help book test lab check browser browser-only bench outputs recorded chapter-mutants mutants properties pins clean check-setup FORCE

help:
	@sed -n 1p Makefile

# .ci/install.py looks whether .venv can serve, makes it again where it cannot, and does nothing where it is complete.
.venv/.installed: FORCE
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not there; name a Python of 3.11 or later: make PYTHON=..."; exit 1; }
	@TORCH_INDEX=$(TORCH_INDEX) PYTHON_ASKED=$(findstring line,$(origin PYTHON)) $(PYTHON) .ci/install.py .installed $(EXTRAS)

.venv/.lab: .venv/.installed FORCE
	@$(PYTHON) .ci/install.py .lab lab
	@mkdir -p .venv/share/jupyter/lab/settings
	@printf '%s\n' '{"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"}}}' \
		> .venv/share/jupyter/lab/settings/overrides.json

# --all: after a failed strict build Sphinx would otherwise call the unchanged broken pages a success.
book: .venv/.installed
	$(RUN) $(V)/jupyter-book build --all -W -n --keep-going .

# JOBS=2 runs files side by side; a chapter stays in one kernel
test: .venv/.installed
	$(RUN) -m pytest --nbval $(if $(JOBS),-n $(JOBS) --dist=loadfile)

browser: book browser-only

browser-only: .venv/.installed
	$(RUN) -m pytest -m browser tests/test_pages.py

check: test browser

# slow: environments that cannot serve, mended by make
check-setup: .venv/.installed
	$(RUN) -m pytest -m slow tests/test_environment.py

lab: .venv/.lab
	$(V)/jupyter lab chapters

outputs: .venv/.installed
	$(RUN) -m pytest --nbval --nbval-update chapters

pins: .venv/.lab
	$(V)/python -m pip freeze --exclude-editable | grep -viE '^(torch|triton|nvidia|cuda)' > constraints.txt
	echo torch==2.13.0 >> constraints.txt

# Peers are wanted, not needed: one that cannot be had is listed as not installed. They lie beside the book's environment and see it.
PEERS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"])
PEER := .venv/peers/bin/python
PLACE = import sysconfig; print(sysconfig.get_path("purelib"))
.venv/.bench: .venv/.installed
	$(V)/python -m venv .venv/peers
	$(V)/python -c '$(PLACE)' > "$$($(PEER) -c '$(PLACE)')/book.pth"
	for peer in $$($(V)/python -c '$(PEERS)'); do \
		$(PEER) -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$peer" || echo "$$peer: not installed"; done
	touch $@

bench: .venv/.bench
	$(PEER) -m benchmarks
	$(PEER) -m benchmarks check

clean:
	rm -rf _build .pytest_cache .hypothesis .ruff_cache eoslib.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# all records, or with NAME=relu_mnist one of them
recorded: .venv/.installed
	for script in recorded/$(or $(NAME),*).py; do $(RUN) $$script || exit 1; done

# which changes of the library's code its tests let live (tests/mutation/library_survivors.yml says why); all modules take over an hour
mutants: .venv/.installed
	$(RUN) tests/mutation/library.py $(NAME)

# the long search of tests/test_properties.py: 500 examples of each property
properties: .venv/.installed
	$(ONE_THREAD) HYPOTHESIS_PROFILE=nightly $(V)/pytest tests/test_properties.py

# which wrong claims the chapters' checks let live (tests/mutation/chapter_survivors.yml says why); all chapters take about an hour
chapter-mutants: .venv/.installed
	$(RUN) tests/mutation/chapters.py $(NAME)
