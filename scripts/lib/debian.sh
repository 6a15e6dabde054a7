# Sourced by scripts/test: Debian's programs that tests drive.
# shellcheck shell=bash

# ensure_debian_tools FOLDER: sees that curl, openssl and promtool can be run, as far as this machine allows.
# promtool comes with a monitoring daemon that nobody asked for, so it alone is unpacked, into FOLDER.
ensure_debian_tools() {
    local tools="$root/$1" missing=()
    export PATH="$tools:$PATH"
    command -v curl >/dev/null || missing+=(curl)
    command -v openssl >/dev/null || missing+=(openssl)
    local promtool=1
    command -v promtool >/dev/null || promtool=0
    if ((${#missing[@]} == 0 && promtool)); then
        return
    fi
    if ! command -v apt-get >/dev/null || ((EUID != 0)); then
        echo "Tests that need these are skipped (install them as root): ${missing[*]:-} $( ((promtool)) || echo promtool)" >&2
        return
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    if ((${#missing[@]})); then
        apt-get install -qq --yes --no-install-recommends "${missing[@]}" </dev/null >/dev/null
    fi
    if ((!promtool)); then
        local work
        work="$(mktemp -d)"
        (cd "$work" && apt-get download -qq prometheus </dev/null >/dev/null && dpkg-deb --extract ./*.deb .)
        mkdir -p "$tools"
        mv "$work/usr/bin/promtool" "$tools/"
        rm -rf "$work"
    fi
}
