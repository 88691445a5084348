#!/bin/sh
# Installs what groups of tests run against, where that can be done: with apt-get, as root.
# Elsewhere it says what is missing, and the tests that need it are skipped by name.
#
#	sh ./servers.sh [stores] [examples] [e2e] [faults]
#
# Without a group it installs what all of them need.
set -eu
PATH=$PATH:/usr/sbin:/sbin
for d in /usr/lib/postgresql/*/bin /usr/lib/*/webkit2gtk-*; do PATH=$PATH:$d; done
missing=
need() {
	case " $missing " in *" $2 "*) return ;; esac
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
[ $# -gt 0 ] || set -- stores examples e2e faults
for group in "$@"; do
	need redis-server redis-server
	need postgres postgresql
	case $group in stores | examples | e2e)
		need node nodejs
		need npm npm
		;;
	esac
	case $group in stores)
		need pgbouncer pgbouncer
		need mariadbd mariadb-server
		;;
	esac
	case $group in e2e)
		need chromium chromium
		need nginx nginx
		need firefox-esr firefox-esr
		need WebKitWebDriver webkit2gtk-driver
		need MiniBrowser webkit2gtk-driver # which brings it
		need Xvfb xvfb
		;;
	esac
done
[ -z "$missing" ] && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
	echo "Installing:$missing"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# Nothing is to run: the tests start their own private servers. What one
	# distribution does not have keeps nobody from the rest.
	export RUNLEVEL=1
	apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
		for package in $missing; do
			apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
				echo "Could not be installed: $package. Tests that need it are skipped."
		done
else
	echo "Missing:$missing. Tests that need them are skipped."
fi
