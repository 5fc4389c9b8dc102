# Everything sets itself up: any python3 >= 3.10 will do, nothing needs to be installed by hand. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
.DEFAULT_GOAL := help

# The stamps lie within the environments, so that removing one of these makes it anew.
BASE := .venv/.stamp-base
DEMO := .venv/.stamp-demo
DEV := .venv/.stamp-dev
WHEEL := dist/.stamp-wheel
SOURCES := $(shell find failpath_otel -path failpath_otel/server/ui -prune -o -type f -not -name '*.py[co]' -print 2>/dev/null) pyproject.toml LICENSE
# Options for pytest: make test PYTEST_ARGS='-k wire'
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2

.PHONY: help
help: ## Lists the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

.PHONY: demo
demo: $(DEMO) ## Starts a server and a small shop that reports to it, and shows the runs
	@.venv/bin/failpath-otel demo

.PHONY: example-collector
example-collector: $(DEMO) collector ## Starts a server, a Collector and a service, and shows steps that came through the Collector
	@.venv/bin/python examples/collector_routing/run.py

.PHONY: example-two-services
example-two-services: .venv-neighbours/.stamp-test ## A run across an HTTP hop
	@.venv-neighbours/bin/python examples/two_services/run.py

.PHONY: example-django-shop
example-django-shop: .venv-neighbours/.stamp-test ## A Django shop under gunicorn
	@.venv-neighbours/bin/python examples/django_shop/run.py

.PHONY: example-serverless-handler
example-serverless-handler: $(DEMO) ## A function that sends what it has before it returns
	@.venv/bin/python examples/serverless_handler/run.py

.PHONY: example-celery-worker
example-celery-worker: .venv-neighbours/.stamp-test ## One run across two services and a Celery worker, by a real broker
	@tools/redis.sh
	.venv-neighbours/bin/python examples/celery_worker/run.py

.PHONY: example-mixed-traces
example-mixed-traces: $(DEMO) ## Steps inside traces that were there before, in both views
	@.venv/bin/python examples/mixed_traces/run.py

.PHONY: example-fastapi-existing-traces
example-fastapi-existing-traces: .venv-neighbours/.stamp-test ## A service with automatic traces: rules alone, then steps
	@.venv-neighbours/bin/python examples/fastapi_existing_traces/run.py

.PHONY: quick
quick: $(DEV) ## The tests that need nothing beside Python and are not slow, against the sources: a first change's companion
	@FAILPATH_TEST_PROFILE=quick .venv/bin/pytest -q -n logical -m 'not browser and not database and not slow' \
	  --ignore=tests/browser --ignore=tests/collector --ignore=tests/examples --ignore=tests/neighbours $(PYTEST_ARGS)

.PHONY: test
test: $(BASE) collector axe js-client ## Tests the built wheel: newest Python and OpenTelemetry, then the oldest of both
	@$(MAKE) --no-print-directory test-newest test-oldest test-neighbours

.PHONY: test-newest
test-newest: .venv-newest/.stamp-test
	@tools/suite.sh .venv-newest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

.PHONY: test-oldest
test-oldest: .venv-oldest/.stamp-test
	@tools/suite.sh .venv-oldest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

.PHONY: test-neighbours
test-neighbours: .venv-neighbours/.stamp-test ## Tests beside other packages (tests/neighbours) and the examples that need them
	@tools/suite.sh .venv-neighbours -n $(PYTEST_WORKERS) $(PYTEST_ARGS) tests/neighbours tests/examples \
	  'tests/test_docs.py::test_examples_run_and_print_what_the_document_shows[docs/queues.md]' \
	  tests/delivery/exporters/test_{http,otlp_http}.py::test_own_requests_are_not_traced

# What the tests of accessibility need beside a browser.
.PHONY: axe
axe:
	@tools/ui.sh --install

.PHONY: collector
collector: ## Builds the Collector that the tests use (needs Go), fetches Prometheus and Kafka (Java); what is in the cache is left
	@tools/collector.sh
	tools/prometheus.sh
	tools/kafka.sh

.PHONY: js-client
js-client: ## Installs the OpenTelemetry JS SDK that the tests use, unless it is in the cache already; needs Node
	@tools/js-client.sh

.PHONY: ui
ui: $(DEV) ## Builds the dashboard's static files from failpath_otel/server/ui; needs Node
	@tools/ui.sh

