"""docs/plan.md: the plans of the recipes on named slices; run from the root of the repository.

`python -m benchmarks.plan_table [CASE …]` compiles the named cases (if none is named, all that have
neither a plan nor a row), each with `launch/plan.py`, and writes the table after each one: an
interrupted table goes on where it was, and rows of cases that are not compiled again stay. The case
`losses` compiles the contrastive loss alone. It needs no TPU, but the extra `tpu`, one to four
minutes a case and 4 GB of memory.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import tyro

_FOLDER = Path("runs/plans")
_TABLE = Path("docs/plan.md")
_BATCH = "--data.batch-size 1056"
_TEXT = f"--config configs/lco_omni_7b_text.py {_BATCH}"
_MEDIA = f"--config configs/lco_omni_7b_multimodal.py {_BATCH}"
_32B = f"--config configs/lco_vl_32b_text.py {_BATCH}"
_72B = f"--config configs/lco_vl_72b_text.py {_BATCH}"
_VL_7B = "--config configs/lco_vl_7b"
_3B, _VL_3B = "--config configs/lco_omni_3b", "--config configs/lco_vl_3b"
_LLAVA, _QWEN3_VL = "--config configs/lco_llava_next_8b", "--config configs/lco_qwen3_vl_8b"
_PAGES = "--config configs/seadoc_high.py --stage read --model.path Qwen/Qwen2.5-VL-7B-Instruct"
CASES = {
    "7b-v5p": f"{_TEXT} --topology v5p:4x4x4 --memory.remat none",
    "7b-2xv5p": f"{_TEXT} --topology v5p:4x4x4 --num-slices 2",
    "7b-v5e": f"{_TEXT} --topology v5e:16x16 --mesh.tensor 2",
    "7b-v6e": f"{_TEXT} --topology v6e:8x8",
    "7b-media-v5p": f"{_MEDIA} --topology v5p:4x4x4",
    "7b-media-v5e": f"{_MEDIA} --topology v5e:16x16 --mesh.tensor 4 --memory.remat full",
    "7b-media-v6e": f"{_MEDIA} --topology v6e:8x8 --memory.remat full",
    "vl-7b-v5p": f"{_VL_7B}_text.py {_BATCH} --topology v5p:4x4x4 --memory.remat none",
    "vl-7b-media-v5p": f"{_VL_7B}_multimodal.py {_BATCH} --topology v5p:4x4x4",
    "3b-v5e": f"{_3B}_text.py {_BATCH} --topology v5e:16x16 --memory.remat full",
    "3b-media-v5p": f"{_3B}_multimodal.py {_BATCH} --topology v5p:4x4x4",
    "vl-3b-v5e": f"{_VL_3B}_text.py {_BATCH} --topology v5e:16x16 --memory.remat full",
    "vl-3b-media-v5p": f"{_VL_3B}_multimodal.py {_BATCH} --topology v5p:4x4x4",
    "7b-pages-v5p": f"{_PAGES} --topology v5p:2x2x2 --memory.encode-chunks 4",
    "llava-v5p": f"{_LLAVA}_text.py {_BATCH} --topology v5p:4x4x4",
    "llava-v6e": f"{_LLAVA}_text.py {_BATCH} --topology v6e:8x8",
    "llava-media-v5p": f"{_LLAVA}_multimodal.py {_BATCH} --topology v5p:4x4x4 --memory.remat full",
    "llava-media-v6e": f"{_LLAVA}_multimodal.py {_BATCH} --topology v6e:8x8 --memory.remat full "
    "--memory.encode-chunks 2",
    "qwen3-vl-v5p": f"{_QWEN3_VL}_text.py {_BATCH} --topology v5p:4x4x4",
    "qwen3-vl-v6e": f"{_QWEN3_VL}_text.py {_BATCH} --topology v6e:8x8",
    "qwen3-vl-media-v5p": f"{_QWEN3_VL}_multimodal.py {_BATCH} --topology v5p:4x4x4",
    "qwen3-vl-media-v6e": f"{_QWEN3_VL}_multimodal.py {_BATCH} --topology v6e:8x8 "
    "--memory.remat full",
    "32b-v5p": f"{_32B} --topology v5p:4x4x4",
    "72b-v5p": f"{_72B} --topology v5p:4x4x4",
}
_HEADER = """# Plans

