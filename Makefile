# The words a newcomer types; each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
# tests in two processes: each test uses one core
TWO := --numprocesses 2 --dist worksteal
# what was compiled is kept, also for the processes that tests start
unexport PYTHONDONTWRITEBYTECODE
.PHONY: train test slow faults figures board check peers gpu docs links

train: .venv/ready
	$(BIN)/python train.py fit digits

test: .venv/ready
	$(BIN)/python -m pytest $(TWO)

slow: .venv/ready
	$(BIN)/python -m pytest $(TWO) -m "slow and not faults and not figures"

# kills, signals and full disks, for half an hour; -rP prints what was counted
faults: .venv/ready
	$(BIN)/python -m pytest $(TWO) -m faults -rP

# trainings of a minute each, for figures that the documentation states
figures: .venv/ready
	$(BIN)/python -m pytest $(TWO) -m figures

board: .venv/ready
	$(BIN)/tensorboard --logdir runs --host 127.0.0.1 --samples_per_plugin images=500

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	PYTHONPATH=.types $(BIN)/lint-imports

# the documentation's site, in build/docs; a link that leads nowhere is an error
docs: .venv/ready
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet --jobs 2 docs build/docs

# whether its links to other sites lead somewhere, which needs a network
links: .venv/ready
	$(BIN)/python -m sphinx -b linkcheck --quiet docs build/links

# on a machine with a GPU, with the packages that are there: make gpu GPU_PYTHON=python3
GPU_PYTHON ?= $(BIN)/python
gpu:
	$(GPU_PYTHON) -m pytest -m gpu tests/gpu
	$(GPU_PYTHON) -m benchmarks.gpu

peers: .venv/ready
	$(BIN)/python -m benchmarks.peers

.venv/ready: pyproject.toml constraints.txt
	@echo "setting up .venv: some minutes, and several GB for torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $@
