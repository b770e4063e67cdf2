#!/usr/bin/env bash
# Installs lco_jax into .venv, fetches real weights, runs the two stages of the quickstart;
# arguments go to launch/train.py. Needs only Python 3.11 or newer with venv and pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh

usage="usage: bash launch/quickstart.sh [OPTIONS]

Installs lco_jax into .venv, fetches real weights (164 MB), aligns and refines a small omni model,
writes a report, and searches held-out images, recordings and texts with the new model.

  --help            show this and install nothing
  --config FILE     another config, such as configs/quickstart_text.py (texts only)
  --workdir DIR     where the run goes (default: runs/ and the name of the config)

All options go to launch/train.py, whose --help lists more of them. A second run installs and
fetches nothing; a stopped run resumes where it was. PYTHON=python3.12 chooses the interpreter.

  bash launch/quickstart.sh
  bash launch/quickstart.sh --config configs/quickstart_text.py --workdir runs/texts"

config=configs/quickstart.py
workdir=
previous=
for argument in "$@"; do
    case $previous in
        --workdir) workdir=$argument ;;
        --config) config=$argument ;;
    esac
    case $argument in
        -h | --help)
            echo "$usage"
            exit 0
            ;;
        --workdir=*) workdir=${argument#--workdir=} ;;
        --config=*) config=${argument#--config=} ;;
    esac
    previous=$argument
done
config=${config##*/}
workdir=${workdir:-runs/${config%.py}}

# Huge pages for temporaries: page faults take a tenth of a step otherwise.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1

setup_venv requirements.txt
python launch/fetch.py --omni
python launch/train.py "$@"
python -m lco_jax.cli.quickstart "$workdir"
