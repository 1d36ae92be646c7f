"""`ditar train`: every way to train and to fine-tune, each by its own example file, and how it ends on bad input."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, pipeline
from typer.testing import CliRunner

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer, DiTARVAE
from ditar_hf.cli import app
from ditar_hf.training.checkpoints import find_checkpoints

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TEXTS = ["a cat sat.", "the dog ran home", "no, a fine day it is", "we go", "who is there?", "it rains on the hill"]
# what makes the runs of the example files short
SHORT = {"max_steps": 2, "save_steps": 2, "logging_steps": 1, "warmup_steps": 1, "use_cpu": True, "bf16": False}
TINY_BLOCKS = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def speech(tmp_path):
    """Folder of six recordings with their texts, and a seventh that cannot be decoded."""
    folder = tmp_path / "speech"
    folder.mkdir()
    lines = ["file_name,text"]
    for index, text in enumerate(TEXTS):
        time_seconds = np.arange(round((0.6 + 0.1 * index) * 24_000)) / 24_000
        soundfile.write(folder / f"{index}.wav", 0.2 * np.sin(2 * np.pi * (150 + 20 * index) * time_seconds), 24_000)
        lines.append(f'{index}.wav,"{text}"')
    (folder / "broken.wav").write_bytes(b"nothing")
    (folder / "metadata.csv").write_text("\n".join([*lines, "broken.wav,we go"]))
    return folder


@pytest.fixture
def model(save_tiny, tmp_path):
    """Folder of a tiny trained DiTAR."""
    return save_tiny(tmp_path / "model", DiTARTokenizer.from_texts(TEXTS, "en-us"))


@pytest.fixture
def vae(make_vae_config, tmp_path):
    """Folder of a tiny tokenizer of speech."""
    DiTARVAE(make_vae_config()).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture
def shortened(tmp_path):
    """The example file of that name, with fewer steps and what else is given."""

    def shorten(name, **fields):
        values = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
        values["training"] = {**values["training"], **SHORT, **fields.pop("training", {})}
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump({**values, **fields}))
        return file

    return shorten


def train(*arguments, code=0):
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def speaks(folder, text="we go"):
    output = pipeline("text-to-speech", model=str(folder))(text)
    return output["audio"].size and bool(np.isfinite(output["audio"]).all())


def test_a_new_voice(shortened, model, speech, tmp_path):
    out = tmp_path / "voice"
    result = train(shortened("finetune/voice"), "--model", model, "--data", speech, "--out", out)
    assert f"{out}: the trained model" in result.output
    before, after = load_file(model / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith("vae.") for name in changed)
    assert speaks(out) and speaks(out / "checkpoint-2")
    assert "broken.wav" in (out / "rejected-0.jsonl").read_text()


def test_the_old_voices_do_not_speak_in_place_of_the_new_one(shortened, model, speech, tmp_path):
    processor = DiTARProcessor.from_pretrained(model)
    processor.add_voice("old", np.sin(np.arange(24_000) / 20) / 2, 24_000, "we go")
    processor.default_voice = "old"
    processor.save_pretrained(model)
    for name, voices in (("voice", set()), ("full", {"old"})):
        train(shortened(f"finetune/{name}"), "--model", model, "--data", speech, "--out", tmp_path / name)
        trained = DiTARProcessor.from_pretrained(tmp_path / name)
        assert set(trained.voices) == voices and (trained.default_voice is None) == (not voices)


def test_all_weights_on_more_speech(shortened, model, speech, tmp_path):
    file = shortened("finetune/full", training={"max_steps": "2e0"})  # a string in YAML 1.1
    train(file, "--model", model, "--data", speech, "--data", speech, "--out", tmp_path / "full")
    assert speaks(tmp_path / "full")


def test_lora(shortened, model, speech, tmp_path):
    pytest.importorskip("peft")
    out = tmp_path / "adapter"
    before = load_file(model / "model.safetensors")
    train(shortened("finetune/lora"), "--model", model, "--data", speech, "--out", out)
    assert all(torch.equal(value, load_file(model / "model.safetensors")[name]) for name, value in before.items())
    assert (out / "adapter_model.safetensors").is_file() and not (out / "model.safetensors").exists()
    assert pipeline("text-to-speech", model=str(out), tokenizer=str(out), processor=str(out))("we go")["audio"].size
    # all of it is frozen: nothing would be learnt
    refused = train(shortened("finetune/full"), "--model", out, "--data", speech, "--out", tmp_path / "next", code=2)
    assert "is an adapter: merge it" in refused.output


def test_an_adapter_is_resumed_bit_for_bit(shortened, model, speech, tmp_path):
    pytest.importorskip("peft")
    options = ["--model", model, "--data", speech, "--out"]
    for name, max_steps, more in (("whole", 4, []), ("broken", 2, []), ("broken", 4, ["--resume"])):
        file = shortened("finetune/lora", training={"max_steps": max_steps, "lr_scheduler_type": "constant"})
        train(file, *options, tmp_path / name, *more)
    whole, broken = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys() and all(torch.equal(broken[name], value) for name, value in whole.items())


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["full", "lora"])
def test_a_new_language(shortened, model, speech, tmp_path, lora):
    rows = ["file_name,text", "0.wav,Grüße aus Köln", "1.wav,Schöne Bücher", "5.wav,Ich möchte nach München"]
    (speech / "metadata.csv").write_text("\n".join(rows))
    out = tmp_path / "german"
    file = shortened("finetune/language", lora=lora, training={"lr_scheduler_kwargs": {"num_decay_steps": 1}})
    options = ["--model", model, "--data", speech, "--language", "de", "--new-language", "de", "--out", out]
    train(file, *options)
    old, new = DiTARProcessor.from_pretrained(model).tokenizer, DiTARProcessor.from_pretrained(out).tokenizer
    assert len(new) > len(old) and new.get_vocab().items() >= old.get_vocab().items()
    if lora is None:
        assert DiTARForTextToSpeech.from_pretrained(out).config.lm_config.vocab_size >= len(new)
        assert speaks(out)
    before = (out / ("model" if lora is None else "adapter_model")).with_suffix(".safetensors").read_bytes()
    train(file, *options, "--resume")  # it is finished, and gives its model again
    assert before == (out / ("model" if lora is None else "adapter_model")).with_suffix(".safetensors").read_bytes()
    other = ["--model", model, "--data", speech, "--language", "fr", "--new-language", "fr", "--out", out]
    assert "`new_language` was de, is fr" in train(file, *other, "--resume", code=2).output


@pytest.fixture
def text_lm(tmp_path):
    """Folder of a tiny language model with a BPE tokenizer of its own."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    sizes = {**TINY_BLOCKS, "hidden_size": 32, "num_key_value_heads": 2}
    lm = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **sizes))
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


