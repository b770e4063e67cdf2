"""The files that start a training job on TPU slices, from one description of it."""

import re
import shlex
from dataclasses import dataclass
from typing import Literal

import yaml

from lco_jax.jobs.slices import Slice, find_slice

Kind = Literal["queued-resource", "jobset", "xpk", "skypilot"]

_REPOSITORY_FOLDER = "lco_jax"


@dataclass(frozen=True)
class Job:
    """A training run on one or several slices."""

    topology: str
    """Generation and chips along each axis: `v5e:16x16`, `v5p:4x4x4`, `v6e:8x8`."""
    workdir: str
    """Run folder in a bucket (gs://…); a job that starts again goes on from its last checkpoint."""
    repository: str
    """Git URL of this code, which the machines can clone."""
    revision: str = "main"
    """Branch, tag or commit."""
    prepare: str = ""
    """Shell command that fetches data and weights, run in the repository on every host before each
    start: it must leave alone what is there already."""
    train: str = ""
    """More arguments of `launch/train.py`, as in a shell."""
    name: str = "lco-train"
    num_slices: int = 1
    project: str = "PROJECT"
    """Google Cloud project."""
    zone: str = "ZONE"
    """Such as us-east5-a."""
    cluster: str = "CLUSTER"
    """GKE cluster, for xpk."""
    spot: bool = False
    """Preemptible capacity."""
    image: str = "python:3.11"
    """Container of GKE jobs; it needs Python 3.11, venv and git."""
    max_restarts: int = 100
    """How often a failed or preempted job starts again."""

    def __post_init__(self):
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise ValueError(f"name {self.name!r} must be up to 40 of a-z, 0-9 and -, a-z first")
        if not self.workdir.startswith("gs://"):
            raise ValueError(
                f"workdir {self.workdir!r} must be in a bucket (gs://…): the machines' disks go "
                "with them"
            )
        if self.num_slices < 1:
            raise ValueError(f"num_slices={self.num_slices} must be at least 1")
        shlex.split(self.train)  # raises ValueError where a quotation does not end
        find_slice(self.topology)

    @property
    def slice(self) -> Slice:
        """The hardware of each slice."""
        return find_slice(self.topology)


def job_files(job: Job, kind: Kind) -> dict[str, str]:
    """Files by name; the first line of each says how to use it."""
    return {
        "queued-resource": _queued_resource,
        "jobset": _jobset,
        "xpk": _xpk,
        "skypilot": _skypilot,
    }[kind](job)


def _setup(job: Job) -> str:
    return "\n".join(
        [
            f"if [ ! -d {_REPOSITORY_FOLDER}/.git ]; then",
            f"  git clone {shlex.quote(job.repository)} {_REPOSITORY_FOLDER}",
            "fi",
            f"cd {_REPOSITORY_FOLDER}",
            "git fetch --quiet origin",
            f"git checkout --quiet {shlex.quote(job.revision)}",
            "[ -x .venv/bin/python ] || python3.11 -m venv .venv",
            ".venv/bin/pip install --quiet --editable '.[tpu]'",
            *([job.prepare] if job.prepare else []),
        ]
    )


def _train(job: Job) -> str:
    words = ["--tpu", "--workdir", job.workdir, *shlex.split(job.train)]
    return shlex.join([".venv/bin/python", "launch/train.py", *words])


def _done_file(job: Job) -> str:
    return shlex.quote(job.workdir.rstrip("/") + "/DONE")


# ------------------------------------------------------------------------- queued resources


