#!/usr/bin/env bash
# Installs the peers of the report, each by its name from its registry, into bench/.peers or into $ETWSIEVE_BENCH_PEERS,
# which the report reads too. Changes nothing outside of that folder. Reports and skips peers that are not available, which
# are then missing in the report.
#
#   Vectorscan, Hyperscan    Debian's packages, unpacked side by side (both call their library libhs.so.5)
#   rsigma                   crates.io
#   dissect.etl, etl-parser  PyPI
set -uo pipefail
cd "$(dirname "$0")"
peers=$(realpath -m "${ETWSIEVE_BENCH_PEERS:-.peers}")
# The newest one that Rust 1.95 builds.
RSIGMA=0.23.0
mkdir -p "$peers"

left_out() { printf 'left out: %s: %s\n' "$1" "$2" >&2; }

debian_library() {
    local name=$1 package=$2 scratch library
    [ -e "$peers/$name/libhs.so.5" ] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || { left_out "$name" "not a Debian system"; return; }
    scratch=$(mktemp -d)
    if (cd "$scratch" && apt-get download -qq "$package" && dpkg -x "$package"_*.deb unpacked); then
        library=$(find "$scratch/unpacked" -name 'libhs.so.5.*' -type f | head -n 1)
        mkdir -p "$peers/$name"
        cp "$library" "$peers/$name/libhs.so.5"
    else
        left_out "$name" "package $package cannot be downloaded (apt-get update?)"
    fi
    rm -rf "$scratch"
}

debian_library vectorscan libvectorscan5
debian_library hyperscan libhyperscan5

if [ ! -x "$peers/bin/rsigma" ]; then
    cargo install --quiet --locked "rsigma@$RSIGMA" --root "$peers" ||
        left_out rsigma "does not build"
fi

if [ ! -x "$peers/python/bin/python" ]; then
    python3 -m venv "$peers/python" || left_out "Python readers" "no python3 with venv"
fi
if [ -x "$peers/python/bin/python" ]; then
    for package in dissect.etl etl-parser; do
        "$peers/python/bin/pip" install --quiet --disable-pip-version-check "$package" ||
            left_out "$package" "pip cannot install it"
    done
fi
ls "$peers"
