# A newcomer types `make`. CI runs `make check`, nothing else.
# Two worlds: containers, where a Docker engine runs; otherwise this machine itself (`make run`).
.DEFAULT_GOAL := help
.PHONY: help run test check bench setup build up down restart logs migrations migrate shell superuser \
        seed verify clean format schema requirements venv

SHELL := /bin/sh
PY := .venv/bin/python
EMBEDDED := $(PY) -m fintech_core.embedded
COMPOSE := docker compose

# Empty, or yes.
ENGINE = $$(docker info >/dev/null 2>&1 && $(COMPOSE) version >/dev/null 2>&1 && echo yes)
CONTAINERS = $$([ "$(ENGINE)" = yes ] && $(COMPOSE) ps --services --status running 2>/dev/null \
             | grep -x web)

define need_engine
	@[ "$(ENGINE)" = yes ] || { \
	  echo "'make $@' works with containers, and no Docker engine with Compose answers here."; \
	  echo "Start the engine (or install Docker), then try again;"; \
	  echo "or use this machine itself, without containers: $(1)"; \
	  exit 1; } >&2
endef

# $(1): arguments of manage.py. In the running containers if there are any, else on this machine.
define manage
	@if [ -n "$(CONTAINERS)" ]; then \
	  exec $(COMPOSE) exec $$([ -t 0 ] || echo -T) web ./entrypoint.sh manage $(1); \
	else \
	  $(MAKE) --no-print-directory venv && exec $(EMBEDDED) manage $(1); \
	fi
endef

help: ## Show this list
	@echo "Fintech Core. 'make run' starts everything on this machine, 'make test' tests it."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: venv ## Start everything here without Docker: http://localhost:8000 (PORT=8001 for another)
	@exec $(EMBEDDED) run

test: venv ## Run the tests on real servers of their own; narrow with ARGS="-k transfer"
	@exec $(EMBEDDED) test $(ARGS)

check: venv ## Everything that CI runs: format, lint, types, imports, migrations, deployment, tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(EMBEDDED) offline $(PY) -m mypy .
	$(EMBEDDED) offline $(PY) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"
	$(EMBEDDED) private $(PY) manage.py makemigrations --check --dry-run
	$(EMBEDDED) deploy-check
	$(EMBEDDED) test $(ARGS)

bench: venv ## Measure against pgbench on durable servers; choose with ARGS="--cases A,B --rounds 3"
	@exec $(PY) -m benchmarks $(ARGS)

setup: ## First start with containers: .env with fresh secrets, build, start, superuser
	@exec ./setup.sh

build: ## Build the container image
	$(call need_engine,make run)
	$(COMPOSE) build

up: ## Start the containers and wait until they are healthy
	$(call need_engine,make run)
	$(COMPOSE) up --detach --wait

down: ## Stop the containers; the data stay
	$(call need_engine,Ctrl-C where 'make run' runs)
	$(COMPOSE) down

restart: ## Restart web, worker and beat
	$(call need_engine,Ctrl-C where 'make run' runs and start it again)
	$(COMPOSE) restart web worker beat

logs: ## Show what the services logged last; follows in a terminal
	@if [ -n "$(CONTAINERS)" ]; then \
	  exec $(COMPOSE) logs --tail 100 $$([ -t 1 ] && echo --follow); \
	else \
	  $(MAKE) --no-print-directory venv && exec $(EMBEDDED) logs; \
	fi

migrations: venv ## Write migrations for changed models
	@exec $(EMBEDDED) private $(PY) manage.py makemigrations $(ARGS)

migrate: ## Bring the database up to date
	@if [ -n "$(CONTAINERS)" ]; then \
	  exec $(COMPOSE) run --rm migrate; \
	else \
	  $(MAKE) --no-print-directory venv && exec $(EMBEDDED) manage migrate $(ARGS); \
	fi

shell: ## A Python shell with the application loaded
	$(call manage,shell $(ARGS))

superuser: ## Create another superuser; asks for email and password
	$(call manage,createsuperuser $(ARGS))

seed: ## A few demo people with money and history; harmless when repeated
	$(call manage,seed_demo $(ARGS))

verify: ## Prove the books: every entry, balance and seal
	$(call manage,verify_ledger $(ARGS))

clean: ## Remove all local data and caches (.env and .venv stay); refuses while something runs
	@if [ -x $(PY) ]; then $(EMBEDDED) clean; else rm -rf .local; fi
	@if [ "$(ENGINE)" = yes ]; then $(COMPOSE) down --volumes --remove-orphans; fi
	@rm -rf staticfiles .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache logs/*.log*
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

format: venv ## Format the code and mend what the linter can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

schema: venv ## Write docs/openapi.yaml anew from the code
	$(EMBEDDED) offline $(PY) manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

requirements: venv ## Compile requirements*.in to exact versions with hashes
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  requirements.in --output-file requirements.txt
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  requirements-dev.in --output-file requirements-dev.txt

# The virtual environment with exactly the pinned packages; does nothing when it is up to date.
venv:
	@for candidate in python3.11 python3 python3.12 python3.13 python3.14; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec "$$candidate" fintech_core/embedded/bootstrap.py; \
	  fi; \
	done; \
	echo "Python 3.11 or newer is needed, and none was found in PATH." >&2; exit 1
