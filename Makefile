# Every target installs what it needs, once. A set-up stage prints one line: its seconds and what it did.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
# The exact versions that the tests have passed with; pyproject.toml has the supported ranges.
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
LOGS := $(VENV)/log
RUST_SOURCES := $(shell find rust -path rust/loader/fuzz -prune -o \( -name "*.rs" -o -name Cargo.toml \) -print) Cargo.toml Cargo.lock

# Some machines set it, containers above all. Every process would then compile PyTorch's modules again when it imports them: six seconds.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help extension demo test test-all test-rust test-python test-slow lint lint-rust lint-python format docs bench bench-model bench-targets bench-loader coverage \
  fuzz gpu gpu-bundle clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: $(VENV)/.ready-demo ## build the emoji shards, train, evaluate, write runs/demo/report.html (on two cores 10 to 15 minutes with fast bf16, 24 without)
	@$(BIN)/prolip demo

test: $(VENV)/.ready-demo ## before each commit: cargo test, then pytest over both layers
	+@$(SUBMAKE) --jobs=2 test-rust $(VENV)/.ready-test
	+@$(SUBMAKE) test-python

test-all: test test-slow ## the rest too: kills, launchers, Ray, object stores, a browser, the pages' code, every benchmark small

# In release mode the crates that the extension needs are compiled once for all targets here, if they have the same features: so
# prolip-python is named, which has no tests. Our own are compiled again, with the checks of a debug build.
CRATES := prolip-jpeg prolip-image prolip-loader
CHECKED := --release $(foreach crate,$(CRATES),$(foreach check,debug-assertions overflow-checks,--config profile.release.package.$(crate).$(check)=true))
test-rust: $(VENV)/.ready-demo
	cargo test --locked $(CHECKED) $(CRATES:%=--package %) --package prolip-python --features pyo3/extension-module

# Three tests at a time for every two cores, because many wait for processes that they have started. Whoever has none left
# takes some of another's.
PYTEST_WORKERS ?= $(shell echo $$((3 * $$(getconf _NPROCESSORS_ONLN) / 2)))
PYTEST := $(BIN)/python -m pytest --numprocesses $(PYTEST_WORKERS) --maxprocesses 8 --dist worksteal
test-python: $(VENV)/.ready-test
	$(PYTEST) --ignore tests/slow --ignore tests/bench

test-slow: $(VENV)/.ready-test
	$(PYTEST) tests/slow tests/bench --ignore tests/slow/test_ray.py
	$(BIN)/python -m pytest tests/slow/test_ray.py  # alone: beside others, its two nodes start too late for their moments

lint: lint-rust lint-python ## formatting, clippy, licences of crates, ruff, mypy --strict, stubtest, import-linter; nothing is changed

# The fuzz targets are a workspace of their own, with the versions of this one. Nothing is linked, so libFuzzer need not be compiled.
FUZZ := rust/loader/fuzz/Cargo.toml
lint-rust: $(VENV)/.ready-demo
	cargo fmt --all --check
	cargo clippy --locked $(CHECKED) --workspace --all-targets --features pyo3/extension-module -- -D warnings
	cargo fmt --manifest-path $(FUZZ) --check
	@cp Cargo.lock $(dir $(FUZZ))
	@echo 'THIRD_PARTY_LICENSES.txt names the crates that are linked' && $(BIN)/python rust/licences.py | diff THIRD_PARTY_LICENSES.txt -
	CUSTOM_LIBFUZZER_PATH=/not/linked/libfuzzer.a cargo clippy $(CHECKED) --manifest-path $(FUZZ) --target-dir $${CARGO_TARGET_DIR:-target} -- -D warnings

# stubtest compares names and signatures; with all that the stub imports it would take a minute.
lint-python: $(VENV)/.ready-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/python -m mypy.stubtest prolip._core --mypy-config-file <(printf '[mypy]\nfollow_imports = skip\n')
	$(BIN)/lint-imports

format: $(VENV)/.ready-lint ## rewrite Rust and Python sources in the project's format
	cargo fmt --all
	cargo fmt --manifest-path $(FUZZ)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.ready-docs ## build docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html

bench: bench-model bench-targets bench-loader ## losses and measures beside the published ones, loader, decoder and image processors beside others and their targets (photographs in PHOTOS=DIR)

bench-model: $(VENV)/.ready-test
	$(BIN)/python -m pytest -q -m bench -s tests/bench

PHOTOS ?= $(or $(PROLIP_SHARED),../shared)/photos
bench-targets: $(VENV)/.ready-test
	$(BIN)/python -m tests.bench.targets --images "$(PHOTOS)"
	$(BIN)/python -m tests.bench.processors --images "$(PHOTOS)"

