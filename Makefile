# Every module in turn, each alone: a module must build and tidy without the
# others' dependencies.
MODULES := $(patsubst %/go.mod,%,$(sort $(shell find . -name go.mod -not -path '*/.*')))
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@latest
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The race detector needs cgo, and so a C compiler. Modules that only use the
# others do without: their dependencies would take minutes to compile for it.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.PHONY: test oldest servers lint portable bench bench-memory bench-peers release-check vulncheck simulate simulate-teeth

# test runs all tests, and then says which could not run and why. The root's run
# twice: allocations are counted without the race detector.
test: servers
	@log=$$(mktemp) && trap 'rm -f "$$log"' EXIT && \
	go test . && \
	for m in $(MODULES); do \
		case $$m in ./bench|./examples/*) race= ;; *) race=$(RACE) ;; esac; \
		echo "== $$m" && cd "$(CURDIR)/$$m" && go mod tidy -diff && go vet ./... && \
		go test $$race -timeout 15m -v ./... 2>&1 | tee -a "$$log" | { grep -v -e '^=== ' -e '^ *--- PASS' -e '^PASS$$' || true; } || exit 1; \
	done && \
	if grep -q -e '--- SKIP' "$$log"; then echo "Skipped:" && grep -A1 -e '--- SKIP' "$$log"; else echo "Nothing was skipped."; fi

# oldest runs the tests of the root and the stores with the Go version that go.mod
# promises, in its newest release: GOTOOLCHAIN fetches it through the module proxy.
# The modules' go.mod must not ask for more, which the go command then says. Only a
# toolchain that cannot be had is skipped, by name, and fails where CI=true: CI has
# installed it.
OLDEST := go1.25.14
oldest: servers
	@if ! version=$$(GOTOOLCHAIN=$(OLDEST) go version 2>&1); then \
		echo "Skipped: tests with $(OLDEST), which cannot be had here: $$version"; [ "$$CI" != true ]; exit; \
	fi; \
	for m in $(filter . ./redisstore% ./sqlstore%,$(MODULES)); do \
		echo "== $$m with $(OLDEST)" && cd "$(CURDIR)/$$m" && GOTOOLCHAIN=$(OLDEST) go test ./... || exit 1; \
	done

# servers installs what the stores are tested against, where that can be done.
servers:
	@sh ./servers.sh

lint:
	@for m in $(MODULES); do \
		echo "== lint $$m" && cd "$(CURDIR)/$$m" && \
		unformatted=$$(gofmt -l .) && { [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; false; }; } && \
		go vet ./... && go run $(STATICCHECK) ./... || exit 1; \
	done

# portable type-checks every module and its tests for the systems that CI does not run on.
portable:
	@for os in windows darwin; do for m in $(MODULES); do \
		echo "== vet $$m for $$os" && cd "$(CURDIR)/$$m" && GOOS=$$os go vet ./... || exit 1; \
	done; done

MANY := Many|Crowd|Heap|Watched

# bench runs the hot paths ten times, interleaved, for benchstat; bench-memory
# what very many sessions cost, once.
bench:
	@bin=$$(mktemp) && go test -c -o "$$bin" . && \
	for i in 1 2 3 4 5 6 7 8 9 10; do "$$bin" -test.run '^$$' -test.bench . -test.skip "$(MANY)" -test.benchtime 0.2s | grep -e ^Benchmark -e ^cpu -e ^goos -e ^goarch -e ^pkg; done; rm -f "$$bin"

bench-memory:
	@go test -run '^$$' -bench "$(MANY)" -benchtime 1s .

# bench-peers measures the field's libraries beside this one and writes
# docs/benchmarks.md. It takes half an hour on a quiet machine.
bench-peers:
	@./bench/run.sh

# simulate runs the simulator (see CONTRIBUTING.md) for seeds that the tests do not run,
# on all cores: make simulate SEEDS=100000 FROM=5000000. Both may come from the environment.
SEEDS ?= 20000
FROM ?= 0
simulate:
	@go run ./internal/simulate/many -from $(FROM) -seeds $(SEEDS)

# simulate-teeth puts faults into the library, which the simulator must find.
simulate-teeth:
	@go run ./internal/simulate/teeth

# release-check builds the published modules as a stranger's go get would have them.
release-check:
	@go run ./internal/releasecheck v0.1.0

# vulncheck asks the Go vulnerability database about every module.
vulncheck:
	@for m in $(MODULES); do echo "== vulncheck $$m" && cd "$(CURDIR)/$$m" && go run $(GOVULNCHECK) ./... || exit 1; done
