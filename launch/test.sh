#!/usr/bin/env bash
# Installs lco_jax with its test requirements into .venv, then checks style and runs the tests;
# arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh

setup_venv requirements-dev.txt
ruff check
ruff format --check
# Tests of a file share what they are made with: it is made by one worker only.
python -m pytest -n 2 --dist loadfile "$@"