bench-loader: $(VENV)/.ready-test
	@test -d "$(PHOTOS)" || { echo "no folder $(PHOTOS): make bench PHOTOS=DIR" >&2; exit 1; }
	rm -rf data/bench && mkdir -p data/bench/source && cp -rs "$$(realpath "$(PHOTOS)")" data/bench/source/photos
	$(BIN)/prolip data build folder --images data/bench/source --out data/bench/orig --samples_per_shard 250
	$(BIN)/prolip data build folder --images data/bench/source --out data/bench/side512 --samples_per_shard 250 --max_side 512
	@for set in orig side512; do for recipe in full plain; do echo "== $$set"; s="data/bench/$$set/*.tar"; \
	  $(BIN)/prolip bench data --shards "$$s" "$$s" "$$s" "$$s" --recipe $$recipe --against webdataset || exit 1; \
	done; done
	@for native in 196 256 1024 "128 256 576 784 1024"; do s="data/bench/orig/*.tar"; echo "== native $$native"; \
	  $(BIN)/prolip bench data --shards "$$s" "$$s" "$$s" "$$s" --native $$native --against webdataset || exit 1; \
	done

coverage: $(VENV)/.ready-test ## lines that the tests run, of both layers, in coverage/ (needs cargo-llvm-cov)
	mkdir -p coverage
	$(BIN)/python -m pytest --cov=prolip --cov-report=html:coverage/python
	cargo llvm-cov --locked $(CRATES:%=--package %) --html --output-dir coverage/rust
	@{ echo '## Python'; $(BIN)/python -m coverage report --format=markdown; \
	  echo '## Rust'; echo '```'; cargo llvm-cov report --locked $(CRATES:%=--package %) --summary-only; echo '```'; } > coverage/summary.md

FUZZ_MINUTES ?= 10
FUZZ_TARGETS ?=
fuzz: $(VENV)/.ready-demo ## run each fuzz target for FUZZ_MINUTES=10, or those of FUZZ_TARGETS="decode archive"
	PYTHON="$(CURDIR)/$(BIN)/python" rust/loader/fuzz/run.sh $(FUZZ_MINUTES) $(FUZZ_TARGETS)

# The machine with the GPU has no network and no Rust, but a Python with torch. It gets the working tree with this folder in it.
GPU_BUNDLE := gpu-bundle
gpu-bundle: $(VENV)/.ready-demo ## fill gpu-bundle/ with the wheels that `make gpu` needs on another machine (CPython 3.12, Linux, x86-64)
	rm -rf $(GPU_BUNDLE)
	env -u MAKEFLAGS $(BIN)/maturin build --quiet --release --locked --interpreter $(BIN)/python --out $(GPU_BUNDLE)
	git describe --always --dirty > $(GPU_BUNDLE)/COMMIT
	$(BIN)/python -m tests.gpu.bundle $(GPU_BUNDLE)