def _queued_resource(job: Job) -> dict[str, str]:
    several = job.num_slices > 1
    place = f"--project={shlex.quote(job.project)} --zone={shlex.quote(job.zone)}"
    nodes = f"--node-count={job.num_slices}" if several else f"--node-id={job.name}"
    spot = " --spot" if job.spot else ""
    create = f"""\
#!/usr/bin/env bash
# Creates the TPUs of {job.name} and keeps the job alive: bash create.sh
# Preempted or failed capacity is given back and asked for again; ends when the run is done.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
done_file={_done_file(job)}
tpu=(gcloud compute tpus queued-resources)
place=({place})

for ((attempt = 0; attempt <= {job.max_restarts}; attempt++)); do
    "${{tpu[@]}}" create {job.name} "${{place[@]}}" {nodes}{spot} \\
        --accelerator-type={job.slice.accelerator_type} \\
        --runtime-version={job.slice.runtime_version} \\
        --scopes=https://www.googleapis.com/auth/cloud-platform \\
        --metadata-from-file=startup-script=startup.sh
    while true; do
        sleep 60
        state=$("${{tpu[@]}}" describe {job.name} "${{place[@]}}" --format='value(state.state)') ||
            state=UNKNOWN
        if gcloud storage ls "$done_file" >/dev/null 2>&1; then
            state=DONE
        fi
        echo "$(date -u +%FT%TZ) $state"
        case $state in
            DONE | FAILED | SUSPENDED) break ;;
        esac
    done
    "${{tpu[@]}}" delete {job.name} "${{place[@]}}" --force --quiet
    if [[ $state == DONE ]]; then
        exit 0
    fi
done
echo "gave up after {job.max_restarts} restarts" >&2
exit 1
"""
    done = _done_file(job)
    startup = f"""\
#!/usr/bin/env bash
# Runs on every machine of {job.name} at every boot (also after maintenance): sets up and trains.
set -euo pipefail
exec > >(logger --tag lco_jax --stderr) 2>&1
export HOME=/root DEBIAN_FRONTEND=noninteractive
if ! command -v python3.11 >/dev/null || ! command -v git >/dev/null; then
    apt-get update --quiet
    apt-get install --quiet --yes git python3.11 python3.11-venv
fi
mkdir -p /opt/job
cd /opt/job
{_setup(job)}
# A failed step on one host ends the run on all; all then start again from the last checkpoint.
for ((attempt = 0; attempt <= {job.max_restarts}; attempt++)); do
    code=0
    {_train(job)} || code=$?
    case $code in
        0)
            date -u +%FT%TZ | gcloud storage cp - {done}
            exit 0
            ;;
        2 | 130 | 143) exit "$code" ;; # bad usage, or asked to stop
    esac
    sleep 30
done
exit 1
"""
    return {"create.sh": create, "startup.sh": startup}


# --------------------------------------------------------------------------------------- GKE


def _jobset(job: Job) -> dict[str, str]:
    hosts, chips = job.slice.hosts, job.slice.chips_per_host
    setup = _setup(job)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": job.slice.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": job.slice.shape,
    }
    if job.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    container = {
        "name": "train",
        "image": job.image,
        "command": ["bash", "-euo", "pipefail", "-c", f"{setup}\nexec {_train(job)}\n"],
        # Several processes meet at a port; 8471 and 8431 are the TPU runtime's.
        "ports": [{"containerPort": port} for port in (8471, 8431, 8476)],
        "resources": {
            "requests": {"google.com/tpu": chips},
            "limits": {"google.com/tpu": chips},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": selector,
        # Time to save after SIGTERM.
        "terminationGracePeriodSeconds": 300,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "containers": [container],
    }
    workers = {
        "name": "workers",
        "replicas": job.num_slices,
        "template": {
            "spec": {
                "parallelism": hosts,
                "completions": hosts,
                "completionMode": "Indexed",
                "backoffLimit": 0,
                "template": {"spec": pod},
            }
        },
    }
    content = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            # Each slice has a node pool of its own.
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "failurePolicy": {"maxRestarts": job.max_restarts},
            "replicatedJobs": [workers],
        },
    }
    usage = "# kubectl apply -f jobset.yaml; kubectl logs -f -l jobset.sigs.k8s.io/jobset-name="
    return {"jobset.yaml": f"{usage}{job.name}\n{_yaml(content)}"}


def _xpk(job: Job) -> dict[str, str]:
    command = shlex.quote(f"{_setup(job)}\nexec {_train(job)}")
    text = f"""\
#!/usr/bin/env bash
# Starts {job.name} on a GKE cluster of xpk: bash xpk.sh
set -euo pipefail
xpk workload create \\
    --workload={job.name} \\
    --cluster={shlex.quote(job.cluster)} \\
    --project={shlex.quote(job.project)} \\
    --zone={shlex.quote(job.zone)} \\
    --tpu-type={job.slice.accelerator_type} \\
    --num-slices={job.num_slices} \\
    --max-restarts={job.max_restarts} \\
    --docker-image={shlex.quote(job.image)} \\
    --command={command}
"""
    return {"xpk.sh": text}


# ---------------------------------------------------------------------------------- SkyPilot


def _skypilot(job: Job) -> dict[str, str]:
    if job.num_slices > 1:
        raise ValueError(
            f"num_slices={job.num_slices}: a SkyPilot task takes one slice; use queued-resource, "
            "jobset or xpk"
        )
    content = {
        "name": job.name,
        "resources": {
            "infra": f"gcp/*/{job.zone}" if job.zone != "ZONE" else "gcp",
            "accelerators": f"tpu-{job.slice.accelerator_type}",
            "accelerator_args": {"runtime_version": job.slice.runtime_version},
            "use_spot": job.spot,
            "job_recovery": {"max_restarts_on_errors": job.max_restarts},
        },
        "setup": _setup(job) + "\n",
        "run": f"cd {_REPOSITORY_FOLDER}\n{_train(job)}\n",
    }
    return {"sky.yaml": f"# sky jobs launch sky.yaml\n{_yaml(content)}"}


class _Dumper(yaml.SafeDumper):
    """Writes several lines of text as a block."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _yaml(content: dict) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
