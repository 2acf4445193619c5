# make book · make test · make lab · make check · make outputs · make bench · make recorded [NAME=...] · make chapter-mutants [NAME=...] · make mutants [NAME=...] · make properties · make pins · make clean; each sets up .venv by itself.
PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
V := .venv/bin
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
.DEFAULT_GOAL := help
.PHONY: help book test lab check browser browser-only bench outputs recorded chapter-mutants mutants properties pins clean

help:
	@sed -n 1p Makefile

# torch goes first and alone: the index of CPU builds is tried, and pip's ordinary index serves where it is out of reach.
.venv/.installed: pyproject.toml constraints.txt
	test -x $(V)/python || $(PYTHON) -m venv .venv
	$(V)/python -c "import sys; assert sys.version_info >= (3, 11), 'Python 3.11 or later is needed'"
	$(V)/pip install --quiet --disable-pip-version-check --retries 1 --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0
	$(V)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,test]"
	touch $@

.venv/.lab: .venv/.installed
	$(V)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab]"
	mkdir -p .venv/share/jupyter/lab/settings
	printf '%s\n' '{"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"}}}' \
		> .venv/share/jupyter/lab/settings/overrides.json
	touch $@

# --all: after a failed strict build Sphinx would otherwise call the unchanged broken pages a success.
book: .venv/.installed
	$(ONE_THREAD) $(V)/jupyter-book build --all -W -n --keep-going .

test: .venv/.installed
	$(ONE_THREAD) $(V)/pytest --nbval

browser: book browser-only

browser-only: .venv/.installed
	$(V)/pytest -m browser tests/test_pages.py

check: test browser

lab: .venv/.lab
	$(V)/jupyter lab chapters

outputs: .venv/.installed
	$(ONE_THREAD) $(V)/pytest --nbval --nbval-update chapters

pins: .venv/.lab
	$(V)/pip freeze --exclude-editable | grep -viE '^(torch|triton|nvidia|cuda)' > constraints.txt
	echo torch==2.13.0 >> constraints.txt

# peers are wanted, not needed: a package that cannot be had is listed as not installed
PEERS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"])
.venv/.bench: .venv/.installed
	for peer in $$($(V)/python -c '$(PEERS)'); do \
		$(V)/pip install --quiet --disable-pip-version-check -c constraints.txt "$$peer" || echo "$$peer: not installed"; done
	touch $@

bench: .venv/.bench
	$(V)/python -m benchmarks
	$(V)/python -m benchmarks check

clean:
	rm -rf _build .pytest_cache .hypothesis .ruff_cache eoslib.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# all records, or with NAME=relu_mnist one of them
recorded: .venv/.installed
	for script in recorded/$(or $(NAME),*).py; do $(ONE_THREAD) $(V)/python $$script || exit 1; done

# which changes of the library's code its tests let live (tests/mutation/library_survivors.yml says why); all modules take over an hour
mutants: .venv/.installed
	$(ONE_THREAD) $(V)/python tests/mutation/library.py $(NAME)

# the long search of tests/test_properties.py: 500 examples of each property
properties: .venv/.installed
	$(ONE_THREAD) HYPOTHESIS_PROFILE=nightly $(V)/pytest tests/test_properties.py

# which wrong claims the chapters' checks let live (tests/mutation/chapter_survivors.yml says why); all chapters take about an hour
chapter-mutants: .venv/.installed
	$(ONE_THREAD) $(V)/python tests/mutation/chapters.py $(NAME)