OUT ?= runs/gpu
GPU_FLAGS ?=
gpu: ## check and measure on a GPU, in nine minutes: OUT=runs/gpu gets gpu.md and gpu.json; PYTHON=python3 has torch
	$(PYTHON) -m tests.gpu $(if $(wildcard $(GPU_BUNDLE)/*.whl),--bundle $(GPU_BUNDLE)) --out "$(OUT)" $(GPU_FLAGS)

extension: $(VENV)/.ready-demo ## rebuild the extension after a change in rust/

clean: ## remove .venv, target and the built extension; data/ and runs/ stay
	rm -rf $(VENV) target coverage python/prolip/_core*.so

# --- Set-up -------------------------------------------------------------------------------------------------------------------

# $(call stage,LOG,WHAT IT DOES,COMMAND): runs a command silently. On failure it shows the end of the log.
define stage
@mkdir -p $(LOGS); started=$$SECONDS; \
if ( $(3) ) > $(LOGS)/$(1).log 2>&1 < /dev/null; then printf '%4d s  %s\n' $$((SECONDS - started)) '$(2)'; \
else echo 'failed: $(2). The end of $(LOGS)/$(1).log:' >&2; tail -n 30 $(LOGS)/$(1).log >&2; exit 1; fi
endef

# $(call missing,COMMAND:PACKAGE ...): the Debian packages whose command is not installed.
missing = $(shell for tool in $(1); do PATH="$$PATH:/usr/sbin" command -v $${tool%%:*} > /dev/null || echo $${tool##*:}; done)
CAN_INSTALL := $(shell [ "$$(id -u)" = 0 ] && command -v apt-get)
APT_INSTALL := apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends

OLDEST_RUST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# libjpeg-turbo is compiled with its SIMD code, which on x86-64 is written for nasm.
BUILD_TOOLS := cmake:cmake $(if $(filter x86_64,$(shell uname -m)),nasm:nasm)
# The tests of remote shards use nginx, those of the page Chromium. They skip without.
TEST_TOOLS := nginx:nginx-light chromium:chromium chromium:fonts-liberation

define NEEDS
import sys, tomllib
pyproject = tomllib.load(open("pyproject.toml", "rb"))
parts = {"build": pyproject["build-system"]["requires"], "project": pyproject["project"]["dependencies"]}
parts |= pyproject["project"]["optional-dependencies"]
print(*(need for part in sys.argv[1:] for need in parts[part]), sep="\n")
endef
# Gradio asks for a Pillow below 13, whose pixels are not those that the parity tests compare with (docs/decisions/004). It works
# with 13 too, so all that it asks for is installed but that.
define GRADIO_NEEDS
from importlib.metadata import requires
needs = [need.split(";")[0] for need in requires("gradio") if "extra ==" not in need and "python_version" not in need]
print(*(need for need in needs if not need.startswith("pillow")), sep="\n")
endef
export NEEDS GRADIO_NEEDS
# Modules are compiled when they are first imported: most of these packages' never are.
PIP := $(BIN)/python -m pip install --quiet --no-input --no-compile --disable-pip-version-check --constraint $(CONSTRAINTS)
# $(call pip,PART ...): installs the dependencies of the package (`project`), its build, or its extras.
pip = $(BIN)/python -c "$$NEEDS" $(1) | $(PIP) --requirement /dev/stdin
pip_gradio = $(BIN)/python -c "$$NEEDS" explore | $(PIP) --no-deps --requirement /dev/stdin && $(BIN)/python -c "$$GRADIO_NEEDS" | $(PIP) --requirement /dev/stdin
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prolip needs Python 3.11 or newer")'
MATURIN := env -u MAKEFLAGS VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --quiet --release --locked
SUBMAKE := $(MAKE) --silent --no-print-directory

# $(call beside_extension,TARGET): packages are downloaded while the extension is compiled.
define beside_extension
@[ -e $(VENV)/.maturin ] || echo 'Setting up once, four to seven minutes on two cores. Seconds of each stage:'
+@$(SUBMAKE) --jobs=2 $(1) $(VENV)/.extension
endef

$(VENV)/.ready-demo: pyproject.toml $(CONSTRAINTS) $(RUST_SOURCES)
	$(call beside_extension,$(VENV)/.packages)
	$(call stage,prolip,the package prolip itself,$(MATURIN))
	@touch $@

$(VENV)/.ready-test $(VENV)/.ready-lint $(VENV)/.ready-docs: $(VENV)/.ready-%: $(VENV)/.ready-demo
	+@$(SUBMAKE) $(VENV)/.packages-$* $(if $(filter test,$*),test-tools)
	@touch $@

.PHONY: set-up all-packages
set-up: ## install what all targets here need
	$(call beside_extension,all-packages)
	+@$(SUBMAKE) $(VENV)/.ready-test $(VENV)/.ready-lint $(VENV)/.ready-docs

# One after another: pip cannot install twice at a time.
all-packages: $(VENV)/.maturin
	+@for part in test lint docs; do $(SUBMAKE) $(VENV)/.packages-$$part || exit 1; done

$(VENV)/.maturin: pyproject.toml $(CONSTRAINTS)
	$(call stage,maturin,a Python environment in $(VENV) with maturin,$(CHECK_PYTHON) && $(PYTHON) -m venv $(VENV) && $(call pip,build))
	@touch $@

$(VENV)/.packages: $(VENV)/.maturin
	$(call stage,packages,Python packages for the demo (PyTorch is large),$(call pip,project demo))
	@touch $@

$(VENV)/.packages-test: $(VENV)/.packages
	$(call stage,packages-test,Python packages for the tests,$(call pip,eval onnx open_clip ray tensorboard wandb test) && $(pip_gradio))
	@touch $@

$(VENV)/.packages-lint: $(VENV)/.packages
	$(call stage,packages-lint,Python packages for the lints,$(call pip,lint))
	@touch $@

$(VENV)/.packages-docs: $(VENV)/.packages
	$(call stage,packages-docs,Python packages for the documentation,$(call pip,docs))
	@touch $@

# Without MAKEFLAGS, because cargo takes the job slots that they name.
$(VENV)/.extension: $(RUST_SOURCES) | $(VENV)/.maturin build-tools
	$(call stage,extension,the Rust extension in release mode,$(MATURIN) --skip-install)
	@touch $@

.PHONY: build-tools test-tools
build-tools: packages = $(call missing,$(BUILD_TOOLS))
build-tools:
	@command -v cargo > /dev/null || { echo 'prolip needs Rust: no cargo on the PATH' >&2; exit 1; }
	@found=$$(cargo --version | cut -d' ' -f2); printf '%s\n' $(OLDEST_RUST) "$$found" | sort -VC || \
	  { echo "prolip needs Rust $(OLDEST_RUST) or newer, and cargo is $$found" >&2; exit 1; }
	$(if $(packages),$(if $(CAN_INSTALL),$(call stage,build-tools,Debian packages that compile libjpeg-turbo: $(packages),$(APT_INSTALL) $(packages)), \
	  @echo 'libjpeg-turbo is compiled from source: sudo apt-get install $(packages)' >&2; exit 1))

test-tools: packages = $(call missing,$(TEST_TOOLS))
test-tools:
	@:
	$(if $(packages),$(if $(CAN_INSTALL),-$(call stage,test-tools,Debian packages for the tests (some skip without): $(packages),$(APT_INSTALL) $(packages)), \
	  @echo 'some tests will skip: sudo apt-get install $(packages)' >&2))
