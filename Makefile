# demo · test · check · bench: CI calls the same targets.
.PHONY: env demo test check bench clean
PY := .venv/bin/python
export HF_HUB_OFFLINE := 1
export DO_NOT_TRACK := 1

env:            ## Create .venv from the lock: CPU or GPU wheels by what the machine has.
	@bash scripts/make_env.sh

demo: env       ## Airflow + Ray on this machine; one climbing step to a promoted generation.
	@$(PY) -m flywheel_core.cli demo

test: env       ## Everything, on two cores.
	@$(PY) -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder tests

check: env      ## Style, types, who may import whom, every recipe and policy parses.
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) -m flywheel_core.cli doctor --recipes

bench: env      ## Measure; ONLY=climb picks a group. Writes bench.json and a table.
	@$(PY) -m tests.bench $(if $(ONLY),--only $(ONLY))
