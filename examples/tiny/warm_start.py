"""Moves a trained model of this recipe to another speech tokenizer, so that training need not begin anew.

    python examples/tiny/warm_start.py --model old --vae tokenizer --data runs/tiny/synthetic --out runs/tiny/warm

The latents of the old tokenizer are fitted, by least squares over clips that both encode, as a linear function of the
new ones, and the layers that read latents are turned accordingly. The layer that writes them begins at zero.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from prepare import PEAK, encode, read_folder, trimmed

from ditar_hf import DiTARForTextToSpeech, DiTARVAE


def read_clips(folders: list[Path], num_clips: int, sampling_rate: int) -> list[np.ndarray]:
    """Clips spread evenly over the folders, as prepare.py encodes them."""
    clips = []
    for folder in folders:
        rows = read_folder(folder)
        for row in rows[:: max(1, len(rows) * len(folders) // num_clips)]:
            audio, _ = trimmed(*soundfile.read(row["path"], dtype="float32"))
            audio = soxr.resample(audio, soundfile.info(row["path"]).samplerate, sampling_rate)
            clips.append(audio / max(1e-3, np.abs(audio).max()) * PEAK)
    return clips


def linear_fit(source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Matrix and bias with which `source (N, D)` comes nearest to `target (N, D)`, and the variance explained."""
    ones = torch.ones(len(source), 1)
    solution = torch.linalg.lstsq(torch.cat([source, ones], dim=1), target).solution  # (D + 1, D)
    matrix, bias = solution[:-1].T, solution[-1]
    rest = target - source @ matrix.T - bias
    return matrix, bias, float(1 - rest.var() / target.var())


def turn(model: DiTARForTextToSpeech, matrix: torch.Tensor, bias: torch.Tensor):
    """Puts the fitted function before the layers that read latents, and empties the one that writes velocities."""
    for layer in (model.model.patch_encoder.input_proj, model.locdit.history_proj, model.locdit.sample_proj):
        layer.bias += layer.weight @ bias
        layer.weight.copy_(layer.weight @ matrix)
    model.locdit.output_proj.weight.zero_()
    model.locdit.output_proj.bias.zero_()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to move")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the tokenizer to move to")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of clips")
    parser.add_argument("--num-clips", type=int, default=400)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    old, vae = DiTARForTextToSpeech.from_pretrained(options.model), DiTARVAE.from_pretrained(options.vae)
    clips = sorted(read_clips(options.data, options.num_clips, vae.config.sampling_rate), key=len)
    latents = []
    for tokenizer in (old.vae.eval(), vae.eval()):
        batches = [encode(tokenizer, clips[start : start + 32]) for start in range(0, len(clips), 32)]
        latents.append(torch.from_numpy(np.concatenate([clip for batch in batches for clip in batch])))
    matrix, bias, explained = linear_fit(latents[1], latents[0])
    print(f"{len(clips)} clips tell {explained:.0%} of the variance of the old latents from the new ones")
    model = DiTARForTextToSpeech.from_vae(vae, old.config)
    state = {name: value for name, value in old.state_dict().items() if not name.startswith("vae.")}
    model.load_state_dict(state, strict=False)
    turn(model, matrix, bias)
    model.save_pretrained(options.out)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
