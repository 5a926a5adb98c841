# Coracle: `make help` lists what can be made. `make demo` shows what the program does, `make test` tests it.

SHELL := bash
MAKEFLAGS += --no-print-directory
# Where rustup puts cargo, for shells that were started before it was installed.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# Tests send signals, and a shell starts what runs in the background with some of them ignored.
TEST := env --default-signal cargo test
# Built by itself: composefs-oci would have everything that is built with it use another zlib.
APART := coracle-oracles-composefs

.DEFAULT_GOAL := help
.PHONY: help build dist demo test test-long fuzz-replay instructions fmt lint docs-check ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## the program: target/release/coracle
	@.ci/setup build
	cargo build --release --locked

dist: ## one static program with manual pages and completions: target/dist
	@.ci/setup dist
	@.ci/dist

demo: ## a delta between two versions of real packages; or of your own: make demo OLD=a.tar NEW=b.tar
	@demo/run

test: ## all tests but the long ones, with the replay of the fuzz corpora
	@.ci/setup test
	cargo build --package $(APART) --locked
	$(TEST) --workspace --exclude $(APART) --locked --lib --bins --tests

test-long: test ## the same, then the long ones, optimised
	$(TEST) --release --workspace --exclude $(APART) --locked --lib --bins --tests -- --ignored

fuzz-replay: ## the part of the tests that replays the fuzz corpora
	@.ci/setup test
	$(TEST) --locked --package coracle-fuzz-harness

instructions: ## counts the instructions of hot loops and compares them with bench/instructions.csv
	@.ci/setup test
	bench/instructions

fmt: ## formats the sources
	cargo fmt --all

lint: ## format, clippy, shellcheck if it is there; changes nothing
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --keep-going -- -D warnings
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run .ci/setup .ci/dist .ci/debian13 demo/packages demo/run bench/corpus bench/instructions bench/run-all; \
	else echo 'shellcheck is not installed: scripts not checked'; fi

docs-check: ## links, cited paths and sections, lengths and words; then the API documentation
	.ci/docs-check
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --keep-going

ci: ## everything that a change must pass, as the automatic check runs it
	@.ci/run

clean: ## removes all that was built or fetched here
	cargo clean
