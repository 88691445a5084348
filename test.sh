#!/usr/bin/env bash
# Runs groups of tests, and says at the end which tests were skipped and why:
#
#	./test.sh unit stores examples e2e faults
#
# Each module is tested alone: it must build and be tidy without the others' dependencies.
set -euo pipefail
cd "$(dirname "$0")"
root=$PWD
# The race detector needs cgo, and so a C compiler.
race=
[ "$(go env CGO_ENABLED)" = 0 ] || race=-race

# run tests packages of a module: run FOLDER FLAGS PACKAGES…
run() {
	echo "== $1 ${*:3}"
	cd "$root/$1"
	go mod tidy -diff
	go vet "${@:3}"
	go test $2 -shuffle=on -timeout 15m -v "${@:3}" 2>&1 | tee -a "$log" |
		{ grep -v -e '^=== ' -e '^ *--- PASS' -e '^PASS$' || true; }
}

# Allocations are counted without the race detector.
unit() {
	[ -z "$race" ] || go test . ./internal/device ./internal/token
	run . "$race" ./...
}

# stores are all modules but the root and those of the groups below. Two run at a time,
# because they mostly wait for their servers.
stores() {
	local folders
	folders=$(find . -name go.mod -not -path '*/.*' -not -path '*/node_modules/*' | sort |
		grep -v -x -e ./go.mod -e ./examples/integrations/go.mod -e ./tests/go.mod)
	xargs -n 1 -P 2 env log="$log" ./test.sh <<<"$folders"
}

# store runs the tests of one of these modules, and prints their output in one piece.
store() {
	local output status
	output=$(mktemp)
	set +e # and not ||, in which no command of run would end it
	(
		set -e
		run "${1%/go.mod}" "$race" ./...
	) >"$output" 2>&1
	status=$?
	cat "$output"
	rm -f "$output"
	return $status
}

# The frameworks and the libraries in the benchmarks would take minutes to compile for the
# race detector, and nothing here tests them.
examples() {
	run examples/integrations "" ./...
	run tests "" ./bench/...
}

e2e() { run tests "$race" ./e2e; }

faults() { run tests "$race" ./faults; }

case ${1-} in */go.mod)
	store "$1"
	exit
	;;
esac
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for group in "$@"; do
	(cd "$root" && "$group")
done
if grep -q -e '--- SKIP' "$log"; then
	echo "Skipped:"
	grep -A1 -e '--- SKIP' "$log"
else
	echo "Nothing was skipped."
fi