.PHONY: check
check: $(DEV) ## Lint, format, types, the arrows between modules, and that the dashboard is what its sources give
	@tools/ui.sh --check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pyright
	.venv/bin/pytest -q tests/sdk/test_typing.py
	.venv/bin/lint-imports --no-logo

.PHONY: format
format: $(DEV) ## Formats the sources and repairs what the linter can repair
	@.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

.PHONY: bench
bench: .venv-bench/.stamp-bench ## Runs the benchmarks and writes docs/performance.md's table; BENCH_QUICK=1: few rounds
	@rm -rf build/bench
	for script in benchmarks/bench_*.py; do echo "== $$script"; .venv-bench/bin/python "$$script"; done
	.venv-bench/bin/python benchmarks/table.py

.PHONY: screenshots
screenshots: $(DEV) ## Takes the README's pictures from a running demo
	@tools/chromium.sh
	.venv/bin/python docs/screenshots/take.py

.PHONY: pins
pins: $(BASE) ## Renews the pinned versions in constraints/
	@compile=".venv/bin/uv pip compile --quiet --universal --python-version 3.10 --extra demo --extra postgres --extra integrations --extra dev \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade pyproject.toml"
	$$compile --output-file constraints/newest.txt
	$$compile --extra instrumentations --constraint constraints/minimum.in --output-file constraints/minimum.txt
	apart=".venv/bin/uv pip compile --quiet --universal --python-version 3.10 --no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade pyproject.toml"
	$$apart --extra neighbours --extra neighbours-in-c --output-file constraints/neighbours.txt
	$$apart --extra docs --output-file constraints/docs.txt

.PHONY: docs
docs: .venv-docs/.stamp ## Builds the documentation's site into build/site; a warning is an error
	@# Not --quiet: --strict counts the warnings that are logged, and finds none then.
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --site-dir build/site

.PHONY: clean
clean: ## Removes everything that was made
	@rm -rf .venv .venv-newest .venv-oldest .venv-neighbours .venv-docs .venv-bench dist build test-results
	rm -rf .ruff_cache .mypy_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(BASE):
	@test -x .venv/bin/python || "$$(python3 tools/interpreters.py default)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv || echo "uv cannot be had; pip does its work"
	touch $@

$(DEMO): pyproject.toml constraints/newest.txt | $(BASE)
	@tools/install.sh .venv constraints/newest.txt --editable '.[demo]'
	touch $@

$(DEV): pyproject.toml constraints/newest.txt | $(BASE)
	@tools/install.sh .venv constraints/newest.txt --editable '.[demo,postgres,dev]'
	touch $@ $(DEMO)

$(WHEEL): $(SOURCES) README.md | $(DEV)
	@rm -rf dist
	.venv/bin/python -m hatchling build --target wheel --directory dist
	touch $@

.venv-newest/.stamp-test: $(WHEEL) constraints/newest.txt
	@tools/python314.sh
	tools/environment.sh .venv-newest newest
	tools/install.sh .venv-newest constraints/newest.txt "$$(ls dist/*.whl)[demo,postgres,integrations]"
	tools/chromium.sh
	touch $@

.venv-oldest/.stamp-test: $(WHEEL) constraints/minimum.txt
	@tools/environment.sh .venv-oldest oldest
	tools/install.sh .venv-oldest constraints/minimum.txt "$$(ls dist/*.whl)[demo,postgres,integrations,instrumentations]"
	tools/chromium.sh
	touch $@

.venv-neighbours/.stamp-test: $(WHEEL) constraints/neighbours.txt constraints/neighbours-apart.txt
	@tools/environment.sh .venv-neighbours installed
	tools/install.sh .venv-neighbours constraints/neighbours.txt "$$(ls dist/*.whl)[neighbours]"
	tools/install.sh .venv-neighbours constraints/neighbours.txt "$$(ls dist/*.whl)[neighbours-in-c]" \
	  || echo "uWSGI cannot be built: it needs a C compiler. Its tests are skipped"
	tools/install.sh .venv-neighbours constraints/neighbours-apart.txt --no-deps arq
	tools/redis.sh
	tools/kafka.sh
	touch $@

.venv-docs/.stamp: constraints/docs.txt pyproject.toml | $(BASE)
	@tools/environment.sh .venv-docs default
	tools/install.sh .venv-docs constraints/docs.txt --editable '.[docs]'
	touch $@

.venv-bench/.stamp-bench: $(WHEEL)
	@tools/environment.sh .venv-bench default
	tools/install.sh .venv-bench constraints/newest.txt "$$(ls dist/*.whl)[bench,postgres,test]"
	touch $@
