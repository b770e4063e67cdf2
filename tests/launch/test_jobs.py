"""Job files: shell programs pass shellcheck, Kubernetes objects their schema, names the tables."""

import shlex
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from lco_jax.cli.job import main
from lco_jax.jobs.files import Job, job_files
from lco_jax.jobs.slices import find_slice

TRAIN = "--config configs/lco_omni_7b_text.py --data.sources.0.path 'gs://b/my data.jsonl'"


def make(**changes):
    options = {
        "topology": "v5p:4x4x4",
        "workdir": "gs://bucket/run",
        "repository": "https://example.com/lco_jax.git",
        "train": TRAIN,
        **changes,
    }
    return Job(**options)


@pytest.mark.parametrize(
    ("topology", "accelerator", "label", "hosts", "chips"),
    [
        ("v5p:4x4x4", "v5p-128", "tpu-v5p-slice", 16, 4),
        ("v5e:16x16", "v5litepod-256", "tpu-v5-lite-podslice", 64, 4),
        ("v6e:8x8", "v6e-64", "tpu-v6e-slice", 16, 4),
        ("v4:2x2x1", "v4-8", "tpu-v4-podslice", 1, 4),
        ("v6e:1x1", "v6e-1", "tpu-v6e-slice", 1, 1),
    ],
)
def test_names_of_slices(topology, accelerator, label, hosts, chips):
    found = find_slice(topology)
    assert (found.accelerator_type, found.gke_accelerator) == (accelerator, label)
    assert (found.hosts, found.chips_per_host) == (hosts, chips)


@pytest.mark.parametrize("kind", ["queued-resource", "xpk"])
@pytest.mark.parametrize("changes", [{}, {"num_slices": 2, "spot": True}], ids=["one", "spot"])
def test_shell_programs_are_sound(kind, changes, tmp_path):
    for name, text in job_files(make(**changes), kind).items():
        file = tmp_path / name
        file.write_text(text)
        checked = subprocess.run(["shellcheck", str(file)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
        assert "launch/train.py --tpu --workdir gs://bucket/run" in text or name == "create.sh"


@pytest.mark.parametrize("kind", ["queued-resource", "jobset", "xpk", "skypilot"])
def test_data_are_fetched_before_training(kind):
    files = job_files(make(prepare="fetch some data"), kind)
    text = "".join(files.values())
    assert 0 < text.index("fetch some data") < text.index("launch/train.py")


def test_startup_reruns_until_the_run_is_done(tmp_path):
    # The loop of the startup script, with programs that fail twice and then succeed.
    text = job_files(make(), "queued-resource")["startup.sh"]
    loop = text[text.index("for ((attempt") :].replace("sleep 30", "sleep 0")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name, body in {
        ".venv/bin/python": 'echo "$@" >> calls; [ "$(wc -l < calls)" -ge 3 ]',
        "gcloud": 'cat > /dev/null; echo "$@" > done',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", loop], cwd=tmp_path, env=path, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 3
    assert calls[0].startswith("launch/train.py --tpu --workdir gs://bucket/run --config")
    assert (tmp_path / "done").read_text() == "storage cp - gs://bucket/run/DONE\n"


def test_jobset_holds_a_valid_job():
    job = make(num_slices=2, spot=True)
    content = yaml.safe_load(job_files(job, "jobset")["jobset.yaml"])
    assert (content["apiVersion"], content["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (workers,) = content["spec"]["replicatedJobs"]
    assert workers["replicas"] == 2
    inner = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    kubernetes_validate.validate(inner | workers["template"], "1.32", strict=True)
    pod = workers["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x4"
    command = pod["containers"][0]["command"][-1].splitlines()[-1]
    assert shlex.split(command)[-1] == "gs://b/my data.jsonl"


def test_skypilot_task():
    content = yaml.safe_load(job_files(make(topology="v5e:16x16"), "skypilot")["sky.yaml"])
    assert content["resources"]["accelerators"] == "tpu-v5litepod-256"
    assert content["run"].startswith("cd lco_jax\n.venv/bin/python launch/train.py --tpu")
    with pytest.raises(ValueError, match="one slice"):
        job_files(make(num_slices=2), "skypilot")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topology": "v5p-128"}, "such as v5e:16x16"),
        ({"topology": "v5e:4x4x4"}, "v5e:AxB"),
        ({"workdir": "/tmp/run"}, "must be in a bucket"),
        ({"name": "My Job"}, "a-z first"),
        ({"train": "--config 'x"}, "quotation"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_the_program_writes_the_files(tmp_path, monkeypatch, capsys):
    options = ["--kind", "jobset", "--topology", "v6e:8x8", "--workdir", "gs://b/r"]
    options += ["--repository", "https://example.com/r.git", "--output", str(tmp_path / "job")]
    monkeypatch.setattr(sys, "argv", ["launch/tpu/job.py", *options])
    assert main() == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "job" / "jobset.yaml")
    assert (tmp_path / "job" / "jobset.yaml").read_text().startswith("# kubectl apply")
