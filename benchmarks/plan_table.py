"""docs/plan.md: the plans of the recipes on named slices; run from the root of the repository.

`python -m benchmarks.plan_table [CASE …]` compiles the named cases (if none is named, all that have
no plan), each with `launch/plan.py`, and writes the table of all cases compiled so far after each
one: an interrupted table goes on where it was. It needs no TPU, but the extra `tpu`, some minutes
a case and 4 GB of memory.
"""

import json
import subprocess
import sys
from pathlib import Path

_FOLDER = Path("runs/plans")
_TABLE = Path("docs/plan.md")
_BATCH = "--data.batch-size 1056"
_TEXT = f"--config configs/lco_omni_7b_text.py {_BATCH}"
_MEDIA = f"--config configs/lco_omni_7b_multimodal.py {_BATCH}"
_32B = f"--config configs/lco_vl_32b_text.py {_BATCH}"
_72B = f"--config configs/lco_vl_72b_text.py {_BATCH}"
CASES = {
    "7b-v5p": f"{_TEXT} --topology v5p:4x4x4 --memory.remat none",
    "7b-2xv5p": f"{_TEXT} --topology v5p:4x4x4 --num-slices 2",
    "7b-v5e": f"{_TEXT} --topology v5e:16x16 --mesh.tensor 2 --memory.remat full",
    "7b-v6e": f"{_TEXT} --topology v6e:8x8 --mesh.tensor 2 --memory.remat full",
    "7b-media-v5p": f"{_MEDIA} --topology v5p:4x4x4 --memory.remat full",
    "7b-media-v5e": f"{_MEDIA} --topology v5e:16x16 --mesh.tensor 4 --memory.remat full",
    "7b-media-v6e": f"{_MEDIA} --topology v6e:8x8 --mesh.tensor 4 --memory.remat full",
    "32b-v5p": f"{_32B} --topology v5p:4x4x4",
    "72b-v5p": f"{_72B} --topology v5p:4x4x4",
}


def main() -> None:
    """Compile and write."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    missing = [name for name in CASES if not (_FOLDER / f"{name}.json").exists()]
    for name in sys.argv[1:] or missing:
        command = [sys.executable, "launch/plan.py", *CASES[name].split()]
        subprocess.run([*command, "--json", str(_FOLDER / f"{name}.json")], check=False)
        _write()
    _write()


def _write() -> None:
    rows = [
        "# Plans",
        "",
        "The training step of each command, compiled by the TPU compiler: made by",
        "`python -m benchmarks.plan_table`. Bytes are of one chip; times are bounds.",
        "",
        "| `python launch/plan.py …` | fits | arguments GB | temporaries GB | peak / available GB "
        "| flops a token | roofline ms | MFU at most | messages |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, options in CASES.items():
        file = _FOLDER / f"{name}.json"
        if file.exists():
            rows.append(_row(options, json.loads(file.read_text())))
    _TABLE.write_text("\n".join(rows) + "\n")


def _row(options: str, plan: dict) -> str:
    if not plan["fits"]:
        return f"| `{options}` | no: {plan['problem']} | | | | | | | |"
    sizes = plan["bytes_per_chip"]
    gigabytes = {name: f"{size / 1e9:.1f}" for name, size in sizes.items()}
    messages = ", ".join(
        f"{row['count']:,} {row['kind']} ({row['num_bytes'] / 1e9:.2f} GB)"
        for row in plan["collectives"]
    )
    return (
        f"| `{options}` | yes | {gigabytes['arguments in all']} | {gigabytes['temporaries']} "
        f"| {gigabytes['peak']} / {plan['available_bytes'] / 1e9:.1f} "
        f"| {plan['flops_in_n']:.2f} N | {plan['roofline']['step_s'] * 1e3:.0f} "
        f"| {plan['mfu_bound']:.0%} | {messages} |"
    )


if __name__ == "__main__":
    main()
