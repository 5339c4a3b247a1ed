# make demo    sets everything up on a fresh Debian 12 and runs the main job
# make check   sets up, builds, runs all tests
# make bench   measures against the peers
# make fuzz    fuzzes the readers of foreign input, FUZZ_SECONDS each
#
# BUILD=folder   LLVM=19..22   JOBS=n   CMAKE_ARGS=...
BUILD ?= build
LLVM ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60
CMAKE_ARGS ?=

export JOBS
export TENON_BUILD = $(abspath $(BUILD))
export TENON_SOURCE = $(CURDIR)
export STEP_LOGS = $(abspath $(BUILD))/logs
SHELL = /bin/bash
.SHELLFLAGS = -u -c
STEP = . tests/step.sh; step
.PHONY: all setup build check demo bench fuzz clean
all: build

setup:
	@bash tests/setup.sh

build: setup
	@$(STEP) "configure" cmake -G Ninja -S . -B $(BUILD) $(if $(LLVM),-DTENON_LLVM=$(LLVM)) $(CMAKE_ARGS)
	@$(STEP) "build" ninja -C $(BUILD) -j $(JOBS)

check: build
	@bash tests/run_all.sh $(BUILD)

demo: build
	@if [ -e frontend/examples/demo.sh ]; then bash frontend/examples/demo.sh; \
	else echo "there is no demo yet: frontend/examples/demo.sh"; exit 1; fi

bench: build
	@if [ -e bench/run ]; then bash bench/run; \
	else echo "there is no benchmark yet: bench/run"; exit 1; fi

fuzz:
	@bash tests/setup.sh --fuzz
	@bash tests/fuzz.sh $(BUILD)-fuzz $(FUZZ_SECONDS)

clean:
	@rm -rf $(BUILD) $(BUILD)-fuzz
