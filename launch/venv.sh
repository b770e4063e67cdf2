# shellcheck shell=bash
# Sourced by the shell programs here: creates or reuses .venv with the given requirements.

# setup_venv REQUIREMENTS: leaves an activated .venv that has the file's packages and lco_jax.
setup_venv() {
    local requirements=$1
    local python=${PYTHON:-python3}
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "lco_jax needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1)." >&2
        echo "Name another one like this: PYTHON=python3.12 bash $0" >&2
        exit 1
    fi
    if [[ ! -x .venv/bin/python ]]; then
        echo "creating .venv"
        if ! "$python" -m venv .venv; then
            echo "'$python' cannot create virtual environments; install its venv package" >&2
            echo "(Debian, Ubuntu: apt install python3-venv), then start again." >&2
            exit 1
        fi
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
    # The stamp holds what was installed last, so that a second run installs nothing. pyproject.toml
    # counts, too: its entry points are written down when the package is installed.
    local stamp=".venv/installed-${requirements%.txt}"
    local wanted
    wanted=$(cat pyproject.toml requirements.txt "$requirements" | cksum)
    if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
        echo "installing $requirements (a few minutes the first time)"
        python -m pip install --quiet --requirement "$requirements" --editable .
        echo "$wanted" >"$stamp"
    fi
}
