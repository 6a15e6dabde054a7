# Sourced by the scripts beside this folder: virtual environments that are made once and kept while nothing changed.
# shellcheck shell=bash

# Prints a Python of 3.11 or later; ends the script when there is none.
find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "trioproxy needs Python 3.11 or later, and none was found as python3 (or as \$PYTHON)." >&2
    echo "On Debian 12 and later: apt-get install python3 python3-venv" >&2
    exit 1
}

# ensure_venv FOLDER EXTRAS: a virtual environment with this project, editable, and with its extras ("" or "[test]").
# Quick when pyproject.toml, the extras and the Python are those of the last time.
ensure_venv() {
    local venv="$root/$1" extras="$2" python stamp
    python="$(find_python)"
    stamp="$("$python" -VV | tr '\n' ' ') $extras $root $(sha256sum <"$root/pyproject.toml")"
    if [[ -f "$venv/.stamp" && "$(<"$venv/.stamp")" == "$stamp" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    echo "Making $venv with $("$python" -V) …" >&2
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root$extras"
    elif "$python" -m pip --python "$python" --version >/dev/null 2>&1; then
        # Debian packs ensurepip apart (python3-venv); a pip of 22.3 or later can fill the environment from outside.
        "$python" -m venv --clear --without-pip "$venv"
        "$python" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check --editable "$root$extras"
    else
        echo "This Python can make no virtual environment. On Debian: apt-get install python3-venv" >&2
        exit 1
    fi
    # The last step: an interrupted run leaves no stamp, and the next one starts anew.
    printf '%s' "$stamp" >"$venv/.stamp"
}
