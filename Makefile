# make run    set up and run the main job: one scope, from sound file to plots   (ARGS="+scope=flash device=cpu")
# make test   set up and pass the tests, slow ones with ARGS=--slow              (ARGS="-k gaps")
# make train  train the bundled checkpoint anew, on a GPU                    (ARGS="--recipe smoke")
# make help   the other targets
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Large traces are analysed by machine code, which is compiled here and not when a user waits for the first of
# them: with fewer kernels there are too few ranges or steps for some loops to be compiled.
LARGE = $(VENV)/large.sqlite
COMPILE_AHEAD = $(PY) -m benchmarks.big_trace $(LARGE) --kernels 310000 >/dev/null && $(PY) -m analysis $(LARGE) --no-plots >/dev/null && $(PY) -m analysis compare $(LARGE) $(LARGE) >/dev/null && rm $(LARGE)

.PHONY: run test lint doctor train evaluate readme lock gpu-check calibrate bench help

run: $(READY)
	@$(PY) -m harness $(if $(ARGS),$(ARGS),+scope=cuda_graphs)

test: lint
	@$(PY) -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(READY)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

doctor: $(READY)
	@$(PY) -m harness.doctor

# In pieces of nine minutes, each from the state that the last one saved in outputs/train: 75 says that there is more.
train: $(READY)
	@while $(PY) -m experiments.train $(ARGS); status=$$?; [ $$status -eq 75 ]; do :; done; exit $$status

evaluate: $(READY)
	@$(PY) -m experiments.evaluate $(ARGS)

# On a machine with a GPU: runs the ladder, records the short traces, refreshes results/ (see CONTRIBUTING.md).
gpu-check: $(READY)
	bash results/gpu-check.sh

# On a machine with a GPU: the gap analysis against gaps of known length and cause, into results/calibration.md.
# ARGS="--keep tests/data/h200_calibration_2025.3" also refreshes the recording that the tests read.
calibrate: $(READY)
	@$(PY) -m benchmarks.record_calibration $(ARGS)

# On a machine with a GPU: Whisper beside its peers, in one run, into results/bench.json and the README.
# ARGS="--batch 1 --only 'transformers*' cuda_graphs" is a part of it, ARGS=--resume what is missing.
bench: $(READY)
	@$(PY) -m benchmarks.peers $(ARGS); status=$$?; test ! -e results/bench.json || $(PY) -m benchmarks.peers table --update README.md; exit $$status

# The README's tables from the runs published in results/.
readme: $(READY)
	@$(PY) -m harness.results rebuild --db results/h200/results.db
	@$(PY) -m harness.results table --db results/h200/results.db --update README.md
	@test ! -e results/bench.json || $(PY) -m benchmarks.peers table --update README.md
	@test ! -e results/throughput.json || $(PY) -m benchmarks.throughput --update README.md

lock:
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet torch==2.13.0 && $(PY) -m pip install --quiet '.[dev]' && $(PY) -m pip uninstall --quiet -y gpu-gap-harness
	{ head -n 1 requirements.lock; $(PY) -m pip freeze | sed 's/+[a-z0-9]*$$//'; } > requirements.new && mv requirements.new requirements.lock
	touch $(READY)

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile; echo "make doctor  what this machine has and lacks"; echo "make lint    ruff and mypy"; echo "make evaluate  word errors, timestamps and the draft of the bundled checkpoint"; echo "make gpu-check  the whole ladder on a GPU, into results/"; echo "make calibrate  the gap analysis against known gaps, on a GPU"; echo "make bench   Whisper beside its peers, on a GPU"; echo "make readme  the README's tables from results/"; echo "make lock    write requirements.lock anew"

# The stamp is written last, so an interrupted set-up starts over.
$(READY): requirements.lock
	@echo "Setting up $(VENV) with the versions in requirements.lock (a few minutes, once) ..."
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"error: Python {v[0]}.{v[1]} found, 3.11 to 3.13 supported\n  try: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet -r requirements.lock
	@$(PY) -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "project.pth").write_text("$(CURDIR)\n")'
	@$(COMPILE_AHEAD)
	@touch $@
