# The contributor's manual: `make` alone lists what there is.
#
#   PYTHON   the interpreter that a new environment is made with   (python3)
#   VENV     where the environment lies                            (.venv)

PYTHON ?= python3
VENV ?= .venv

python := $(VENV)/bin/python
peers := .venv-peers
made := $(VENV)/pyvenv.cfg
installed := $(VENV)/.installed
installed_dev := $(VENV)/.installed-dev

.PHONY: help demo test check campaign bench teachers clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(installed) ## install, then the default study: train, evaluate, plot
	$(python) train.py
	$(python) evaluate.py
	$(python) plot.py

test: check ## everything that must hold: check, then the tests
	$(python) -m pytest -n 2 --ignore tests/test_docs.py

check: $(installed_dev) ## lint, format, types, the examples in the documentation
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -m pytest tests/test_docs.py

campaign: $(installed) ## how often intervals hold the truth: simulated studies, two hours
	OPENBLAS_NUM_THREADS=1 $(python) benchmarks/coverage.py
	OPENBLAS_NUM_THREADS=1 $(python) benchmarks/planning.py
	OPENBLAS_NUM_THREADS=1 $(python) benchmarks/design.py

bench: $(installed) $(peers)/.installed ## what benchmarks/*.md rest on: hours
	OPENBLAS_NUM_THREADS=1 $(python) benchmarks/fitting.py
	OPENBLAS_NUM_THREADS=1 $(python) benchmarks/fitting.py --busbridge
	$(python) train.py configs/tuning.yaml
	$(python) evaluate.py configs/tuning.yaml
	$(python) benchmarks/tuning.py runs/tuning/table.csv
	$(python) benchmarks/branches.py
	$(python) benchmarks/dense.py
	$(python) benchmarks/study.py lengths
	$(python) benchmarks/study.py fractions 64/2
	$(peers)/bin/python benchmarks/training.py
	$(peers)/bin/python benchmarks/training.py --shares
	$(python) benchmarks/masked.py
	$(python) train.py configs/smoke.yaml
	$(peers)/bin/python benchmarks/harness.py $$(ls -d runs/smoke/token-64x2-f1-s0-e1-*/model | head -1)

teachers: $(installed) ## train the shipped teachers again
	$(python) train.py configs/teachers.yaml
	$(python) evaluate.py configs/teachers.yaml

clean: ## remove the environment, builds and caches; runs stay
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +

# Other people's trainers and harness, for benchmarks alone. Liger asks for a GPU compiler that its
# chunked losses do not need.
$(peers)/.installed: benchmarks/requirements-peers.txt $(installed)
	$(PYTHON) -m venv $(peers)
	$(peers)/bin/python -m pip install "$$(grep '^torch==' requirements.txt)"
	$(peers)/bin/python -m pip install -r benchmarks/requirements-peers.txt
	$(peers)/bin/python -m pip install --no-deps liger-kernel==0.8.5
	@touch $@

# Says what is wrong with an interpreter, however old, or nothing.
complaint := import sys; v = sys.version_info[:3]; v < (3, 11) and sys.stdout.write( \
	"kdlaws needs Python 3.11 or newer; this is %d.%d.%d" % v)
refuse_if = $(if $(1),$(error $(1)))

$(made):
	$(call refuse_if,$(shell $(PYTHON) -c '$(complaint)'))
	$(PYTHON) -m venv $(VENV)

# On Linux the torch of pip's default source is the CUDA build, gigabytes of it. Without an NVIDIA
# driver the CPU build does, unless pip has been told where to look for packages.
cpu_index := https://download.pytorch.org/whl/cpu

$(installed): requirements.txt pyproject.toml $(made)
	@if ! command -v nvidia-smi >/dev/null \
	  && ! $(python) -m pip config list | grep -E '(index-url|find-links|no-index)=' >/dev/null; then \
	  $(python) -m pip install --index-url $(cpu_index) "$$(grep '^torch==' requirements.txt)" \
	    || echo "$(cpu_index) did not serve; going on with pip's default source" >&2; \
	fi
	$(python) -m pip install -r requirements.txt
	@touch $@

$(installed_dev): requirements-dev.txt $(installed)
	$(python) -m pip install -r requirements-dev.txt
	@touch $@
