r"""
What a training takes, found out on a CPU before a GPU is paid for: memory, work and hours, as tables in Markdown.

    python examples/plan_training.py
    python examples/plan_training.py --preset 1B --max-positions 7500 --gpus 32 --peak-tflops 989 --utilisation 0.3

Without options: the runs of the paper's appendix A.1 (Table 8, 0.5M updates), on A100s at 40% of their peak in bf16.
Parameters are counted. What a forward keeps for the backward is measured by torch's hooks on saved tensors, and
multiplications are counted by torch, both on models of one or two layers of the real widths under bf16 autocast: they
grow by the same amount with each layer. Utilisation is an assumption, until you have measured yours.
"""

import argparse
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ditar_hf import DiTARConfig, DiTARForTextToSpeech, DiTARVAE

# rows of ten seconds; English has about ten patches and fourteen phonemes a second
SECONDS_PER_ROW, PATCHES_PER_ROW, TOKENS_PER_ROW = 10, 100, 140
POSITIONS_PER_ROW = TOKENS_PER_ROW + 1 + PATCHES_PER_ROW
# bytes for each weight: fp32 weights, gradients, DDP's buckets of them, Adam's two moments, the average, bf16 copies
WHOLE_BYTES = {"weights": 4, "gradients": 4, "buckets": 4, "Adam": 8, "average": 4, "bf16 copies": 2}
PIECES_BYTES = {"weights": 4, "gradients": 4, "Adam": 8}
PAPER = [("0.1B", 15_000, 16), ("0.4B", 15_000, 16), ("0.6B", 15_000, 16), ("1B", 7_500, 32)]
PARTS = ("lm_config", "encoder_config", "locdit_config")