@pytest.mark.parametrize("text", ["bpe", "phonemes"])
def test_from_a_text_language_model(shortened, text_lm, vae, speech, tmp_path, text):
    blocks = {"encoder_config": TINY_BLOCKS, "locdit_config": TINY_BLOCKS}
    # a rate of next to nothing, so that weights are still seen to be those of the language model
    file = shortened("train/from_text_lm", text=text, config=blocks, training={"learning_rate": 1e-12})
    out = tmp_path / "run"
    train(file, "--lm", text_lm, "--vae", vae, "--data", speech, "--out", out)
    weights, name = load_file(out / "model.safetensors"), "layers.0.mlp.gate_proj.weight"
    expected = load_file(text_lm / "model.safetensors")[f"model.{name}"]
    torch.testing.assert_close(weights[f"model.language_model.{name}"], expected)
    assert DiTARProcessor.from_pretrained(out).reads_phonemes == (text == "phonemes")
    assert speaks(out)


def test_from_scratch_with_a_vocabulary_of_the_data(vae, speech, tmp_path):
    config = {"encoder_config": TINY_BLOCKS, "locdit_config": TINY_BLOCKS, "lm_config": TINY_BLOCKS}
    values = {"vae": str(vae), "config": config, "data": [{"path": str(speech)}], "eval_data": [{"path": str(speech)}]}
    values["training"] = {**SHORT, "output_dir": str(tmp_path / "run"), "eval_strategy": "steps", "eval_steps": 1}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**values, "batches": {"max_positions": 100}}))
    result = train(file)
    assert result.output.count("eval_diffusion_loss") == 2
    tokenizer = DiTARProcessor.from_pretrained(tmp_path / "run").tokenizer
    assert set(tokenizer.get_vocab()) == set(DiTARTokenizer.from_texts(TEXTS, "en-us").get_vocab())
    assert speaks(tmp_path / "run")


