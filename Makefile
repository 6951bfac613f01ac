# Everything starts here. Needs Python 3.11 to 3.13 and make; the rest is set up by tools/bootstrap.
.DEFAULT_GOAL := help
.PHONY: help run up down status kill-processor test test-browser screenshots test-pgbouncer soak soak-tests check locks locks-check alone bench compose-up compose-down compose-test docs clean setup
BIN := .venv/bin

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@tools/bootstrap

run: setup ## start everything, send sample events (or EVENTS=file.jsonl), show them live until Ctrl-C
	@exec $(BIN)/python -m holdfast.local run $(if $(EVENTS),--events '$(EVENTS)')

up: setup ## start everything in the background; .holdfast/stack.json says where it is
	@$(BIN)/python -m holdfast.local up

down: setup ## stop what 'make up' started
	@$(BIN)/python -m holdfast.local down

status: setup ## say what runs and where
	@$(BIN)/python -m holdfast.local status

kill-processor: setup ## kill the processor as a crash would, to see its events recovered; the stack starts it again
	@$(BIN)/python -m holdfast.local kill processor

test: setup ## run every test against servers of its own (ARGS='-k name' for some)
	@$(BIN)/python -m pytest -n 3 --dist loadgroup -m 'not soak and not browser' $(ARGS)

test-browser: setup ## test the browser client and the demo page in Chromium, which has to be installed
	@.holdfast/uv/bin/uv pip install --quiet --python $(BIN)/python --require-hashes -r tests/browser/requirements.lock
	@$(BIN)/python -m pytest -m browser $(ARGS) tests/browser

screenshots: setup ## write the pictures of the operator's handbook anew, in Chromium
	@.holdfast/uv/bin/uv pip install --quiet --python $(BIN)/python --require-hashes -r tests/browser/requirements.lock
	@$(BIN)/python -m pytest -m browser --screenshots tests/browser/test_handbook.py

test-pgbouncer: setup ## run the end-to-end tests through PgBouncer in transaction mode, which has to be installed
	@$(BIN)/python -m pytest -n 3 --dist loadgroup -m 'not soak' --pgbouncer $(ARGS) tests/e2e

soak: setup ## kill everything at random under load, then check (MINUTES=10 SEED=n, or WITHOUT=fence)
	@$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(WITHOUT),--without $(WITHOUT))

soak-tests: setup ## run the tests that take long (ARGS='-k name' for some)
	@$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

check: setup ## ruff, mypy (strict), import-linter and the house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy libs services deploy examples tests bench tools
	$(BIN)/lint-imports
	$(BIN)/python -m tools.house

locks: setup ## compile the requirements.lock files (UPGRADE=1 for newer releases)
	@UV=$(CURDIR)/.holdfast/uv/bin/uv tools/lock.sh

locks-check: setup ## fail when a requirements.lock is stale
	@UV=$(CURDIR)/.holdfast/uv/bin/uv tools/lock.sh --check

MEMBERS := ingest processor maintenance ws-gateway common client local github-activity demo-shop flask-shop

alone: setup ## install each member alone, a service from its lock, and import it
	@UV=$(CURDIR)/.holdfast/uv/bin/uv tools/alone.sh $(MEMBERS)

bench: setup ## measure beside the machine's limits (PEERS=1: beside other job systems too; ARGS='--rounds 5')
	@$(BIN)/python -m bench $(if $(PEERS),--peers) $(ARGS)

docs: setup ## build the documentation site into .holdfast/docs/site, every warning an error
	@.holdfast/uv/bin/uv pip install --quiet --python $(BIN)/python --require-hashes -r docs/requirements.lock
	@$(BIN)/python -m tools.docs

compose-up: ## build the images and start the stack in containers
	docker compose up --build --detach --wait

compose-down: ## stop the containers and remove their data
	docker compose down --volumes

compose-test: setup ## check the containers end to end
	deploy/docker/check.sh

clean: ## remove the environment, the caches and the local data
	rm -rf .venv .holdfast .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