@dataclass
class Costs:
    """Of one position of the language model: bytes kept for the backward, all or recomputed, and operations."""

    saved_bytes: float
    recomputed_bytes: float
    flops: float

    def plus(self, other: "Costs", times: float) -> "Costs":
        return Costs(*(a + times * b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def build(config: DiTARConfig, num_layers: dict[str, int]) -> DiTARForTextToSpeech:
    """The model with other numbers of layers, and a small tokenizer of speech, which has no part in this."""
    values = config.to_dict()
    for part, number in num_layers.items():
        values[part]["num_hidden_layers"] = number
    small = DiTARConfig.from_preset("tiny").vae_config.to_dict()
    values["vae_config"] = {**small, "latent_dim": config.latent_dim}
    torch.manual_seed(0)
    return DiTARForTextToSpeech(DiTARConfig(**values)).train()


def make_batch(config: DiTARConfig, num_rows: int) -> dict[str, torch.Tensor]:
    """Rows of text and speech, without padding."""
    row = [config.lm_config.vocab_size - 1] * TOKENS_PER_ROW
    row += [config.audio_bos_token_id, *[config.audio_patch_token_id] * PATCHES_PER_ROW]
    input_ids = torch.tensor([row] * num_rows)
    labels = torch.full_like(input_ids, -100)
    labels[:, -1 - PATCHES_PER_ROW :] = 0
    labels[:, -1] = 1
    latents = torch.zeros(num_rows, PATCHES_PER_ROW * config.patch_size, config.latent_dim)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels, "latents": latents}


def count_saved_bytes(model: DiTARForTextToSpeech, num_rows: int) -> int:
    """Bytes that a forward keeps for the backward, weights and their copies in bf16 included."""
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor  # which stays there, so that no other takes its place
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        output = model(**make_batch(model.config, num_rows))
    number = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del output
    return number


def measure(model: DiTARForTextToSpeech) -> Costs:
    """Costs of a position of this model. Two batches tell what grows with them from the weights' copies."""
    saved = [(count_saved_bytes(model, 2) - count_saved_bytes(model, 1)) / POSITIONS_PER_ROW]
    model.activation_checkpointing_enable()
    saved.append((count_saved_bytes(model, 2) - count_saved_bytes(model, 1)) / POSITIONS_PER_ROW)
    model.activation_checkpointing_disable()
    model.config._attn_implementation = "eager"  # whose multiplications are all counted
    with FlopCounterMode(display=False) as counter:
        model(**make_batch(model.config, 1)).loss.backward()
    return Costs(*saved, counter.get_total_flops() / POSITIONS_PER_ROW)


def extrapolate(config: DiTARConfig) -> tuple[Costs, Costs]:
    """Costs of a position of the whole model, and of the most expensive of its layers."""
    single = measure(build(config, dict.fromkeys(PARTS, 1)))
    layers = {}
    for part in PARTS:
        double = measure(build(config, {**dict.fromkeys(PARTS, 1), part: 2}))
        layers[part] = double.plus(single, -1)
    whole = single
    for part, layer in layers.items():
        whole = whole.plus(layer, getattr(config, part).num_hidden_layers - 1)
    return whole, max(layers.values(), key=lambda layer: layer.saved_bytes)


def count_parameters(config: DiTARConfig) -> tuple[int, int]:
    """Weights that are trained, and those of the tokenizer of speech."""
    with torch.device("meta"):
        model = DiTARForTextToSpeech(config)
    frozen = sum(p.numel() for p in model.vae.parameters())
    return sum(p.numel() for p in model.parameters()) - frozen, frozen


def count_encoder_flops(config: DiTARConfig) -> int:
    """Operations of the tokenizer of speech on a second of speech, forward only."""
    vae = DiTARVAE(config.vae_config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encode(torch.zeros(1, config.sampling_rate))
    return counter.get_total_flops()


def plan(preset: str, max_positions: int, num_gpus: int, options: argparse.Namespace) -> dict[str, str]:
    """A row of each table, by its headings."""
    config = DiTARConfig.from_preset(preset)
    (trained, frozen), (costs, layer) = count_parameters(config), extrapolate(config)
    states, tokenizer = trained * sum(WHOLE_BYTES.values()), 4 * frozen
    activations = max_positions * costs.saved_bytes
    # a layer's activations are all there while they are computed anew
    recomputed = max_positions * (costs.recomputed_bytes + layer.saved_bytes)
    flops = max_positions * costs.flops
    seconds = flops / (1e12 * options.peak_tflops * options.utilisation)
    pieces = trained * sum(PIECES_BYTES.values()) / num_gpus
    speech = max_positions / POSITIONS_PER_ROW * SECONDS_PER_ROW
    return {
        "size": preset,
        "trained weights": f"{trained / 1e6:,.1f}M",
        "tokenizer of speech": f"{frozen / 1e6:,.1f}M",
        "positions": f"{max_positions:,}",
        "GPUs": str(num_gpus),
        "kept a position": f"{costs.saved_bytes / 1e6:.2f} MB",
        "recomputing": f"{costs.recomputed_bytes / 1e6:.3f} MB",
        "DDP": _gigabytes(states + tokenizer + activations),
        "DDP, recomputing": _gigabytes(states + tokenizer + recomputed),
        "states, DDP": _gigabytes(states),
        "states, FSDP2": _gigabytes(pieces),
        "TFLOPs an update": f"{flops / 1e12:,.1f}",
        "to encode its speech": f"{speech * count_encoder_flops(config) / 1e12:,.1f}",
        "seconds an update": f"{seconds:.2f}",
        "hours": f"{options.steps * seconds / 3600:,.0f}",
        "hours, recomputing": f"{options.steps * seconds * 4 / 3 / 3600:,.0f}",
        "GPU hours": f"{num_gpus * options.steps * seconds / 3600:,.0f}",
    }


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"


TABLES = {
    "Memory of a GPU": [
        *("size", "trained weights", "tokenizer of speech", "positions", "kept a position", "recomputing"),
        *("states, DDP", "DDP", "DDP, recomputing", "states, FSDP2"),
    ],
    "Time": [
        *("size", "GPUs", "positions", "TFLOPs an update", "to encode its speech", "seconds an update"),
        *("hours", "hours, recomputing", "GPU hours"),
    ],
}


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", help="Size of Table 8; those of the paper's runs by default.")
    parser.add_argument("--max-positions", type=int, default=15_000, help="Positions of the LM in a batch of a GPU.")
    parser.add_argument("--gpus", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--peak-tflops", type=float, default=312.0, help="Of a GPU, in bf16 without sparsity.")
    parser.add_argument("--utilisation", type=float, default=0.4, help="Share of the peak that is reached: assumed.")
    options = parser.parse_args(argv)
    runs = PAPER if options.preset is None else [(options.preset, options.max_positions, options.gpus)]
    rows = [plan(*run, options) for run in runs]
    for title, names in TABLES.items():
        print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
        for row in rows:
            print(f"| {' | '.join(row[name] for name in names)} |")


if __name__ == "__main__":
    main()
