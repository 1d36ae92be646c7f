"""Step 4 of the tiny recipe: DiTAR itself, by the plain `Trainer` with our collator.

    python examples/tiny/train.py --vae hub_cards/ditar-vae-tiny --prepared runs/tiny/prepared --out runs/tiny/ditar

Beside the paper's recipe: noise on the latents that are fed back, the alignment head for clips with known timing, and
a head that tells what the voice is like.
The run can be resumed with `--resume`.
"""

import argparse
import random
from pathlib import Path

import torch
from averaging import AveragedWeights
from datasets import concatenate_datasets, load_from_disk
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ditar_hf import DiTARConfig, DiTARForTextToSpeech, DiTARProcessor, DiTARVAE
from ditar_hf.training.collator import DiTARDataCollator


class SpokenSentences(Dataset):
    """
    Batches of examples of about one length, drawn by index: `{"batch": [example, …]}`.

    Some examples are two clips of one speaker in a row, so that the model learns to go on in a voice that it hears.
    """

    def __init__(self, rows, shares: dict[str, float], space_id: int, options: argparse.Namespace):
        self.rows, self.space_id = rows, space_id
        self.num_batches, self.batch_patches = options.max_steps, options.batch_patches
        self.pairs, self.seed = options.pairs, options.seed
        self.speakers, self.weights = {}, []
        lengths = rows["length"]
        for index, speaker in enumerate(rows["speaker"]):
            self.speakers.setdefault(speaker, []).append(index)
        for speaker in self.speakers:
            self.speakers[speaker].sort(key=lengths.__getitem__)
        # the share of a source is split over its speakers by their number of clips
        sources = {s: next((key for key in shares if s.startswith(key)), None) for s in self.speakers}
        for speaker, indices in self.speakers.items():
            size = sum(len(v) for s, v in self.speakers.items() if sources[s] == sources[speaker])
            self.weights.append(shares.get(sources[speaker], 0.0) * len(indices) / size)
        self.names = list(self.speakers)

    def __len__(self) -> int:
        return self.num_batches

    def draw(self, rng: random.Random, quantile: float) -> dict:
        """One example at about a quantile of the lengths of its speaker."""
        indices = self.speakers[rng.choices(self.names, self.weights)[0]]
        place = int((quantile + rng.uniform(-0.05, 0.05)) * len(indices))
        example = self.rows[indices[min(len(indices) - 1, max(0, place))]]
        if rng.random() < self.pairs:
            return joined(self.rows[rng.choice(indices)], example, self.space_id)
        return example

    def __getitem__(self, index: int) -> dict:
        rng = random.Random(f"{self.seed}-{index}")
        quantile, batch, patches = rng.random(), [], 0
        while patches < self.batch_patches:
            batch.append(self.draw(rng, quantile))
            patches += len(batch[-1]["alignment"])  # its targets
        return {"batch": batch}


def joined(first: dict, second: dict, space_id: int) -> dict:
    """Two clips of one speaker in a row as one example."""
    shift = len(first["input_ids"]) + 1
    return {
        "input_ids": [*first["input_ids"], space_id, *second["input_ids"]],
        "latents": torch.cat([torch.as_tensor(first["latents"]), torch.as_tensor(second["latents"])]),
        "alignment": [*first["alignment"], *(i if i < 0 else i + shift for i in second["alignment"])],
    }


class EqualShapes:
    """
    Collates batches to few shapes: as many targets in each, and widths of whole `WIDTH_STEP`s.

    A kernel for matrices is made anew for each shape that it has not met, which took nearly half of the time.
    """

    WIDTH_STEP = 16

    def __init__(self, collator: DiTARDataCollator, num_targets: int):
        self.collator, self.num_targets = collator, num_targets

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        batch = self.collator(items[0]["batch"])
        padding = -batch["input_ids"].shape[1] % self.WIDTH_STEP
        for name, value in (("input_ids", 0), ("attention_mask", 0), ("labels", -100), ("alignment_targets", -100)):
            batch[name] = torch.nn.functional.pad(batch[name], (padding, 0), value=value)
        targets = batch["alignment_targets"]
        targets[targets >= 0] += padding
        # the surplus is heard but not learnt
        surplus = (batch["labels"] == 0).nonzero()[self.num_targets :]
        batch["labels"][surplus[:, 0], surplus[:, 1]] = -100
        return batch


class LossLog(TrainerCallback):
    """Adds the parts of the loss to the log."""

    def __init__(self):
        self.sums, self.count = {}, 0

    def hook(self, module, args, output):
        for name in ("diffusion_loss", "stop_loss", "alignment_loss", "voice_loss"):
            if output.get(name) is not None:
                self.sums[name] = self.sums.get(name, 0.0) + output[name].detach()
        self.count += 1

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.count:
            print({name: round(float(value) / self.count, 4) for name, value in self.sums.items()}, flush=True)
        self.sums, self.count = {}, 0


