"""The files that start a training job on TPU slices, from one description of it."""

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from lco_jax.jobs.slices import Slice, find_slice

Kind = Literal["queued-resource", "jobset", "xpk", "skypilot"]

_FILES: dict[Kind, tuple[str, ...]] = {
    "queued-resource": ("create.sh", "startup.sh"),
    "jobset": ("jobset.yaml",),
    "xpk": ("xpk.sh",),
    "skypilot": ("sky.yaml",),
}
"""Each is made of the template of its name in `templates/`."""

_ACCOUNTS: dict[Kind, str] = {
    "xpk": "give the rights to the account of the cluster under which its workloads run",
    "skypilot": "write it to ~/.sky/config.yaml, as remote_identity of gcp",
}
"""Where those kinds take an account from that a job file cannot name."""


@dataclass(frozen=True)
class Job:
    """A training run on one or several slices."""

    topology: str
    """Generation and chips along each axis: `v5e:16x16`, `v5p:4x4x4`, `v6e:8x8`."""
    workdir: str
    """Run folder in a bucket (gs://…); a job that starts again resumes from its last checkpoint."""
    repository: str
    """Git URL of this code, which the machines can clone."""
    revision: str = "main"
    """Branch, tag or commit."""
    prepare: str = ""
    """Shell command that fetches data and weights, run in the repository on every host before each
    start, so it must be idempotent."""
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
    service_account: str = ""
    """Account of the machines, which needs the bucket: NAME@PROJECT.iam.gserviceaccount.com, or of
    a jobset one of Kubernetes (default: that of the project, or of the namespace)."""
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
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.zone):
            raise ValueError(f"zone {self.zone!r} must be letters, digits and -: us-east5-a")
        if self.revision.startswith("-") or not self.revision:
            raise ValueError(f"revision {self.revision!r} must be a branch, tag or commit")
        if self.num_slices < 1:
            raise ValueError(f"num_slices={self.num_slices} must be at least 1")
        shlex.split(self.train)  # raises ValueError where a quotation does not end
        find_slice(self.topology)

    @property
    def slice(self) -> Slice:
        """The hardware of each slice."""
        return find_slice(self.topology)


def job_files(job: Job, kind: Kind) -> dict[str, str]:
    """Files by name; the first lines of each say how to use it.

    Raises:
        ValueError: this kind cannot start several slices, or takes no account.
    """
    if kind == "skypilot" and job.num_slices > 1:
        raise ValueError(
            f"num_slices={job.num_slices}: a SkyPilot task takes one slice; use queued-resource, "
            "jobset or xpk"
        )
    if job.service_account and kind in _ACCOUNTS:
        raise ValueError(
            f"service_account={job.service_account!r} cannot be told to {kind}: leave it out, and "
            f"{_ACCOUNTS[kind]}"
        )
    templates = Environment(
        loader=PackageLoader("lco_jax", "jobs/templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # of programs, whose strings `quote` makes safe
    )
    templates.filters["quote"] = shlex.quote
    words = ["--tpu", "--workdir", job.workdir, *shlex.split(job.train)]
    several = job.num_slices > 1
    values = {
        "job": job,
        "folder": "lco_jax",
        "train": shlex.join([".venv/bin/python", "launch/train.py", *words]),
        "ended": job.workdir.rstrip("/") + "/ended",
        "nodes": f"--node-count={job.num_slices}" if several else f"--node-id={job.name}",
    }
    values["setup"] = templates.get_template("setup.sh.j2").render(values).rstrip()
    return {name: templates.get_template(f"{name}.j2").render(values) for name in _FILES[kind]}
