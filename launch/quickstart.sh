#!/usr/bin/env bash
# Installs lco_jax into .venv, fetches real weights, runs the two stages of the quickstart;
# arguments go to launch/train.py. Needs only Python 3.11 or newer with venv and pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh

workdir=runs/quickstart
previous=
for argument in "$@"; do
    case $argument in
        --workdir=*) workdir=${argument#--workdir=} ;;
    esac
    if [[ $previous == --workdir ]]; then
        workdir=$argument
    fi
    previous=$argument
done

# Huge pages for temporaries: page faults take a tenth of a step otherwise.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1

setup_venv requirements.txt
python launch/fetch.py --omni
python launch/train.py "$@"
if [[ -f $workdir/report/index.html ]]; then
    echo "report: $(cd "$workdir" && pwd)/report/index.html"
fi