@pytest.mark.parametrize("text", [None, "bpe", "phonemes"])
def test_a_fresh_model_is_resumed_bit_for_bit(shortened, text_lm, vae, speech, tmp_path, text):
    blocks = {"encoder_config": TINY_BLOCKS, "locdit_config": TINY_BLOCKS}
    options = ["--vae", vae, "--data", speech]
    if text is None:
        blocks["lm_config"] = TINY_BLOCKS
    else:
        options += ["--lm", text_lm]
    fields = {"config": blocks, "text": text or "phonemes", "training": {"lr_scheduler_type": "constant"}}
    longer = {**fields, "training": {**fields["training"], "max_steps": 4}}
    train(shortened("train/from_text_lm", **longer), *options, "--out", tmp_path / "whole")
    train(shortened("train/from_text_lm", **fields), *options, "--out", tmp_path / "broken")
    train(shortened("train/from_text_lm", **longer), *options, "--out", tmp_path / "broken", "--resume")
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(broken[name], value) for name, value in whole.items())


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["full", "lora"])
def test_another_model_is_not_trained_on(shortened, model, speech, tmp_path, lora):
    other = tmp_path / "other"
    changed = DiTARForTextToSpeech.from_pretrained(model)
    with torch.no_grad():
        changed.stop_head.weight += 1
    changed.save_pretrained(other)
    DiTARProcessor.from_pretrained(model).save_pretrained(other)
    out = ["--data", speech, "--out", tmp_path / "run"]
    train(shortened("finetune/voice", lora=lora), "--model", model, *out)
    file = shortened("finetune/voice", lora=lora, training={"max_steps": 4})
    result = train(file, "--model", other, *out, "--resume", code=2)
    assert "`weights` was" in result.output


def test_an_alignment_head_grows_with_the_vocabulary(shortened, model, speech, tmp_path):
    trained = DiTARForTextToSpeech.from_pretrained(model, alignment_loss_weight=0.2)
    trained.save_pretrained(model)
    (speech / "metadata.csv").write_text(
        "file_name,text\n0.wav,Grüße aus Köln\n1.wav,Schöne Bücher\n5.wav,Ich möchte nach"
    )
    file = shortened("finetune/language", training={"lr_scheduler_kwargs": {"num_decay_steps": 1}})
    options = ["--data", speech, "--language", "de", "--new-language", "de", "--out", tmp_path / "german"]
    train(file, "--model", model, *options)
    old = trained.alignment_head.symbol_proj.weight
    base = DiTARForTextToSpeech.from_pretrained(tmp_path / "german" / "base").alignment_head.symbol_proj.weight
    assert len(base) > len(old) and torch.equal(base[: len(old)], old)


def test_a_try_without_a_checkpoint_leaves_nothing_to_the_next(vae, speech, tmp_path):
    """Neither its vocabulary nor its list of what could not be used, which is mended meanwhile."""
    config = {"encoder_config": TINY_BLOCKS, "locdit_config": TINY_BLOCKS, "lm_config": TINY_BLOCKS}
    values = {"vae": str(vae), "config": config, "batches": {"max_positions": 100}, "data": [{"path": str(speech)}]}
    file, out = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump({**values, "training": {**SHORT, "output_dir": str(out)}}))
    metadata = (speech / "metadata.csv").read_text()
    (speech / "metadata.csv").write_text("file_name,text\n0.wav,a cat\nbroken.wav,a cat")
    train(file)
    for checkpoint in find_checkpoints(out):
        shutil.rmtree(checkpoint)
    (speech / "metadata.csv").write_text(metadata.rpartition("\n")[0])
    train(file)
    tokenizer = DiTARProcessor.from_pretrained(out).tokenizer
    assert set(tokenizer.get_vocab()) == set(DiTARTokenizer.from_texts(TEXTS, "en-us").get_vocab())
    assert not (out / "rejected-0.jsonl").exists()


