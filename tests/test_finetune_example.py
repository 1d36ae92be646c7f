"""`examples/finetune.py` as it says itself: recordings go in, and out comes a model that the pipeline speaks with."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from transformers import pipeline

from ditar_hf import DiTARForTextToSpeech, DiTARTokenizer
from ditar_hf.training.examples import ExampleMaker

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "finetune.py"
TEXTS = ["The quick brown fox.", "Hello there!", "Good morning.", "Over the lazy dog.", "How are you?", "Very well."]
OPTIONS = {
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "num_eval_rows": 2,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture
def finetune(monkeypatch):
    spec = importlib.util.spec_from_file_location("finetune", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "finetune", module)  # where the parser looks up its types
    spec.loader.exec_module(module)

    def run(**options):
        options = {**OPTIONS, **options}
        module.main([word for name, value in options.items() for word in (f"--{name}", str(value))])

    return run


@pytest.fixture
def model(save_tiny, tmp_path):
    return save_tiny(tmp_path / "model", DiTARTokenizer.from_texts(TEXTS))


@pytest.fixture
def data(tmp_path):
    """Folder of recordings of 24 and 16 kHz with a metadata.csv."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["file_name,text"]
    for index, text in enumerate(TEXTS):
        rate = 24_000 if index % 2 else 16_000
        time = np.arange(round((0.4 + 0.05 * index) * rate)) / rate
        soundfile.write(folder / f"{index}.wav", 0.3 * np.sin(2 * np.pi * (110 + 30 * index) * time), rate)
        lines.append(f'{index}.wav,"{text}"')
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def assert_learnt_and_speaks(folder, model):
    before = DiTARForTextToSpeech.from_pretrained(model).state_dict()
    after = DiTARForTextToSpeech.from_pretrained(folder).state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("vae.")}
    speak = pipeline("text-to-speech", model=str(folder))
    speech = speak(TEXTS[1], generate_kwargs={"max_new_tokens": 2, "min_new_tokens": 2})
    assert speech["sampling_rate"] == 24_000 and speech["audio"].shape == (4800,)
    assert np.isfinite(speech["audio"]).all()


def test_a_folder_of_recordings(finetune, model, data, tmp_path, capsys):
    finetune(model=model, data=data, output_dir=tmp_path / "run", language="en-us", eval_steps=3, logging_steps=1)
    assert_learnt_and_speaks(tmp_path / "run", model)
    assert "eval_loss" in capsys.readouterr().out


def test_a_data_set_that_is_streamed(finetune, model, data, tmp_path):
    audio = [str(data / f"{index}.wav") for index in range(len(TEXTS))]
    rows = Dataset.from_dict({"audio": audio, "text": TEXTS}).cast_column("audio", Audio())
    (tmp_path / "parquet").mkdir()
    rows.to_parquet(tmp_path / "parquet" / "train.parquet")
    options = {"data": tmp_path / "parquet", "format": "datasets", "streaming": True}
    finetune(model=model, output_dir=tmp_path / "run", **options)
    assert_learnt_and_speaks(tmp_path / "run", model)


def break_two_rows(data):
    """Of one row the audio is no audio, of another one nothing is said that the model knows."""
    (data / "2.wav").write_bytes((data / "2.wav").read_bytes()[:40])
    table = (data / "metadata.csv").read_text(encoding="utf-8")
    (data / "metadata.csv").write_text(table.replace(TEXTS[4], "123"), encoding="utf-8")


def test_rows_that_cannot_be_used_are_named_and_left_out(finetune, model, data, tmp_path, capsys):
    break_two_rows(data)
    finetune(model=model, data=data, output_dir=tmp_path / "run", logging_steps=1)
    printed = capsys.readouterr().out
    assert "2.wav is left out: it" in printed and "4.wav is left out: " in printed
    assert "4 of 6 rows can be used" in printed and "eval_loss" in printed
    assert_learnt_and_speaks(tmp_path / "run", model)


def test_of_a_stream_too(finetune, model, data, tmp_path, capsys):
    break_two_rows(data)
    audio = [{"bytes": (data / f"{index}.wav").read_bytes(), "path": f"{index}.wav"} for index in range(len(TEXTS))]
    rows = Dataset.from_dict({"audio": audio, "text": [*TEXTS[:4], "123", TEXTS[5]]}).cast_column("audio", Audio())
    (tmp_path / "parquet").mkdir()
    rows.to_parquet(tmp_path / "parquet" / "train.parquet")
    finetune(model=model, data=tmp_path / "parquet", streaming=True, output_dir=tmp_path / "run")
    printed = capsys.readouterr().out
    assert "2.wav is left out: it" in printed and "4.wav is left out: " in printed and "eval_loss" in printed


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("num_eval_rows", [0, 6, 16])
def test_nothing_to_train_on_is_said(finetune, model, data, tmp_path, capsys, num_eval_rows, streaming):
    if streaming:
        audio = [str(data / f"{index}.wav") for index in range(len(TEXTS))]
        rows = Dataset.from_dict({"audio": audio, "text": TEXTS}).cast_column("audio", Audio())
        data = tmp_path / "parquet"
        data.mkdir()
        rows.to_parquet(data / "train.parquet")
    with pytest.raises(SystemExit):
        finetune(model=model, data=data, output_dir=tmp_path / "run", num_eval_rows=num_eval_rows, streaming=streaming)
    assert f"--num_eval_rows is {num_eval_rows}: there must be some" in capsys.readouterr().err


def test_examples_are_those_of_the_library(finetune, save_tiny, data, tmp_path, monkeypatch):
    """Languages of the rows themselves, and no silence at the end."""
    model = save_tiny(tmp_path / "model", DiTARTokenizer.from_texts({"en-us": TEXTS, "de": ["Guten Morgen."]}))
    file = data / "1.wav"
    samples, rate = soundfile.read(file)
    soundfile.write(file, np.concatenate([samples, np.zeros(rate)]), rate)
    lines = ["file_name,text,language", *(f'{index}.wav,"{text}",' for index, text in enumerate(TEXTS))]
    lines[2] = '1.wav,"Guten Morgen.",de'
    (data / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    seen, complete = {}, ExampleMaker.complete

    def noted(maker, outline):
        example = complete(maker, outline)
        seen[outline.row["id"]] = outline.row["language"], len(example["audio"]["array"]) / 24_000
        return example

    monkeypatch.setattr(ExampleMaker, "complete", noted)
    finetune(model=model, data=data, output_dir=tmp_path / "run", language="en-us")
    assert {language for name, (language, _) in seen.items() if name != "1.wav"} == {"en-us"}
    assert seen["1.wav"][0] == "de" and seen["1.wav"][1] < 0.45 + 0.12


def test_it_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 80
