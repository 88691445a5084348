# Every module in turn, each alone: a module must build and tidy without the
# others' dependencies.
MODULES := $(patsubst %/go.mod,%,$(sort $(shell find . -name go.mod -not -path '*/.*' -not -path '*/node_modules/*')))
APIDIFF := golang.org/x/exp/cmd/apidiff@latest
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@latest
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.PHONY: test test-unit test-stores test-examples test-e2e test-faults oldest servers lint portable fuzz \
	bench bench-memory bench-peers pictures release-check api vulncheck simulate simulate-teeth

# test runs all tests, and says which were skipped and why. The targets below run a part
# of them, as the jobs of CI do.
test: servers
	@./test.sh unit stores examples e2e faults

# test-unit needs nothing but Go.
test-unit:
	@./test.sh unit

test-stores:
	@sh ./servers.sh stores
	@./test.sh stores

test-examples:
	@sh ./servers.sh examples
	@./test.sh examples

test-e2e:
	@sh ./servers.sh e2e
	@./test.sh e2e

test-faults:
	@sh ./servers.sh faults
	@./test.sh faults

# oldest runs the tests of the root and the stores with the Go version that go.mod
# promises, in its newest release: GOTOOLCHAIN fetches it through the module proxy.
# The modules' go.mod must not ask for more, which the go command then says. Only a
# toolchain that cannot be had is skipped, by name, and fails where CI=true: CI has
# installed it.
OLDEST := go1.25.14
oldest:
	@sh ./servers.sh stores
	@if ! version=$$(GOTOOLCHAIN=$(OLDEST) go version 2>&1); then \
		echo "Skipped: tests with $(OLDEST), which cannot be had here: $$version"; [ "$$CI" != true ]; exit; \
	fi; \
	for m in $(filter . ./redisstore% ./sqlstore%,$(MODULES)); do \
		echo "== $$m with $(OLDEST)" && cd "$(CURDIR)/$$m" && GOTOOLCHAIN=$(OLDEST) go test ./... || exit 1; \
	done

# servers installs what all tests run against, where that can be done.
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

# fuzz runs every fuzz target for FUZZTIME: make fuzz FUZZTIME=10m.
FUZZTIME ?= 10s
fuzz:
	@grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "== fuzz $$file $$target" && (cd "$$(dirname "$$file")" && \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) . ) || exit 1; \
		done; \
	done

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
	@./tests/bench/run.sh

# pictures takes those of the example's page in the README again. bench-peers draws its chart.
pictures: servers
	@dir=$$(mktemp -d) && E2E_PICTURES="$$dir" go -C tests test -count=1 -run '^TestLogInAndReopen$$' ./e2e && \
	cp "$$dir/dashboard-light.png" "$$dir/dashboard-dark.png" docs/pictures/ && rm -r "$$dir"

# simulate runs the simulator (see CONTRIBUTING.md) for seeds that the tests do not run,
# on all cores: make simulate SEEDS=100000 FROM=5000000. Both may come from the environment.
SEEDS ?= 20000
FROM ?= 0
simulate:
	@go run ./internal/testing/simulate/many -from $(FROM) -seeds $(SEEDS)

# simulate-teeth puts faults into the library, which the simulator must find.
simulate-teeth:
	@go run ./internal/testing/simulate/teeth

# release-check builds the published modules as a stranger's go get would have them.
release-check:
	@go run ./internal/releasecheck

# api compares the exported names of the published modules with those of the last release.
api:
	@go run ./internal/releasecheck -api $(APIDIFF)

# vulncheck asks the Go vulnerability database about every module.
vulncheck:
	@for m in $(MODULES); do echo "== vulncheck $$m" && cd "$(CURDIR)/$$m" && go run $(GOVULNCHECK) ./... || exit 1; done
