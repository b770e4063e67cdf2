"""Job files: shell programs pass shellcheck, Kubernetes objects their schema, names the tables."""

import shlex
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from lco_jax.cli.job import main
from lco_jax.jobs.files import Job, job_files
from lco_jax.jobs.slices import find_slice

TRAIN = "--config configs/lco_omni_7b_text.py --data.sources.0.path 'gs://b/my data.jsonl'"


QUEUED = "queued-resource"
MORE: dict = {}


def make(**changes):
    options = {
        "topology": "v5p:4x4x4",
        "workdir": "gs://bucket/run",
        "repository": "https://example.com/lco_jax.git",
        "train": TRAIN,
        **MORE,
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


def run_startup(tmp_path, python, *, setup_fails=0):
    """The startup script with programs of our own in place of the machine's; what ran, and how."""
    text = job_files(make(prepare=f"test $(wc -l < {tmp_path}/calls) -ge {setup_fails}"), QUEUED)
    text = text["startup.sh"].replace("sleep 30", "sleep 0").replace("/opt/job", f"{tmp_path}/job")
    text = text.replace("exec > >(logger --tag lco_jax --stderr) 2>&1", "")
    (tmp_path / "job/lco_jax/.git").mkdir(parents=True)
    (tmp_path / "job/lco_jax/.venv/bin").mkdir(parents=True)
    (tmp_path / "calls").touch()
    programs = {
        "job/lco_jax/.venv/bin/python": f'echo "$@" >> {tmp_path}/calls; {python}',
        "job/lco_jax/.venv/bin/pip": f"echo setup >> {tmp_path}/calls",
        "python3.11": "exit 0",
        "git": "exit 0",
        "curl": "echo 20260101-7",
        "gcloud": f'echo "$@" "$(cat)" > {tmp_path}/ended',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ended = subprocess.run(["bash", "-c", text], env=path, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    told = tmp_path / "ended"
    return ended.returncode, calls, told.read_text().strip() if told.exists() else None


def test_startup_reruns_until_the_run_is_done(tmp_path):
    succeeds = f'[ "$(grep -c launch {tmp_path}/calls)" -ge 3 ]'
    code, calls, told = run_startup(tmp_path, succeeds)
    assert code == 0
    trained = [call for call in calls if call != "setup"]
    assert len(trained) == 3
    assert trained[0].startswith("launch/train.py --tpu --workdir gs://bucket/run --config")
    assert told == "storage cp - gs://bucket/run/ended/20260101-7 0"


def test_bad_usage_ends_the_job_and_is_not_tried_again(tmp_path):
    code, calls, told = run_startup(tmp_path, "exit 2")
    assert (code, len([call for call in calls if call != "setup"])) == (2, 1)
    assert told.endswith("gs://bucket/run/ended/20260101-7 2")


def test_a_machine_that_goes_says_nothing(tmp_path):
    code, _, told = run_startup(tmp_path, "exit 143")
    assert (code, told) == (143, None)


def test_given_up_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.launch.test_jobs.MORE", {"max_restarts": 2})
    code, calls, told = run_startup(tmp_path, "exit 1")
    assert (code, len([call for call in calls if call != "setup"])) == (1, 3)
    assert told.endswith(" 1")


def test_a_failed_step_of_the_set_up_is_no_training(tmp_path):
    code, calls, _ = run_startup(tmp_path, "exit 0", setup_fails=3)
    assert code == 0
    assert calls[:4] == ["setup", "setup", "setup", calls[3]] and calls[3].startswith("launch")


@pytest.mark.parametrize(
    ("states", "ended", "code", "deleted"),
    [
        (["ACTIVE", "ACTIVE"], "0", 0, 1),
        (["ACTIVE"], "2", 2, 1),
        (["FAILED", "FAILED", "FAILED"], None, 1, 3),
        (["PROVISIONING", "SUSPENDED", "ACTIVE"], "1", 1, 2),
    ],
)
def test_whatever_ends_a_job_its_machines_are_deleted(tmp_path, states, ended, code, deleted):
    """create.sh against a gcloud of our own, which goes through the given states."""
    text = job_files(make(max_restarts=2), QUEUED)["create.sh"].replace("sleep 60", "sleep 0")
    (tmp_path / "create.sh").write_text(text)
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    gcloud = f"""
cd {tmp_path}
echo "$@" >> calls
case "$*" in
*queued-resources\\ create*) touch there ;;
*queued-resources\\ delete*) rm -f there ;;
*describe*)
    [ -e there ] || exit 1
    head -n 1 states | tee now
    [ "$(wc -l < states)" -le 1 ] || sed -i 1d states ;;
*storage\\ cat*) [ "$(cat now) $(wc -l < states)" = "ACTIVE 1" ] && echo {ended} ;;
esac
"""
    (tmp_path / "gcloud").write_text(f"#!/bin/bash{gcloud}")
    (tmp_path / "gcloud").chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    run = subprocess.run(["bash", str(tmp_path / "create.sh")], env=path, timeout=60)
    calls = (tmp_path / "calls").read_text()
    assert run.returncode == code
    assert calls.count("queued-resources delete") == deleted
    assert not (tmp_path / "there").exists()


STRINGS = ("repository", "revision", "project", "cluster", "image")
HOSTILE = 'it\'s "a" $(touch /tmp/x) `id`\n; rm -rf ~ #\t{{ x }} ü'


@pytest.mark.parametrize("kind", ["queued-resource", "jobset", "xpk", "skypilot"])
def test_hostile_names_are_quoted(kind, tmp_path):
    strings = dict.fromkeys(STRINGS, HOSTILE)
    if kind in (QUEUED, "jobset"):
        strings["service_account"] = HOSTILE
    job = make(workdir=f"gs://{HOSTILE}", train=shlex.join(["--name", HOSTILE]), **strings)
    for name, text in job_files(job, kind).items():
        script = text
        if name.endswith(".yaml"):
            content = yaml.safe_load(text)
            if kind == "jobset":
                (workers,) = content["spec"]["replicatedJobs"]
                check_job(workers)
                container = workers["template"]["spec"]["template"]["spec"]["containers"][0]
                assert container["image"] == HOSTILE
                script = f"#!/bin/bash\nset -euo pipefail\n{container['command'][-1]}"
            else:
                assert content["resources"]["infra"] == "gcp"
                script = f"#!/bin/bash\n{content['setup']}{content['run']}"
        file = tmp_path / "script.sh"
        file.write_text(script)
        checked = subprocess.run(
            ["shellcheck", "-S", "warning", str(file)], capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout
        if name != "create.sh":
            assert shlex.quote(HOSTILE) in script or name == "xpk.sh"


def check_job(workers):
    inner = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    kubernetes_validate.validate(inner | workers["template"], "1.32", strict=True)


def test_jobset_holds_a_valid_job():
    job = make(num_slices=2, spot=True)
    content = yaml.safe_load(job_files(job, "jobset")["jobset.yaml"])
    assert (content["apiVersion"], content["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (workers,) = content["spec"]["replicatedJobs"]
    assert workers["replicas"] == 2
    check_job(workers)
    pod = workers["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x4"
    command = pod["containers"][0]["command"][-1].splitlines()[-1]
    assert shlex.split(command)[-1] == "gs://b/my data.jsonl"


def test_machines_run_under_an_account(tmp_path):
    account = "trainer@project.iam.gserviceaccount.com"
    create = job_files(make(service_account=account), QUEUED)["create.sh"]
    words = shlex.split(create[create.index('"${tpu[@]}" create') :].split("\n}")[0])
    assert f"--service-account={account}" in words and words[-1].startswith("--metadata-from-file")
    content = yaml.safe_load(job_files(make(service_account="trainer"), "jobset")["jobset.yaml"])
    (workers,) = content["spec"]["replicatedJobs"]
    check_job(workers)
    assert workers["template"]["spec"]["template"]["spec"]["serviceAccountName"] == "trainer"
    for kind in (QUEUED, "jobset"):
        text = "".join(job_files(make(), kind).values())
        assert "service-account" not in text and "serviceAccount" not in text


@pytest.mark.parametrize(
    ("kind", "advice"), [("xpk", "account of the cluster"), ("skypilot", "config.yaml")]
)
def test_an_account_that_a_job_file_cannot_name_is_refused(kind, advice):
    with pytest.raises(ValueError, match=f"service_account='trainer' .* leave it out, .*{advice}"):
        job_files(make(service_account="trainer"), kind)


def test_skypilot_task():
    content = yaml.safe_load(job_files(make(topology="v5e:16x16"), "skypilot")["sky.yaml"])
    assert content["resources"]["accelerators"] == "tpu-v5litepod-256"
    with pytest.raises(ValueError, match="one slice"):
        job_files(make(num_slices=2), "skypilot")


@pytest.mark.parametrize(
    ("codes", "code", "starts"),
    [([1, 134, 0], 0, 3), ([2], 2, 1), ([143], 143, 1), ([1] * 3, 1, 3)],
)
def test_a_skypilot_task_starts_a_failed_run_again_but_no_bad_usage(tmp_path, codes, code, starts):
    task = yaml.safe_load(job_files(make(max_restarts=2), "skypilot")["sky.yaml"])
    assert task["resources"]["job_recovery"] == {"max_restarts_on_errors": 0}
    python = tmp_path / "lco_jax/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\n'
        f"codes=({' '.join(map(str, codes))})\n"
        f"exit ${{codes[$(wc -l < {tmp_path}/calls) - 1]}}\n"
    )
    python.chmod(0o755)
    script = task["run"].replace("sleep 30", "sleep 0")
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path).returncode == code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == starts
    assert calls[0].startswith("launch/train.py --tpu --workdir gs://bucket/run --config")


def test_xpk_starts_a_failed_run_again_but_no_bad_usage(tmp_path):
    text = job_files(make(), "xpk")["xpk.sh"]
    (tmp_path / "xpk").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    (tmp_path / "xpk").chmod(0o755)
    subprocess.run(["bash", "-c", text], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert "--restart-on-exit-codes=1" in arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topology": "v5p-128"}, "such as v5e:16x16"),
        ({"topology": "v5e:4x4x4"}, "v5e:AxB"),
        ({"workdir": "/tmp/run"}, "must be in a bucket"),
        ({"name": "My Job"}, "a-z first"),
        ({"zone": HOSTILE}, "letters, digits and -: us-east5-a"),
        ({"train": "--config 'x"}, "quotation"),
        ({"revision": "--upload-pack=x"}, "branch, tag or commit"),
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


@pytest.mark.parametrize(
    ("train", "code", "said"),
    [
        ("--confg lco_omni_7b_text", 2, "--train is not understood by the training program"),
        ("--config lco_omni_7b_text --memory.remat som", 2, "--train is not understood"),
        ("--config lco_omni_7b_text --memory.remat full", 0, ""),
        ("--config of_the_hosts.py --memory.remat full", 0, "no config file of_the_hosts.py"),
    ],
)
def test_what_every_host_will_be_told_is_read_first(
    tmp_path, capsys, caplog, monkeypatch, train, code, said
):
    options = ["--kind", "jobset", "--topology", "v6e:8x8", "--workdir", "gs://b/r"]
    options += ["--repository", "https://example.com/r.git", "--output", str(tmp_path / "job")]
    monkeypatch.setattr(sys, "argv", ["launch/tpu/job.py", *options, "--train", train])
    if code:
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == code and not (tmp_path / "job").exists()
    else:
        assert main() == 0
    told = capsys.readouterr()
    assert said in " ".join((told.out + told.err + caplog.text).split())


def test_the_command_of_the_readme(tmp_path, monkeypatch):
    """Letter for letter, but for the folder that it writes to."""
    readme = (Path(__file__).parents[2] / "docs/pod.md").read_text()
    lines = iter(readme[readme.index("python launch/tpu/job.py") :].splitlines())
    command = next(lines)
    while command.endswith("\\"):
        command = command[:-1] + next(lines)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(command)[1:])
    assert main() == 0
    account = "--service-account=lco-train@PROJECT.iam.gserviceaccount.com"
    assert account in (tmp_path / "job" / "create.sh").read_text()
    startup = (tmp_path / "job" / "startup.sh").read_text()
    assert (
        "--config configs/lco_omni_7b_text.py --data.batch-size 1056 --memory.remat none" in startup
    )
    assert "prepare_data.py all_nli" in startup
