"""The plain `Trainer` on waveforms and latents, drawn by number or streamed: it trains, and evaluates all alike."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from ditar_hf import DiTARFeatureExtractor, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.audio import decode_audio, resample_audio
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.data import AudioSource
from ditar_hf.training.latents import encode_source, load_latents

RATE = 24_000
TEXTS = ["The quick brown fox.", "Hello there!", "Good morning.", "Over the lazy dog.", "How are you?", "Very well."]


@pytest.fixture
def source(recordings):
    """The recordings, with texts."""
    lines = ["file_name,text", *(f'{index}.wav,"{text}"' for index, text in enumerate(TEXTS))]
    (recordings / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return AudioSource(str(recordings))


@pytest.fixture
def processor():
    return DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_texts(TEXTS))


@pytest.fixture
def model(make_model, processor):
    return make_model(lm_config={"vocab_size": len(processor.tokenizer)})


def load(row):
    return {"audio": {"array": resample_audio(*decode_audio(row["audio"]), RATE), "sampling_rate": RATE}}


@pytest.fixture(params=["waveforms", "latents"])
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["by number", "streamed"])
def rows(request, kind, source, model, tmp_path):
    if kind == "latents":
        encode_source(model.vae, source, tmp_path / "store")
        return load_latents(tmp_path / "store", model.vae, streaming=request.param)
    stream = source.read().to_iterable_dataset().map(load, features=None)
    return stream if request.param else [{**row, **load(row)} for row in source.read()]


def test_it_trains_and_evaluates(kind, rows, model, processor, tmp_path):
    collator = DiTARDataCollator(processor)
    with torch.no_grad():
        expected = model(**collator(list(rows))).loss.item()
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=4,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=len(TEXTS),
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        remove_unused_columns=False,
        save_strategy="no",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collator)

    # before training, the loss of the whole as one batch, whatever form it comes in
    tolerance = 1e-5 if kind == "waveforms" else 1e-2
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=tolerance)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()
    same = {name for name, value in model.state_dict().items() if torch.equal(before[name], value)}
    assert same == {name for name in before if name.startswith("vae.")}
    history = trainer.state.log_history
    assert len([entry for entry in history if "loss" in entry]) == 4
    evaluated = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert len(evaluated) == 2 and evaluated[1] < evaluated[0] < expected
    # times and noise of an evaluation are fixed, so its curves can be compared
    assert trainer.evaluate()["eval_loss"] == evaluated[1]
