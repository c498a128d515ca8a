# PYTHON=python3.12 chooses the interpreter for .venv; without it, the first of python3, 3.13, 3.12, 3.11 that will do.
.PHONY: help setup train test test-slow
export PYTHON
# Packages are installed uncompiled: what is imported is to be compiled once, not in each process.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make train   set up, then train on the digits that scikit-learn brings; prints where the pictures are"
	@echo "make test    set up, then ruff, mypy and the tests"
	@echo "make test-slow  the tests that compile whole training runs: minutes each"
	@echo "make setup   only set up: .venv with pinned packages and FFCV (PYTHON=python3.12 chooses the interpreter)"

setup:
	@./setup.sh

train: setup
	@.venv/bin/ali-fast train --dataset digits

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pytest -n 2 --dist loadgroup

test-slow: setup
	.venv/bin/pytest -m slow