The training step of each command, compiled by the TPU compiler: made by
`python -m benchmarks.plan_table`. Bytes are of one chip; times are bounds. The batch is assumed:
items of 32 tokens behind the preamble, a quarter of the items of a multimodal config with an image
of the largest size; the plan of pages has one page an example. FLOPs a token are counted over all
slots of the rows, those of the towers among them. The useful work behind MFU are the products that
no layout can avoid: 4 N for each real token (text and image), two a weight of the vision tower for
each real patch, six where the tower trains, and four a weight of the language model's head for each
token of a response. Attention and low-rank factors are left out.

| `python launch/plan.py …` | fits | arguments GB | temporaries GB | peak / available GB \
| FLOPs a token | roofline ms | MFU at most | collectives | revision |
|---|---|---|---|---|---|---|---|---|---|"""
_LOSSES = "losses"
_LOSS_CHIPS = "v5p:4x4x4"
_LOSS_HEADER = """
## The loss alone

Temporaries of a chip, in MB, for value and gradient of the contrastive loss on 64 chips of
v5p:4x4x4: float32 embeddings of width 3,584, one positive and one negative an anchor. Chunked is
`--memory.logit-chunks 64`, ring is `--memory.candidates ring`; in brackets, the share of gathered.

| triplets | gathered | chunked | ring |
|---|---|---|---|"""
_TRIPLETS = (1_088, 8_192, 65_536)
"""The first is 1,056, filled up to a multiple of the chips."""
_PADDING = json.loads(Path("docs/results/padding.json").read_text().splitlines()[-1])
_LENGTHS = f"--item-tokens {_PADDING['padded_item_tokens']}"
_PEERS = {
    "peer-7b-v5p": ("7b-v5p", "--config configs/lco_omni_7b_text.py --topology v5p:4x4x4"),
    "peer-7b-lengths-v5p": (
        "7b-v5p",
        f"--config configs/lco_omni_7b_text.py --topology v5p:4x4x4 {_LENGTHS}",
    ),
    "peer-7b-media-v5p": (
        "7b-media-v5p",
        "--config configs/lco_omni_7b_multimodal.py --topology v5p:4x4x4",
    ),
}
"""Plans in the layout of the released trainers, and the cases that they are beside."""
_PEER_HEADER = f"""
## The released trainers' layout

The same step, batch and slice in the layout of LCO-Emb's released trainers, written in JAX
(`benchmarks/peer_layout.py`): three forward passes over whole prompts, each item padded to the
longest of its role, full recomputation, the logits of all tokens computed. The assumed texts are
all of one length and pay nothing for padding. With `--item-tokens` all are as long as the longest
of WordNet's texts make them on the shard with most slots (`python -m benchmarks.padding`, tokens of
SmolLM2): a text has {_PADDING["item_tokens"]:.0f} tokens on average. Ours then has the time of its
plan by its slots, {_PADDING["packed_slots"]:,} a shard instead of those of the plan. Times are at
the roofline, in ms, and the ratio is of the longest. Links carry a sum of the gradients for each
pass, those of the trainers one.

| `python -m benchmarks.peer_layout` | rows | peak GB | FLOPs a token | compute | memory | links \
| ours | ratio | revisions |
|---|---|---|---|---|---|---|---|---|---|"""


def main(cases: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Compile some cases (none: all that have neither a plan nor a row), and write the table."""
    known = (*CASES, *_PEERS, _LOSSES)
    for name in cases:
        if name not in known:
            raise SystemExit(f"there is no case {name!r}; there are {', '.join(known)}")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    rows = _read_rows()
    missing = [name for name, options in CASES.items() if f"`{options}`" not in rows]
    missing += [name for name in (*_PEERS, _LOSSES) if not (_FOLDER / f"{name}.json").exists()]
    for name in cases or missing:
        file = _FOLDER / f"{name}.json"
        if name == _LOSSES:
            file.write_text(json.dumps(_compile_losses()))
        else:
            program, options = ["launch/plan.py"], CASES.get(name)
            if name in _PEERS:
                program, options = ["-m", "benchmarks.peer_layout"], _PEERS[name][1]
            command = [sys.executable, *program, *options.split(), "--json", str(file)]
            subprocess.run(command, check=False)
            if file.exists():
                plan = json.loads(file.read_text()) | {"revision": _revision()}
                file.write_text(json.dumps(plan, indent=2) + "\n")
        _write()
    _write()


def _write() -> None:
    kept = _read_rows()
    lines = [_HEADER]
    for name, options in CASES.items():
        file = _FOLDER / f"{name}.json"
        if file.exists():
            lines.append(_row(options, json.loads(file.read_text())))
        elif f"`{options}`" in kept:
            lines.append(kept[f"`{options}`"])
    lines += filter(None, (_peer_section(), _loss_section()))
    _TABLE.write_text("\n".join(lines) + "\n")


