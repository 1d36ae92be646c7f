"""Step 5 of the tiny recipe: what was trained, as a folder that `from_pretrained` loads, in half precision on disk.

    python examples/tiny/export.py --ditar runs/tiny/ditar --vae runs/tiny/vae --prepared runs/tiny/prepared \
        --out hub_cards/ditar-tiny-en

`--ditar` may be a checkpoint of a run that still goes on. The alignment head stays behind: it is a training aid.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from averaging import AveragedWeights
from datasets import load_from_disk
from safetensors.torch import load_file

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARVAE


def load(ditar: Path, vae: Path) -> DiTARForTextToSpeech:
    """The trained model with averaged weights where they lie beside it, without its training aids, around a VAE."""
    trained = DiTARForTextToSpeech.from_pretrained(ditar)
    if (average := ditar / AveragedWeights.file_name).exists():
        trained.load_state_dict(load_file(average), strict=False)
    values = trained.config.to_dict()
    values["alignment_loss_weight"] = 0.0
    model = DiTARForTextToSpeech.from_vae(DiTARVAE.from_pretrained(vae), type(trained.config)(**values))
    state = {k: v for k, v in trained.state_dict().items() if not k.startswith(("vae.", "alignment_head."))}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("vae.") for name in missing):
        raise ValueError(f"`--ditar {ditar}` does not fit: missing {missing}, unexpected {unexpected}.")
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ditar", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    options = parser.parse_args()

    model = load(options.ditar, options.vae)
    rows = load_from_disk(options.prepared / "dataset")
    rates = [len(row) / len(ids) for row, ids in zip(rows["alignment"], rows["input_ids"], strict=True)]
    # a fifth beyond the fastest and the slowest of a thousand clips
    model.generation_config.min_patches_per_token = round(float(np.quantile(rates, 0.001)) / 1.2, 2)
    model.generation_config.max_patches_per_token = round(float(np.quantile(rates, 0.999)) * 1.2, 2)
    model.generation_config.temperature = options.temperature
    model.generation_config.guidance_scale = options.guidance_scale
    # half precision on disk only: the statistics of the latents stay, and the configuration says to load in fp32
    state = {k: v if "latent_" in k else v.half() for k, v in model.state_dict().items()}
    model.save_pretrained(options.out, state_dict=state)
    DiTARProcessor.from_pretrained(options.prepared / "processor").save_pretrained(options.out)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{options.out}: {model.num_parameters() / 1e6:.1f}M parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
