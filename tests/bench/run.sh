#!/bin/sh
# Runs all comparisons and writes ../../docs/benchmarks.md and its chart: make bench-peers.
# Arguments go to ./peers: -n 20 -many 6 -benchtime 0.2s are its defaults.
set -eu
cd "$(dirname "$0")"
if command -v npm >/dev/null 2>&1; then
	npm ci --prefix express --ignore-scripts --no-audit --no-fund >/dev/null 2>&1 ||
		echo "express-session could not be installed: it is left out." >&2
fi
go run ./peers "$@"
exec go run ./chart