def _read_rows() -> dict[str, str]:
    """Rows of the table as it is, by their first column."""
    if not _TABLE.exists():
        return {}
    lines = [line for line in _TABLE.read_text().splitlines() if line.startswith("| `--config")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def _row(options: str, plan: dict) -> str:
    revision = plan.get("revision", "")
    if not plan["fits"]:
        return f"| `{options}` | no: {plan['problem']} | | | | | | | | {revision} |"
    sizes = plan["bytes_per_chip"]
    gigabytes = {name: f"{size / 1e9:.1f}" for name, size in sizes.items()}
    collectives = ", ".join(
        f"{row['count']:,} {row['kind']} ({row['num_bytes'] / 1e9:.2f} GB)"
        for row in plan["collectives"]
    )
    return (
        f"| `{options}` | yes | {gigabytes['arguments in all']} | {gigabytes['temporaries']} "
        f"| {gigabytes['peak']} / {plan['available_bytes'] / 1e9:.1f} "
        f"| {plan['flops_in_n']:.2f} N | {plan['roofline']['step_s'] * 1e3:.0f} "
        f"| {plan['mfu_bound']:.0%} | {collectives} | {revision} |"
    )


def _revision() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _compile_losses() -> dict[str, dict[str, int]]:
    """Temporary bytes of a chip, by triplets and kind of loss."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks.loss_plan import compile_loss
    from lco_jax.config import Memory
    from lco_jax.plan.topologies import find_topology

    devices = find_topology(_LOSS_CHIPS).devices
    kinds = {
        "gathered": Memory(candidates="gathered"),
        "chunked": Memory(candidates="gathered", logit_chunks=64),
        "ring": Memory(candidates="ring"),
    }
    return {
        str(triplets): {
            name: compile_loss(memory, triplets, devices).memory_analysis().temp_size_in_bytes
            for name, memory in kinds.items()
        }
        for triplets in _TRIPLETS
    }


def _peer_section() -> str:
    """Peers beside the cases that they belong to; the section as it is where none is there."""
    lines = [_PEER_HEADER]
    for name, (case, options) in _PEERS.items():
        files = [_FOLDER / f"{part}.json" for part in (name, case)]
        if not all(file.exists() for file in files):
            continue
        theirs, ours = (json.loads(file.read_text()) for file in files)
        lines.append(_peer_row(options, theirs, ours))
    return "\n".join(lines) if lines[1:] else _section(_PEER_HEADER)


def _peer_row(options: str, theirs: dict, ours: dict) -> str:
    revisions = f"{theirs['revision']}, {ours['revision']}"
    if not theirs["fits"]:
        return (
            f"| `{options}` | {theirs['rows']} | no: {theirs['problem']} | | | | | | {revisions} |"
        )
    parts = [theirs["roofline"][name] for name in ("compute_s", "hbm_s", "ici_s")]
    own = ours["roofline"]["step_s"]
    if _LENGTHS in options:
        _, rows, row_tokens = (int(count) for count in re.findall(r"\d+", ours["rows"])[:3])
        own *= _PADDING["packed_slots"] / (rows * row_tokens)
    times = " | ".join(f"{1e3 * seconds:.0f}" for seconds in (*parts, own))
    return (
        f"| `{options}` | {theirs['rows']} | {theirs['bytes_per_chip']['peak'] / 1e9:.1f} "
        f"| {theirs['flops_in_n']:.2f} N | {times} | {max(parts) / own:.1f} | {revisions} |"
    )


def _section(header: str) -> str:
    """A section of the table as it is, without its end; empty if it has none."""
    text = _TABLE.read_text() if _TABLE.exists() else ""
    _, found, rest = text.partition(header)
    return f"{found}{rest.partition('## ')[0]}".rstrip("\n")


def _loss_section() -> str:
    file = _FOLDER / f"{_LOSSES}.json"
    if not file.exists():
        return _section(_LOSS_HEADER)
    lines = [_LOSS_HEADER]
    for triplets, sizes in json.loads(file.read_text()).items():
        cells = [f"{sizes['gathered'] / 1e6:,.1f}"]
        cells += [
            f"{sizes[name] / 1e6:,.1f} ({sizes[name] / sizes['gathered']:.1%})"
            for name in ("chunked", "ring")
        ]
        lines.append(f"| {int(triplets):,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
