r"""
Fine-tunes DiTAR on recordings with the library's own `Trainer`.

    python examples/finetune.py --model hub_cards/ditar-tiny-en --data my_voice --output_dir runs/my_voice \
        --num_train_epochs 20 --learning_rate 1e-4 --per_device_train_batch_size 8

`my_voice` is a folder with a `metadata.csv` whose columns are `file_name` and `text`, or anything else that
`AudioSource` reads. All options of `TrainingArguments` are options here. The result speaks:

    pipeline("text-to-speech", model="runs/my_voice")("Hello there.")
"""

from dataclasses import dataclass, field

from datasets import Dataset
from transformers import HfArgumentParser, Trainer, TrainingArguments

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor
from ditar_hf.training.audio import decode_audio, resample_audio, segment_of
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.data import AudioSource


@dataclass
class Arguments:
    """What is fine-tuned on what."""

    model: str = field(metadata={"help": "Folder or Hub id of a trained DiTAR."})
    data: str = field(metadata={"help": "Folder of recordings, or whatever `--format` says."})
    format: str = field(default="auto", metadata={"help": "Layout of the data, as in `AudioSource`."})
    streaming: bool = field(default=False, metadata={"help": "Read a data set as it arrives; needs `--max_steps`."})
    language: str | None = field(default=None, metadata={"help": "Language of the texts; the tokenizer's by default."})
    num_eval_rows: int = field(default=16, metadata={"help": "Rows kept for evaluation."})


def main(argv: list[str] | None = None):
    parser = HfArgumentParser((Arguments, TrainingArguments))
    parser.set_defaults(remove_unused_columns=False, eval_strategy="steps")  # a row is no input before it is collated
    arguments, training_arguments = parser.parse_args_into_dataclasses(argv)
    model = DiTARForTextToSpeech.from_pretrained(arguments.model)
    processor = DiTARProcessor.from_pretrained(arguments.model)
    rate = model.config.sampling_rate

    def load(batch: dict[str, list]) -> dict[str, list]:
        """Decodes audio when a row is drawn, so that nothing is stored twice."""
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        audio = [resample_audio(*decode_audio(row["audio"], **segment_of(row)), rate) for row in rows]
        return {"text": batch["text"], "audio": [{"array": samples, "sampling_rate": rate} for samples in audio]}

    source = AudioSource(arguments.data, format=arguments.format, streaming=arguments.streaming)
    rows, num_eval_rows = source.read(), arguments.num_eval_rows
    if isinstance(rows, Dataset):
        parts = rows.train_test_split(num_eval_rows, seed=training_arguments.seed).with_transform(load)
        train_rows, eval_rows = parts["train"], parts["test"]
    else:
        rows = rows.map(load, batched=True, batch_size=1, remove_columns=rows.column_names)
        train_rows, eval_rows = rows.skip(num_eval_rows), rows.take(num_eval_rows)

    trainer = Trainer(
        model,
        training_arguments,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        data_collator=DiTARDataCollator(processor, language=arguments.language),
        processing_class=processor,  # saved with the model
    )
    trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint)
    trainer.save_model()
    trainer.log_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
