"""Step 3 of the tiny recipe: texts to tokens, speech to latents, and the timing of both.

    python examples/tiny/prepare.py --vae hub_cards/ditar-vae-tiny --out runs/tiny/prepared --data runs/tiny/synthetic
    runs/tiny/kathleen

The data folders are those of synthesize.py and recordings.py: clips and a `metadata.jsonl` with timed phones.
Written are a processor (`processor/`) and a `datasets` data set (`dataset/`) with a row for each clip.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from alignment import spoken_tokens
from datasets import Array2D, Dataset, Features, Sequence, Value

from ditar_hf import DiTARFeatureExtractor, DiTARProcessor, DiTARTokenizer, DiTARVAE, DiTARVAEConfig

PATCH_SIZE = 4
MAX_SECONDS = 12.0
PEAK = 0.7  # of all speech that DiTAR is trained on, and so of the prompts that it hears
# digits, letters and names of other languages never occur in the texts, but users type them
EXTRA_TEXTS = ["0 1 2 3 4 5 6 7 8 9 10 11 12 20 100 1000.", "a b c d e f g h i j k l m n o p q r s t u v w x y z."]


def read_folder(folder: Path) -> list[dict]:
    """Rows of a data folder with the paths of their files."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    return [{**row, "path": folder / row["file_name"]} for row in rows]


def trimmed(
    audio: np.ndarray, rate: int, margin_seconds: float = 0.1, threshold_db: float = -40.0
) -> tuple[np.ndarray, float]:
    """Audio without silence at its ends but for a margin, and the seconds taken off in front."""
    frame = rate // 100
    level = np.sqrt(np.square(audio[: len(audio) // frame * frame].reshape(-1, frame)).mean(1))
    loud = np.flatnonzero(level > np.quantile(level, 0.95) * 10 ** (threshold_db / 20))
    margin = round(margin_seconds * 100)
    start, end = max(0, loud[0] - margin) * frame, (loud[-1] + 1 + margin) * frame
    return audio[start:end], start / rate


@torch.no_grad()
def encode(vae: DiTARVAE, clips: list[np.ndarray]) -> list[np.ndarray]:
    """Posterior means of clips, each padded with zeros to a multiple of a patch."""
    patch_length = PATCH_SIZE * vae.config.hop_length
    lengths = [-(-len(clip) // patch_length) * patch_length for clip in clips]
    waveforms = torch.zeros(len(clips), max(lengths))
    mask = torch.zeros(len(clips), max(lengths))
    for row, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        waveforms[row, : len(clip)] = torch.from_numpy(clip)
        mask[row, :length] = 1
    means = vae.encode(waveforms, mask).mode().numpy()
    return [mean[: length // vae.config.hop_length] for mean, length in zip(means, lengths, strict=True)]


def examples(
    shares: list[list[dict]], vae_folder: Path, processor_folder: Path, batch_size: int = 32
) -> Iterator[dict]:
    """Rows of the data set, in batches of the VAE; each process makes one of the shares on one thread."""
    (rows,) = shares  # `datasets` calls this for each element of a list, so one that held rows would load for each
    torch.set_num_threads(1)
    vae = DiTARVAE.from_pretrained(vae_folder).eval()
    tokenizer = DiTARProcessor.from_pretrained(processor_folder).tokenizer
    patch_seconds = PATCH_SIZE / vae.config.frame_rate
    for start in range(0, len(rows), batch_size):
        clips, timings = [], []
        for row in rows[start : start + batch_size]:
            audio, rate = soundfile.read(row["path"], dtype="float32")
            audio, offset = trimmed(audio, rate)
            audio = soxr.resample(audio, rate, vae.config.sampling_rate)
            clips.append(audio / max(1e-3, np.abs(audio).max()) * PEAK)
            timings.append([(name, a - offset, b - offset) for name, a, b in row["phones"]])
        for row, latents, phones in zip(rows[start : start + batch_size], encode(vae, clips), timings, strict=True):
            # a text of one space is that of speech of which nothing is known
            tokens = tokenizer.tokenize(row["text"]) if row["text"] else [" "]
            num_patches = len(latents) // PATCH_SIZE
            if not tokens or num_patches * patch_seconds > MAX_SECONDS:
                continue
            yield {
                "text": row["text"],
                "speaker": row["speaker"],
                "input_ids": tokenizer.convert_tokens_to_ids(tokens),
                "latents": latents,
                "alignment": spoken_tokens(phones, tokens, num_patches, patch_seconds),
                "length": len(tokens) + 1 + num_patches,
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--processor", type=Path, help="of data prepared before, to which these are added")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()

    vae_config = DiTARVAEConfig.from_pretrained(options.vae)
    rows = [row for folder in options.data for row in read_folder(folder)]
    # clips of about one length are encoded together, and each process has its share of all lengths
    rows.sort(key=lambda row: soundfile.info(row["path"]).duration)
    shares = [rows[start :: options.processes] for start in range(options.processes)]
    if options.processor:
        processor = DiTARProcessor.from_pretrained(options.processor)
    else:
        tokenizer = DiTARTokenizer.from_texts([*EXTRA_TEXTS, *(row["text"] for row in rows if row["text"])], "en-us")
        feature_extractor = DiTARFeatureExtractor(
            sampling_rate=vae_config.sampling_rate,
            hop_length=vae_config.hop_length,
            patch_size=PATCH_SIZE,
            prompt_peak=PEAK,
        )
        processor = DiTARProcessor(feature_extractor, tokenizer)
    processor.save_pretrained(options.out / "processor")
    features = Features(
        {
            "text": Value("string"),
            "speaker": Value("string"),
            "input_ids": Sequence(Value("int32")),
            "latents": Array2D((None, vae_config.latent_dim), "float32"),
            "alignment": Sequence(Value("int32")),
            "length": Value("int32"),
        }
    )
    dataset = Dataset.from_generator(
        examples,
        features=features,
        cache_dir=str(options.out / "cache"),
        gen_kwargs={"shares": shares, "vae_folder": options.vae, "processor_folder": options.out / "processor"},
        num_proc=options.processes,
    )
    dataset.save_to_disk(options.out / "dataset")
    known = np.mean([any(index >= 0 for index in row) for row in dataset["alignment"]])
    patches = sum(map(len, dataset["alignment"]))
    hours = patches * PATCH_SIZE / vae_config.frame_rate / 3600
    print(f"{len(dataset)} clips, {hours:.2f} h, timing known for {known:.0%}")


if __name__ == "__main__":
    main()
