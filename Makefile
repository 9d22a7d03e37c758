# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

$(INSTALLED): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: install demo check test chaos bench clean cluster cluster-stop

install: $(INSTALLED)

# The report's 18 runs at demo size: rendered music, 64 x 64 log-mels, fewer epochs.
demo: $(INSTALLED)
	$(PYTHON) -m irmas.train sweep=report data=standin features=small epochs=5 name=demo hydra/launcher=local

check: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

test: check
	$(PYTHON) -m pytest -n 2 --ignore=tests/cluster
	$(PYTHON) -m pytest -n 2 --maxschedchunk=1 tests/cluster

# Random faults on a running sweep, on a Slurm of its own: docs/localcluster.md.
MINUTES := 60
SEED := 1
chaos: $(INSTALLED)
	PYTHONPATH=$(CURDIR):tests $(PYTHON) -m cluster.chaos --minutes $(MINUTES) --seed $(SEED)

# Side by side with others' tools, which have an environment of their own: benchmarks/README.md.
PEERS := benchmarks/.venv
BENCH :=
ROUNDS :=
$(PEERS)/.installed: benchmarks/requirements.txt constraints.txt $(INSTALLED)
	python3 -m venv $(PEERS)
	site() { $$1/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
	  echo "import site; site.addsitedir('$$(site $(VENV))')" > "$$(site $(PEERS))/project.pth"
	$(PEERS)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -r benchmarks/requirements.txt
	touch $@

bench: $(PEERS)/.installed
	PYTHONPATH=$(CURDIR):tests $(PYTHON) benchmarks/bench.py $(ROUNDS:%=--rounds %) $(BENCH)

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A real Slurm on this machine: docs/localcluster.md.
cluster:
	slurm/localcluster/up --install

cluster-stop:
	slurm/localcluster/down
