r"""
Fine-tunes DiTAR on recordings with the library's own `Trainer`.

    python examples/finetune.py --model hub_cards/ditar-tiny-en --data my_voice --output_dir runs/my_voice \
        --num_train_epochs 20 --learning_rate 1e-4 --per_device_train_batch_size 8

`my_voice` is a folder with a `metadata.csv` whose columns are `file_name` and `text`, or anything else that
`AudioSource` reads. All options of `TrainingArguments` are options here. The result speaks:

    pipeline("text-to-speech", model="runs/my_voice")("Hello there.")
"""

from dataclasses import dataclass, field
from itertools import islice

from datasets import Dataset
from transformers import HfArgumentParser, Trainer, TrainingArguments

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.data import AudioSource
from ditar_hf.training.examples import UNUSABLE, ExampleMaker


@dataclass
class Arguments:
    """What is fine-tuned on what."""

    model: str = field(metadata={"help": "Folder or Hub id of a trained DiTAR."})
    data: str = field(metadata={"help": "Folder of recordings, or whatever `--format` says."})
    format: str = field(default="auto", metadata={"help": "Layout of the data, as in `AudioSource`."})
    streaming: bool = field(default=False, metadata={"help": "Read a data set as it arrives; needs `--max_steps`."})
    language: str | None = field(default=None, metadata={"help": "Language of rows that do not name their own."})
    num_eval_rows: int = field(default=16, metadata={"help": "Rows kept for evaluation."})


def main(argv: list[str] | None = None):
    parser = HfArgumentParser((Arguments, TrainingArguments))
    parser.set_defaults(remove_unused_columns=False, eval_strategy="steps")  # a row is no input before it is collated
    arguments, training_arguments = parser.parse_args_into_dataclasses(argv)
    model = DiTARForTextToSpeech.from_pretrained(arguments.model)
    maker = ExampleMaker(DiTARProcessor.from_pretrained(arguments.model))

    def load(batch: dict[str, list]) -> dict[str, list]:
        """Examples of the rows that can be used; audio is decoded when a row is drawn, so nothing is stored twice."""
        examples = []
        for row in (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)):
            try:
                examples.append(maker.complete(maker.outline(row)))
            except UNUSABLE as error:
                print(f"{row['id']} is left out: {error}")
        return {name: [example[name] for example in examples] for name in ("input_ids", "audio")}

    source = AudioSource(arguments.data, arguments.format, streaming=arguments.streaming, language=arguments.language)
    rows, num_eval_rows = source.read(), arguments.num_eval_rows
    if isinstance(rows, Dataset):
        usable = [index for index in range(len(rows)) if load(rows[index : index + 1])["audio"]]
        print(f"{len(usable)} of {len(rows)} rows can be used")
        rows = rows.select(usable).shuffle(seed=training_arguments.seed).with_transform(load)
    else:
        rows = rows.map(load, batched=True, batch_size=1, remove_columns=rows.column_names)
    if num_eval_rows < 1 or next(islice(rows, num_eval_rows, None), None) is None:
        parser.error(f"--num_eval_rows is {num_eval_rows}: there must be some, and others left to train on")

    trainer = Trainer(
        model,
        training_arguments,
        train_dataset=rows.skip(num_eval_rows),
        eval_dataset=rows.take(num_eval_rows),
        data_collator=DiTARDataCollator(maker.processor),
        processing_class=maker.processor,  # saved with the model
    )
    trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint)
    trainer.save_model()
    trainer.log_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
