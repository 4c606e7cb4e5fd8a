"""Whether an exported program has the layers of the model that it was exported from.

Run: ``python -m benchmarks.exported_programs``. Each model is exported, saved, and read again as
``file.pt2``. The table says whether its outputs are bit for bit the model's, and how many of the
modules that ran have the same path, type and FLOPs, and are blocks in both.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from layerbench import zoo
from layerbench.profilers.structure import profile_structure
from layerbench.records.structure import StructureRow

MODELS = ("resnet18", "mobilenet_v2", "vit_b_16", "swin_t")


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    print("| model | modules that ran | the same in the program | outputs | FLOPs |")
    print("|---|---:|---:|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in parser.parse_args().models:
            print(_row(name, Path(folder) / "program.pt2"), flush=True)


def _row(name: str, file: Path) -> str:
    model = zoo.resolve(name)
    built = zoo.build(model)
    with torch.no_grad():
        torch.export.save(torch.export.export(built.module, built.args), file)
        theirs = pytree.tree_leaves(built.module(*built.args))
        program = zoo.resolve(str(file))
        again = zoo.build(program)
        ours = pytree.tree_leaves(again.module(*again.args))
    equal = all(map(torch.equal, ours, theirs))
    rows = [profile_structure(workload).rows for workload in (model, program)]
    ran = {_facts(row) for row in rows[0] if row.calls}
    same = ran & {_facts(row) for row in rows[1]}
    flops = "the same" if rows[0][0].flops == rows[1][0].flops else "others"
    outputs = "the same bits" if equal else "others"
    return f"| `{name}` | {len(ran)} | {len(same)} | {outputs} | {flops} |"


def _facts(row: StructureRow) -> tuple[object, ...]:
    return row.path, row.type, row.flops, row.block


if __name__ == "__main__":
    main()
