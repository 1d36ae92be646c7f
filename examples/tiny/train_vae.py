"""Step 2 of the tiny recipe: the speech tokenizer, trained by the plain `Trainer` on random crops of clean speech.

    python examples/tiny/train_vae.py --out runs/tiny/vae --data runs/tiny/synthetic=0.55 path/to/kathleen=0.45

Each data folder holds audio files anywhere below it; the number is the share of crops that come from it.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from averaging import AveragedWeights
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from ditar_hf import DiTARConfig, DiTARVAE

CROP_SECONDS = 1.2
MAX_SHIFT = 0.12  # half of the crops are played up to this much faster or slower: more voices than were recorded


class RandomCrops(Dataset):
    """Crops `{"waveforms": (num_samples,)}` of one length, drawn by index, so that a run can be repeated."""

    def __init__(self, shares: dict[Path, float], sampling_rate: int, hop_length: int, length: int, seed: int):
        self.files = [sorted([*folder.rglob("*.flac"), *folder.rglob("*.wav")]) for folder in shares]
        for folder, files in zip(shares, self.files, strict=True):
            if not files:
                raise ValueError(f"`--data {folder}`: no .flac or .wav file below this folder.")
        self.weights = list(shares.values())
        self.sampling_rate, self.length, self.seed = sampling_rate, length, seed
        self.crop = round(CROP_SECONDS * sampling_rate) // hop_length * hop_length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{self.seed}-{index}")
        path = rng.choice(rng.choices(self.files, self.weights)[0])
        info = soundfile.info(path)
        rate = round(info.samplerate * (1 + rng.choice((0, 1)) * rng.uniform(-MAX_SHIFT, MAX_SHIFT)))
        length = round(CROP_SECONDS * rate)
        start = rng.randrange(max(1, info.frames - length + 1))
        audio, _ = soundfile.read(path, frames=length, start=start, dtype="float32")
        audio = soxr.resample(audio, rate, self.sampling_rate)[: self.crop]
        # levels of the sources differ by 20 dB: peaks between -16 and -1 dB, half of the crops upside down
        audio = audio / max(1e-3, np.abs(audio).max()) * 10 ** (-rng.uniform(1, 16) / 20) * rng.choice((-1, 1))
        return {"waveforms": torch.from_numpy(np.pad(audio, (0, self.crop - len(audio))).astype(np.float32))}


@torch.no_grad()
def measure_latent_statistics(vae: DiTARVAE, crops: Dataset, batch_size: int = 16):
    """Sets the mean and standard deviation of the latents' channels as they are over these crops."""
    vae.eval()
    vae.set_latent_statistics(torch.zeros(vae.config.latent_dim), torch.ones(vae.config.latent_dim))
    means = []
    for start in range(0, len(crops), batch_size):
        batch = torch.stack([crops[i]["waveforms"] for i in range(start, min(start + batch_size, len(crops)))])
        means.append(vae.encode(batch.to(vae.device)).mode().flatten(0, 1).cpu())
    means = torch.cat(means)
    vae.set_latent_statistics(means.mean(0), means.std(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True, metavar="FOLDER=SHARE")
    parser.add_argument("--start-from", type=Path, help="folder of a trained VAE to continue from")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only: latents stay")
    parser.add_argument("--schedule", default="cosine", help="of the learning rate, a name that `Trainer` knows")
    parser.add_argument("--ema-decay", type=float, default=0.0, help="average the weights; 0 does not")
    parser.add_argument("--max-steps", type=int, default=3600)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    shares = {Path(item.rpartition("=")[0]): float(item.rpartition("=")[2]) for item in options.data}
    torch.manual_seed(options.seed)
    if options.start_from:
        vae = DiTARVAE.from_pretrained(options.start_from)
    else:
        vae = DiTARVAE(DiTARConfig.from_preset("tiny").vae_config)
    vae.encoder.requires_grad_(not options.freeze_encoder)
    rate, hop = vae.config.sampling_rate, vae.config.hop_length
    crops = RandomCrops(shares, rate, hop, options.max_steps * options.batch_size, options.seed)
    held_out = RandomCrops(shares, rate, hop, 256, options.seed + 1)
    arguments = TrainingArguments(
        output_dir=str(options.out),
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=50,
        adam_beta1=0.8,
        adam_beta2=0.99,
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=25,
        save_steps=200,
        save_total_limit=1,
        remove_unused_columns=False,
        label_names=[],
        dataloader_num_workers=0,
        disable_tqdm=True,
        report_to=[],
        seed=options.seed,
    )
    average = AveragedWeights(vae, options.ema_decay)
    trainer = Trainer(vae, arguments, train_dataset=crops, callbacks=[average] if options.ema_decay else [])
    trainer.train()
    if options.ema_decay:
        vae.load_state_dict(average.average, strict=False)
    if not options.freeze_encoder:
        measure_latent_statistics(vae, held_out)
    vae.save_pretrained(options.out)
    print(f"saved to {options.out}")


if __name__ == "__main__":
    main()
