# Two commands set a fresh machine up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo

.PHONY: install demo test lint format type-check clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[train,openvino,tensorrt,view,ros,dev]'
	touch $@

demo: install
	$(BIN)/unim2 demo --out $(OUT)

test: install lint type-check
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --ignore test/ros
	$(BIN)/python -m pytest test/ros  # live nodes: one at a time

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type-check: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info out
