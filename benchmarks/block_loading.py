"""One layer out of a model: bytes read, peak memory and time, against loading the whole model with transformers.

    python benchmarks/block_loading.py [--rounds 3] [--hidden 1024] [--layers 16] [--keep FILE]

Writes a Llama model of random weights to disk (0.6 GB with the defaults: bfloat16 in shards, and Q8_0 as GGUF), then
loads its last layer in each way, in turn, each time in a fresh process; the time starts after the imports. Goals:
bytes read at most 1.2 times the layer's, peak memory at most 2.5 times the layer in float32. Linux only:
peaks are the kernel's count of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from figures import add_keep, keep

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/support"))

WAYS = {
    "transformers": "transformers, bfloat16",
    "float32": "transformers, float32",
    "folder": "file: folder in shards",
    "hub": "hf: over HTTP",
    "gguf": "file: GGUF, Q8_0",
    "bank": "again, from the bank",
}
HEADER = f"{'':<28}{'s':>8}{'MB read':>10}{'read / layer':>14}{'peak MB':>10}{'peak / float32':>16}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=16)
    add_keep(parser)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child[0], Path(args.child[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder), args.hidden, args.layers)
        keep(args.keep, compare(Path(folder), args.rounds) | {"layers": args.layers})


def compare(folder: Path, rounds: int) -> dict[str, float]:
    """Prints the table; returns bytes read for each byte of the layer."""
    from hub_server import serving

    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    with serving(folder / "model") as hub:
        for round_ in range(rounds):
            for way in WAYS:
                bank = folder / f"bank{round_}" / ("folder" if way == "bank" else way)
                environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "BANK": str(bank)}
                words = [sys.executable, __file__, "--child", way, str(folder)]
                done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
                results[way].append(json.loads(done.stdout))
    print(HEADER)
    shares = {}
    for way, runs in results.items():
        seconds, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "peak"))
        read, layer, parameters = (runs[0][key] for key in ("read", "layer", "parameters"))
        shares[f"{WAYS[way]}: bytes read for each byte of the layer"] = read / layer
        print(
            f"{WAYS[way]:<28}{seconds:>8.2f}{read / 1e6:>10.1f}{read / layer:>14.2f}{peak / 1e6:>10.1f}"
            f"{peak / (4 * parameters):>16.2f}"
        )
    return shares


def measure(way: str, folder: Path) -> dict[str, float]:
    """Load in one way. peak: bytes of resident memory beyond that of the imports. read, layer: bytes."""
    import gguf.quants  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama as llama

    import mvl_auto.llm.block
    import mvl_auto.llm.formats.safetensors_layers  # noqa: F401
    from mvl_auto.llm import load_block

    sources = {
        "folder": f"file:{folder / 'model'}",
        "hub": "hf:made/model",
        "gguf": f"file:{folder / 'model.gguf'}",
        "bank": f"file:{folder / 'model'}",
    }
    torch.zeros(1).exp()
    reset_peak()
    before, start = resident("VmRSS"), time.perf_counter()
    if way in ("transformers", "float32"):
        dtype = torch.float32 if way == "float32" else torch.bfloat16
        model = llama.LlamaForCausalLM.from_pretrained(folder / "model", dtype=dtype)
        layer = [*model.model.layers[-1].parameters(), *model.model.norm.parameters()]
        touched = sum(weight.float().sum() for weight in layer)
        files = (folder / "model").glob("*.safetensors")
        read, size = sum(file.stat().st_size for file in files), sum(2 * w.numel() for w in layer)
    else:
        block = load_block(sources[way], "last", Path(os.environ["BANK"]))
        layer = list(block.parameters())
        touched = sum(weight.float().sum() for weight in layer)
        read, size = block.card.bytes_read, block.card.bytes_layer
        if way == "bank":
            read = size = sum(weight.numel() * weight.element_size() for weight in layer)
    seconds, peak = time.perf_counter() - start, resident("VmHWM") - before
    assert touched.isfinite()
    return {
        "seconds": seconds,
        "peak": peak,
        "read": read,
        "layer": size,
        "parameters": sum(weight.numel() for weight in layer),
    }


def resident(key: str) -> int:
    """Bytes of resident memory: VmRSS is the current value, VmHWM the peak since reset_peak."""
    status = Path("/proc/self/status").read_text()
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith(key))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def make_models(folder: Path, hidden: int, layers: int) -> None:
    import torch
    from gguf import GGMLQuantizationType
    from gguf_models import write_gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        num_hidden_layers=layers,
        vocab_size=32000,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "model", max_shard_size="200MB")
    write_gguf(folder / "model.gguf", model, GGMLQuantizationType.Q8_0, words=32000)


if __name__ == "__main__":
    main()
