# Every target sets up what it needs, once: the system's packages, .venv, the release build of the extension.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUST_SOURCES := $(shell find rust -path rust/loader/fuzz -prune -o \( -name "*.rs" -o -name Cargo.toml \) -print) Cargo.toml Cargo.lock

.DEFAULT_GOAL := help
.PHONY: help system demo test test-rust test-python lint format docs bench fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: $(READY) ## build the emoji shards, train, evaluate, write runs/demo/report.html (about 10 minutes on 2 cores)
	@$(BIN)/prolip demo

test: test-rust test-python ## cargo test, then pytest over both layers

test-rust: $(READY)
	cargo test --locked --package prolip-loader

test-python: $(READY)
	$(BIN)/python -m pytest

# The fuzz targets are a workspace of their own, with the versions of this one. Nothing is linked, so libFuzzer need not be compiled.
FUZZ := rust/loader/fuzz/Cargo.toml
lint: $(READY) ## formatting, clippy, ruff, mypy --strict, stubtest, import-linter; nothing is changed
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo fmt --manifest-path $(FUZZ) --check
	@cp Cargo.lock $(dir $(FUZZ))
	CUSTOM_LIBFUZZER_PATH=/not/linked/libfuzzer.a cargo clippy --manifest-path $(FUZZ) --target-dir $${CARGO_TARGET_DIR:-target} -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/python -m mypy.stubtest prolip._core
	$(BIN)/lint-imports

format: $(READY) ## rewrite Rust and Python sources in the project's format
	cargo fmt --all
	cargo fmt --manifest-path $(FUZZ)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## build docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html

PHOTOS ?= $(or $(PROLIP_SHARED),../shared)/photos
bench: $(READY) ## losses and measures beside the published ones, the loader beside others (photographs in PHOTOS=DIR), its kernels
	$(BIN)/python -m pytest -q -m bench -s tests/bench
	@test -d "$(PHOTOS)" || { echo "no folder $(PHOTOS): make bench PHOTOS=DIR" >&2; exit 1; }
	rm -rf data/bench && mkdir -p data/bench/source && cp -rs "$(abspath $(PHOTOS))" data/bench/source/photos
	$(BIN)/prolip data build folder --source data/bench/source --out data/bench/orig --samples_per_shard 250
	$(BIN)/prolip data build folder --source data/bench/source --out data/bench/side512 --samples_per_shard 250 --max_side 512
	@for set in orig side512; do for recipe in full plain; do echo "== $$set"; s="data/bench/$$set/*.tar"; \
	  $(BIN)/prolip bench data --shards "$$s" "$$s" "$$s" "$$s" --recipe $$recipe --against webdataset,hand-made || exit 1; \
	done; done
	cargo bench --locked --package prolip-loader --bench kernels

FUZZ_MINUTES ?= 10
FUZZ_TARGETS ?=
fuzz: $(READY) ## run each fuzz target for FUZZ_MINUTES=10, or those of FUZZ_TARGETS="decode archive"
	PYTHON=$(abspath $(BIN))/python rust/loader/fuzz/run.sh $(FUZZ_MINUTES) $(FUZZ_TARGETS)

clean: ## remove .venv, target and the built extension; data/ and runs/ stay
	rm -rf $(VENV) target python/prolip/_core*.so

# libjpeg-turbo is built from source with its SIMD code: that takes cmake and nasm. The tests of remote shards use nginx, those
# of the page Chromium, and skip where it is missing.
system:
	@if ! command -v cmake >/dev/null || ! command -v nasm >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq cmake nasm; \
	  else \
	    echo "prolip builds libjpeg-turbo with SIMD, which needs cmake and nasm: sudo apt-get install cmake nasm" >&2; exit 1; \
	  fi; \
	fi
	@for tool in nginx:nginx-light chromium:chromium; do \
	  if ! PATH="$$PATH:/usr/sbin" command -v $${tool%%:*} >/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $${tool##*:}; \
	    else false; fi || echo "$${tool%%:*} could not be installed, its tests will skip: sudo apt-get install $${tool##*:}" >&2; \
	  fi; \
	done

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prolip needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

# Gradio asks for a Pillow below 13, whose pixels are not those that the parity tests compare with (docs/decisions/004); it works
# with 13 as well. So everything that it asks for is installed, but that.
define GRADIO_NEEDS
from importlib.metadata import requires
print(*(need.split(";")[0].replace(" ", "") for need in requires("gradio") if "extra ==" not in need and "python_version" not in need and not need.startswith("pillow")))
endef
export GRADIO_NEEDS

# constraints.txt holds the versions that this was tested with; pyproject.toml holds the ranges that are supported.
$(READY): pyproject.toml constraints.txt $(RUST_SOURCES) | system $(VENV)/bin/python
	@echo 'Setting up once: dependencies (PyTorch is large) and the extension in release mode. A few minutes.'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt 'maturin>=1.9,<2'
	@PIP_QUIET=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --quiet --release --locked --extras demo,dev,eval,wandb,docs
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gradio
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt $$($(BIN)/python -c "$$GRADIO_NEEDS") \
	  2> >(grep -v -e "dependency resolver" -e "gradio .* requires pillow" >&2)
	@touch $@
