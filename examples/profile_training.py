r"""
Measures what `DiTARTrainer` costs beside forward, backward and optimizer of the same model on the same batches.

    OMP_NUM_THREADS=2 python examples/profile_training.py
    python examples/profile_training.py --preset 0.1B --max-positions 15000 --bf16

A plain loop makes each update of the trainer before or after it, so that both meet the same machine. The trainer draws
and packs rows, averages weights, clips gradients and logs, as it does by default; the plain loop has the finished
batch. Rows are latents and tokens at random, of 2 to 12 seconds, in a table as `ditar encode` makes it.
"""

import argparse
import random
import statistics
import tempfile
import time

import torch
from datasets import Array2D, Dataset, Features, Sequence, Value
from transformers import TrainerCallback

from ditar_hf import DiTARConfig, DiTARFeatureExtractor, DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.batches import BatchArguments, TokenBudgetBatches, WeightedRows
from ditar_hf.training.examples import ExampleMaker
from ditar_hf.training.trainer import DiTARTrainer
from ditar_hf.training.training_arguments import DiTARTrainingArguments

TEXT = "The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs, he said."
NUM_ROWS, PATCHES_PER_SECOND, TOKENS_PER_SECOND = 1000, 10, 14


def make_rows(config: DiTARConfig, num_tokens: int) -> Dataset:
    """A table of latents and tokens."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)

    def rows():
        for index in range(NUM_ROWS):
            seconds = rng.uniform(2, 12)
            num_frames = config.patch_size * round(PATCHES_PER_SECOND * seconds)
            latents = torch.randn(num_frames, config.latent_dim, generator=generator).half().numpy()
            ids = [rng.randrange(4, num_tokens) for _ in range(round(TOKENS_PER_SECOND * seconds))]
            yield {"id": str(index), "input_ids": ids, "latents": latents}

    latents = Array2D((None, config.latent_dim), "float16")
    features = Features({"id": Value("string"), "input_ids": Sequence(Value("int32")), "latents": latents})
    return Dataset.from_dict({name: [row[name] for row in rows()] for name in features}, features).with_format("torch")


class MeasuredTrainer(DiTARTrainer):
    """A trainer that keeps the batch of its last update."""

    def get_batch_samples(self, *args):
        batches, counts = super().get_batch_samples(*args)
        (self.last_batch,) = batches
        return batches, counts


class PlainLoop(TrainerCallback):
    """
    Makes each update of the trainer without it, before and after it in turns: whoever comes first pays for kernels
    that are made for a new shape.
    """

    def __init__(self, model: DiTARForTextToSpeech, args: DiTARTrainingArguments):
        self.model, self.trainer = model.to(args.device).train(), None
        kind, options = DiTARTrainer.get_optimizer_cls_and_kwargs(args)
        self.optimizer = kind([p for p in self.model.parameters() if p.requires_grad], **options)
        self.trainer_seconds: list[float] = []
        self.plain_seconds: list[float] = []
        self.num_patches: list[int] = []
        self.since, self.seconds_here = _now(), 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        """Goes first in each second update."""
        if state.global_step % 2:
            self._update(args)

    def on_step_end(self, args, state, control, **kwargs):
        """The trainer's update lasted since the end of its last one, but for what the plain one took."""
        now = _now()
        self.trainer_seconds.append(now - self.since - self.seconds_here)
        self.since, self.seconds_here = now, 0.0
        if state.global_step % 2:  # which is one more than at its beginning
            self._update(args)

    def _update(self, args: DiTARTrainingArguments):
        entered, batch = _now(), dict(self.trainer.last_batch)
        generator = torch.Generator(args.device).manual_seed(batch.pop("seed"))
        inputs = {name: value.to(args.device) for name, value in batch.items()}
        start = _now()
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
            loss = self.model(**inputs, generator=generator).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.plain_seconds.append(_now() - start)
        self.num_patches.append(int((inputs["labels"] == 0).sum()))
        self.seconds_here += _now() - entered


def _now() -> float:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="Size of the model.")
    parser.add_argument("--max-positions", type=int, default=1500, help="Positions of the LM in a batch.")
    parser.add_argument("--steps", type=int, default=40, help="Updates that are measured.")
    parser.add_argument("--skip", type=int, default=5, help="First updates, which are not.")
    parser.add_argument("--bf16", action="store_true", help="Compute in bf16, by autocast.")
    options = parser.parse_args(argv)
    tokenizer = DiTARTokenizer.from_texts([TEXT], "en-us")
    config = DiTARConfig.from_preset(options.preset, lm_config={"vocab_size": len(tokenizer)})
    processor = DiTARProcessor(DiTARFeatureExtractor(), tokenizer)
    rows = WeightedRows("rows", make_rows(config, len(tokenizer)))
    batches = TokenBudgetBatches([rows], ExampleMaker(processor), BatchArguments(options.max_positions, 256))
    with tempfile.TemporaryDirectory() as folder:
        args = DiTARTrainingArguments(
            folder,
            max_steps=options.skip + options.steps,
            bf16=options.bf16,
            use_cpu=not torch.accelerator.is_available(),
        )
        models = []
        for _ in range(2):
            torch.manual_seed(0)
            models.append(DiTARForTextToSpeech(config))
        loop = PlainLoop(models[1], args)
        trainer = MeasuredTrainer(models[0], args, train_dataset=batches, processing_class=processor, callbacks=[loop])
        loop.trainer = trainer
        trainer.train()
    report(loop, options.skip)


def report(loop: PlainLoop, num_skipped: int):
    """Throughput of both, and what the trainer costs: by medians, and over all, where windows of rows count too."""
    seconds = {"trainer": loop.trainer_seconds[num_skipped:], "plain loop": loop.plain_seconds[num_skipped:]}
    medians = []
    for name, values in seconds.items():
        pairs = zip(loop.num_patches[num_skipped:], values, strict=True)
        medians.append(statistics.median(number / second for number, second in pairs))
        print(f"{name}: {medians[-1]:.1f} patches a second, the median of {len(values)} updates")
    ours, plain = map(sum, seconds.values())
    print(f"overhead: {medians[1] / medians[0] - 1:.1%} by the medians, {ours / plain - 1:.1%} over all updates")


if __name__ == "__main__":
    main()
