# Two commands set a fresh machine up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo

NUMPY1_PYTHON ?= $(shell python3.10 -c "" 2>/dev/null && echo python3.10 || echo $(PYTHON))
NUMPY1_VENV ?= .venv-numpy1
TEST_MODEL := out/test.unim2

.PHONY: install demo test test-numpy1 docs lint format type-check clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[train,openvino,tensorrt,view,fleet,ros,dev]'
	touch $@

demo: install
	$(BIN)/unim2 demo --out $(OUT)

test: install lint type-check
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --ignore test/ros
	$(BIN)/python -m pytest test/ros  # live nodes: one at a time

# NumPy 1.26, Python 3.10 where there is one, no torch: what a robot has.
test-numpy1: install
	$(NUMPY1_PYTHON) -m venv $(NUMPY1_VENV)
	$(NUMPY1_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints-numpy1.txt --editable '.[ros]' \
	    openvino pytest pytest-timeout hypothesis psutil catkin_pkg mcap-ros2-support
	$(BIN)/python test/stored_model.py $(TEST_MODEL)
	UNIM2_TEST_MODEL=$(TEST_MODEL) $(NUMPY1_VENV)/bin/python -m pytest test/sensing test/ros

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type-check: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(NUMPY1_VENV) build dist *.egg-info out
