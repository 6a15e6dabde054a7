# Sourced by scripts/test: Debian's programs that tests drive.
# shellcheck shell=bash

# ensure_debian_tools FOLDER: sees that the programs below can be run, as far as this machine allows.
# promtool comes with a monitoring daemon that nobody asked for, so it alone is unpacked, into FOLDER.
ensure_debian_tools() {
    local tools="$root/$1" missing=()
    export PATH="$tools:$PATH"
    command -v curl >/dev/null || missing+=(curl)
    command -v openssl >/dev/null || missing+=(openssl)
    [[ -x /usr/sbin/nginx ]] || missing+=(nginx-light)
    [[ -x /usr/sbin/haproxy ]] || missing+=(haproxy)
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
        install_without_starting "${missing[@]}"
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

# install_without_starting PACKAGE…: Debian starts a server when it is installed; tests start theirs by themselves.
install_without_starting() {
    local policy=/usr/sbin/policy-rc.d made=0 status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=1
    fi
    apt-get install -qq --yes --no-install-recommends "$@" </dev/null >/dev/null || status=$?
    if ((made)); then
        rm -f "$policy"
    fi
    return "$status"
}