def test_another_stream_is_not_gone_on_with(shortened, model, speech, tmp_path):
    """Of a stream of rows nothing is known beforehand but where it lies."""
    rows = [{"audio": {"bytes": (speech / "0.wav").read_bytes(), "path": None}, "text": TEXTS[0]}] * 3
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        Dataset.from_list(rows).to_parquet(tmp_path / name / "rows.parquet")
    out = ["--model", model, "--out", tmp_path / "run"]
    fields = {"path": str(tmp_path / "one"), "streaming": True}
    train(shortened("finetune/voice", data=[fields]), *out)
    file = shortened("finetune/voice", data=[{**fields, "path": str(tmp_path / "other")}], training={"max_steps": 4})
    assert "`data[0].path` was" in train(file, *out, "--resume", code=2).output


def test_rows_without_a_language_are_not_read_as_the_old_one(shortened, model, speech, tmp_path):
    options = ["--model", model, "--data", speech, "--new-language", "de", "--out", tmp_path / "run"]
    file = shortened("finetune/language", training={"lr_scheduler_kwargs": {"num_decay_steps": 1}})
    assert "states no language" in train(file, *options, code=2).output


@pytest.mark.parametrize(
    "fields, options, message",
    [
        ({"batchs": {}}, [], "did you mean `batches`?"),
        ({"training": {"learning_rat": 1}}, [], "did you mean `learning_rate`?"),
        ({"training": {"learning_rate": "fast"}}, [], "could not convert string to float"),
        ({"filters": {"min_seconds": 1}, "data": [], "latents": [{"path": "x"}]}, [], "`filters` are for `data`"),
        ({"vae": "x"}, [], "`vae` is given with `model`"),
        ({"config": {"stop_los_weight": 2}}, [], "`config: stop_los_weight` is given with `model`"),
        ({"config": {"patch_size": 2}}, [], "`config: patch_size` is given with `model`"),
        ({"training": {"num_train_epochs": 3}}, [], "`num_train_epochs` has no effect"),
        ({"training": {"max_grad_norm": None}}, [], "`max_grad_norm` is None"),
        ({"text": "bpe"}, [], "name it as `lm`"),
        ({}, ["--data", "nowhere"], "there is no folder nowhere"),
        ({}, ["--resume"], "there is no whole checkpoint"),
        ({}, ["--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_bad_input_is_one_line(shortened, model, speech, tmp_path, fields, options, message):
    defaults = {"model": str(model), "data": [{"path": str(speech)}]}
    fields = {**defaults, **fields, "training": {"output_dir": str(tmp_path / "run"), **fields.get("training", {})}}
    result = train(shortened("finetune/voice", **fields), *options, code=2)
    assert message in result.output and result.output.count("error:") == 1
    assert not find_checkpoints(tmp_path / "run")


def test_sigterm_to_all_its_processes_ends_it_with_a_checkpoint_and_a_code(shortened, model, speech, tmp_path):
    out = tmp_path / "run"
    training = {"max_steps": 100_000, "save_steps": 100_000, "num_loader_workers": 1}
    endless = shortened("finetune/voice", training=training)
    options = ["--model", str(model), "--data", str(speech), "--out", str(out)]
    command = [sys.executable, "-m", "ditar_hf.cli", "train", str(endless), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        process.stdout.readline()  # a step is done
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 143, errors
    assert "go on with --resume" in errors
    assert len(find_checkpoints(out)) == 1
