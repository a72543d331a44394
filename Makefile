# The two commands a newcomer needs are `make run` and `make test`; nothing but Python 3.11 or later is expected.

# What a request costs is mostly the interpreter's speed, and builds of one version differ by a third (profile-guided
# optimisation or none). Of the Pythons here that can make an environment, the fastest is taken: the first `python3`
# unless another needs less than 85 % of its time. PYTHON=… chooses another.
PYTHON ?= $(or $(FASTEST),python3)
# Found once, and only when it is asked for.
FASTEST = $(eval FASTEST := $$(shell $$(FIND_FASTEST)))$(FASTEST)
FIND_FASTEST = for python in python3 /usr/bin/python3 /usr/local/bin/python3; do \
  command -v $$python >/dev/null && $$python -c '$(TIMING)' $$python; done 2>/dev/null | sort -n | head -1 | cut -d' ' -f2
TIMING := import ensurepip, sys, time, venv; sys.exit(1) if sys.version_info < (3, 11) else None; \
  work = "d = {}\nfor i in range(30000): d[i & 255] = (i, str(i & 15))"; code = compile(work, "", "exec"); \
  clock = lambda: (time.process_time(), exec(code), time.process_time()); \
  times = [ended - begun for begun, _, ended in (clock() for _ in range(15))]; \
  print(round(min(times) * 1e9 * (0.85 if sys.argv[1] == "python3" else 1)), sys.argv[1])
VENV := .venv
BIN := $(VENV)/bin
ENVIRONMENT := $(BIN)/python $(BIN)/pip
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed
TEST_PROCESSES ?= 2
PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run compiled test test-slow test-compiled test-fast check lock clean

help:
	@echo "make run        start Pointsman: database, gateway, console, workers (Ctrl-C stops all)"
	@echo "                without compiling first: make run POINTSMAN_COMPILED=0"
	@echo "make test       run the tests: all but the slow and the nightly ones"
	@echo "make test-slow  run the slow ones: crashes, whole installations, load"
	@echo "make test-compiled  the tests of the hot path, against its compiled form"
	@echo "make test-fast  run the tests without a browser"
	@echo "make check      ruff, mypy, import contracts, migrations, templates, openapi.yaml"
	@echo "make lock       renew both lock files"
	@echo "make clean      remove caches and the virtual environment (never the data)"

run: $(RUNTIME) compiled
	@exec $(BIN)/python manage.py up

# The hot path as machine code where there is a C compiler, as Python elsewhere (gateway/compiling.py).
compiled: | $(RUNTIME)
	@$(BIN)/python -m gateway.compiling

test: $(DEVELOPMENT)
	$(PYTEST) -m "not nightly and not slow"

# Crash tests, whole installations, load: minutes that nobody should wait for before each commit. .ci/run does.
test-slow: $(DEVELOPMENT)
	$(PYTEST) -m "slow and not nightly"

test-compiled: $(DEVELOPMENT)
	$(BIN)/python -m gateway.compiling --strict
	TESTS_COMPILED=1 $(PYTEST) -m "not nightly and not slow and not browser" tests/gateway/dataplane tests/gateway/wire \
	  tests/policies tests/billing/test_rating.py tests/billing/test_rating_oracle.py

test-fast: $(DEVELOPMENT)
	$(PYTEST) -m "not nightly and not slow and not browser"

check: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# Without its cache: several mypy at a time can spoil it, and then it finds errors that are not there.
	$(BIN)/mypy --cache-dir=/dev/null
	$(BIN)/lint-imports
	git ls-files --cached --others --exclude-standard 'templates/*.html' | xargs --no-run-if-empty $(BIN)/djade --check --target-version 5.2
	@# Writing it anew: `manage.py spectacular --file gateway/openapi.yaml`.
	@folder=$$(mktemp -d); POINTSMAN_DATA_DIR=$$folder $(BIN)/python manage.py spectacular \
	  --file $$folder/openapi.yaml --validate --fail-on-warn && diff -u gateway/openapi.yaml $$folder/openapi.yaml \
	  || { rm -rf $$folder; echo "gateway/openapi.yaml is not what the code says" >&2; exit 1; }; rm -rf $$folder
	@# Needs no database: where none answers, Django compares the models with the migration files alone.
	@folder=$$(mktemp -d); POINTSMAN_DATA_DIR=$$folder $(BIN)/python -W ignore::RuntimeWarning \
	  manage.py makemigrations --check --dry-run; status=$$?; rm -rf $$folder; exit $$status

# pip comes last into a new environment: one that was broken off, or made without python3-venv, is made anew.
$(ENVIRONMENT):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Pointsman needs Python 3.11 or later, and \`$(PYTHON)\` is not. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(ALONE) 'test -e $(BIN)/pip && test -e $(BIN)/python && exit 0; \
	  echo "making $(VENV) with $(PYTHON) ($$($(PYTHON) --version))"; $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "Python'"'"'s venv module is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }'

$(RUNTIME): requirements.lock | $(ENVIRONMENT)
	$(call install,requirements.lock,$@)

$(DEVELOPMENT): requirements-dev.lock | $(ENVIRONMENT)
	$(call install,requirements-dev.lock,$@)
	@# The development lock holds the runtime's packages too.
	@sha256sum requirements.lock > $(RUNTIME)

# A hash of the lock file, not its date, decides: a fresh clone or a switched branch installs exactly what it needs.
define install
	@$(ALONE) 'sha256sum --check --status $(2) 2>/dev/null && exit 0; echo "installing $(1) …"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(1) || { \
	  echo "The packages could not be installed; pip says why above. It needs to reach a package index: its settings" \
	    "(pip config list, PIP_INDEX_URL, HTTPS_PROXY) count here. The next make goes on from here." >&2; exit 1; }'
	@sha256sum $(1) > $(2)
endef

# Two makes at once, in two terminals, do not install into one environment at a time: the second waits, and finds it done.
ALONE = $(PYTHON) -c 'import fcntl, os, sys; lock = os.open("Makefile", os.O_RDONLY); \
  os.set_inheritable(lock, True); fcntl.flock(lock, fcntl.LOCK_EX); os.execvp("sh", ["sh", "-c", sys.argv[1]])'

UV = $(shell command -v uv || echo $(BIN)/uv)
COMPILE = $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-emit-find-links

lock:
	@$(UV) --version >/dev/null 2>&1 || { echo "make lock needs uv: $(BIN)/pip install uv" >&2; exit 1; }
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --group dev --output-file requirements-dev.lock
	@if grep -nE '(https?|file)://|--(extra-)?index-url|--find-links| @ ' requirements.lock requirements-dev.lock; then \
	  echo "a lock file names a registry or a path" >&2; exit 1; fi

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