class VoiceHead(torch.nn.Module):
    """
    A training aid: each state that a patch is drawn from tells mean and deviation of the example's latents over time.

    To tell them before the end, states have to gather what a voice sounds like from the patches heard so far.
    """

    def __init__(self, hidden_size: int, clips: list[torch.Tensor], weight: float):
        super().__init__()
        self.weight = weight
        self.proj = torch.nn.Linear(hidden_size, 2 * clips[0].shape[-1])
        voices = torch.stack([torch.cat([clip.mean(0), clip.std(0)]) for clip in clips])  # (clips, 2 * D)
        self.register_buffer("mean", voices.mean(0), persistent=False)
        self.register_buffer("std", voices.std(0), persistent=False)

    def forward(self, hidden_states, labels, latents, latents_mask) -> torch.Tensor:
        mask = latents_mask[..., None].to(latents.dtype)
        mean = (latents * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)  # (B, 1, D)
        std = ((latents - mean).square() * mask).sum(1, keepdim=True).div(mask.sum(1, keepdim=True)).sqrt()
        voices = (torch.cat([mean, std], dim=-1)[:, 0] - self.mean) / self.std  # (B, 2 * D)
        row, position = (labels == 0).nonzero(as_tuple=True)
        return torch.nn.functional.mse_loss(self.proj(hidden_states[row, position].float()), voices[row])

    def hook(self, model, args, batch, output):
        """Adds this loss to that of the model's forward."""
        voice_loss = self(output.last_hidden_state, batch["labels"], batch["latents"], batch["latents_mask"])
        output["voice_loss"] = voice_loss
        output["loss"] = output["loss"] + self.weight * voice_loss
        return output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shares", nargs="+", default=["flite=1"], metavar="SPEAKER_PREFIX=SHARE")
    parser.add_argument("--start-from", type=Path, help="folder of a model of this recipe to go on from")
    parser.add_argument("--history-noise-std", type=float, default=0.3, help="noise on the latents that are fed back")
    parser.add_argument("--num-noise-samples", type=int, default=1, help="draws of time and noise for each patch")
    parser.add_argument("--max-steps", type=int, default=9000)
    parser.add_argument("--decay-steps", type=int, default=1500, help="last steps, in which the learning rate falls")
    parser.add_argument("--batch-patches", type=int, default=800)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--pairs", type=float, default=0.5, help="share of examples that are two clips in a row")
    parser.add_argument("--voice-weight", type=float, default=0.2, help="of the loss of the voice head")
    parser.add_argument("--ema-decay", type=float, default=0.999)
    parser.add_argument("--compile", action="store_true", help="compile LocDiT and patch encoder; needs a compiler")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    processor = DiTARProcessor.from_pretrained(options.prepared[0] / "processor")
    rows = concatenate_datasets([load_from_disk(folder / "dataset") for folder in options.prepared])
    rows = rows.with_format("numpy", columns=["latents"], output_all_columns=True)
    config = DiTARConfig.from_preset(
        "tiny",
        lm_config={"vocab_size": len(processor.tokenizer)},
        alignment_loss_weight=0.2,
        history_noise_std=options.history_noise_std,
        num_noise_samples=options.num_noise_samples,
    )
    model = DiTARForTextToSpeech.from_vae(DiTARVAE.from_pretrained(options.vae), config)
    if options.start_from:
        start = DiTARForTextToSpeech.from_pretrained(options.start_from).state_dict()
        missing, unexpected = model.load_state_dict(start, strict=False)
        if unexpected or any(not name.startswith("alignment_head.") for name in missing):
            raise ValueError(f"`--start-from {options.start_from}` lacks {missing} or has {unexpected} more.")
    # LocDiT's sequences are 9 tokens long: with attention written out, a step took 0.7 of the time on two CPU cores
    model.set_attn_implementation("eager")
    if options.compile:
        model.locdit.transformer.compile(dynamic=True)
        model.model.patch_encoder.transformer.compile(dynamic=True)
    shares = {item.rpartition("=")[0]: float(item.rpartition("=")[2]) for item in options.shares}
    sentences = SpokenSentences(rows, shares, processor.tokenizer.convert_tokens_to_ids(" "), options)
    if options.voice_weight:
        clips = [torch.as_tensor(rows[index]["latents"]) for index in range(0, len(rows), max(1, len(rows) // 2000))]
        model.voice_head = VoiceHead(config.lm_config.hidden_size, clips, options.voice_weight)
        model.register_forward_hook(model.voice_head.hook, with_kwargs=True)
    log, average = LossLog(), AveragedWeights(model, options.ema_decay)
    model.register_forward_hook(log.hook)
    arguments = TrainingArguments(
        output_dir=str(options.out),
        max_steps=options.max_steps,
        per_device_train_batch_size=1,  # an item of the data set is a batch
        learning_rate=options.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": options.decay_steps, "decay_type": "1-sqrt"},
        warmup_steps=200,
        adam_beta1=0.9,
        adam_beta2=0.98,
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=50,
        save_steps=250,
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        seed=options.seed,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=sentences,
        data_collator=EqualShapes(DiTARDataCollator(processor), options.batch_patches),
        callbacks=[log, average],
    )
    checkpoint = get_last_checkpoint(options.out) if options.resume else None
    if checkpoint:
        average.resume(checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    model.load_state_dict(average.average, strict=False)
    if options.voice_weight:
        del model.voice_head
    model.save_pretrained(options.out)
    processor.save_pretrained(options.out)


if __name__ == "__main__":
    main()
