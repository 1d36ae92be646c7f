"""Laws of LoRA: it begins at the model and changes nothing of it, and it comes back from its folder as it was."""

import re
import sys

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import Trainer, TrainingArguments, pipeline
from transformers.pytorch_utils import Conv1D

from ditar_hf import DiTARFeatureExtractor, DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.lora import add_lora, target_modules

SYMBOLS = list("abdefɡhijk")
TEXT = "abdeɡ hijk."
NEW_TOKENS = [20, 17]
LM = {"vocab_size": 22, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
FAMILIES = {
    "arcee": {**LM, "model_type": "arcee"},
    "qwen3": {**LM, **SIZES, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8},
    # one matrix for queries, keys and values
    "phi3": {**LM, **SIZES, "model_type": "phi3", "num_key_value_heads": 4},
    # matrices stored the other way round, and other names for everything
    "gpt2": {**LM, "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}
FIXED = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}


@pytest.fixture
def processor():
    return DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_phonemes(SYMBOLS))


@pytest.fixture
def folder(make_model, processor, tmp_path):
    """A factory of folders with a model of some family and a processor."""

    def make(family="arcee"):
        path = tmp_path / family
        make_model(lm_config=FAMILIES[family]).save_pretrained(path)
        processor.save_pretrained(path)
        return path

    return make


@pytest.fixture
def examples(make_model):
    generator = torch.Generator().manual_seed(0)
    return [
        {"phonemes": TEXT[index:], "latents": torch.randn(8 + 4 * index, 8, generator=generator)} for index in range(4)
    ]


def states_of(model, processor, examples) -> torch.Tensor:
    """What a model makes of a batch, in one tensor."""
    with torch.no_grad():
        output = model.eval()(**DiTARDataCollator(processor)(examples))
    return torch.cat([output.last_hidden_state.flatten(), output.stop_logits.flatten(), output.loss[None]])


def shake(model):
    """Gives an adapter weights as a training might."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_goes_to_all_matrices_of_attention_and_ffn_and_to_no_others(make_model, family):
    model = make_model(lm_config=FAMILIES[family])
    chosen = {name for name, _ in model.named_modules() if re.fullmatch(target_modules(model), name)}
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    parts = ("model.language_model.", "locdit.transformer.layers.")
    assert chosen == {name for name in linear if name.startswith(parts)}
    per_layer = {"arcee": 6, "qwen3": 7, "phi3": 4, "gpt2": 4}[family]
    assert len(chosen) == 2 * per_layer + 2 * 4


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("family", FAMILIES)
def test_it_begins_at_the_model_and_is_merged_into_one(folder, processor, examples, family, tmp_path):
    path = folder(family)
    plain = states_of(DiTARForTextToSpeech.from_pretrained(path), processor, examples)
    model = add_lora(DiTARForTextToSpeech.from_pretrained(path), r=4, new_tokens=NEW_TOKENS)
    assert torch.equal(states_of(model, processor, examples), plain)
    shake(model)
    adapted = states_of(model, processor, examples)
    assert (adapted - plain).abs().max() > 0.01

    merged = model.merge_and_unload()
    assert type(merged) is DiTARForTextToSpeech
    assert torch.allclose(states_of(merged, processor, examples), adapted, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    loaded = DiTARForTextToSpeech.from_pretrained(tmp_path / "merged")
    assert torch.equal(states_of(loaded, processor, examples), states_of(merged, processor, examples))


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_a_training_changes_the_adapter_and_nothing_else(
    folder, processor, examples, tmp_path, activation_checkpointing
):
    path = folder()
    model = add_lora(DiTARForTextToSpeech.from_pretrained(path), r=4, dropout=0.1, new_tokens=NEW_TOKENS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        activation_checkpointing=activation_checkpointing,
        eval_strategy="steps",
        eval_steps=3,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    collator = DiTARDataCollator(processor)
    trainer = Trainer(
        model,
        arguments,
        data_collator=collator,
        train_dataset=examples,
        eval_dataset=examples,
        processing_class=processor,
    )
    trainer.train()
    assert any("eval_loss" in entry for entry in trainer.state.log_history)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed == trained
    adapter = re.compile(r"\.lora_[AB]\.|\.stop_head\.modules_to_save\.|\.embed_tokens\.token_adapter\.")
    assert trained and all(adapter.search(name) for name in trained)
    assert not model.base_model.model.vae.training

    # under everything lies the model, bit for bit
    base, stored = model.unload().state_dict(), DiTARForTextToSpeech.from_pretrained(path).state_dict()
    names = base.keys() - {"stop_head.weight", "stop_head.bias"}
    assert all(torch.equal(base[name], stored[name]) for name in names) and base.keys() == stored.keys()

    checkpoint = str(tmp_path / "run" / "checkpoint-3")
    merged = PeftModel.from_pretrained(DiTARForTextToSpeech.from_pretrained(path), checkpoint).merge_and_unload()
    rows = merged.get_input_embeddings().weight != stored["model.language_model.embed_tokens.weight"]
    assert rows.any(1).nonzero()[:, 0].tolist() == sorted(NEW_TOKENS)
    speak = pipeline("text-to-speech", model=checkpoint)
    output = speak(TEXT, preprocess_params={"phonemize": False}, generate_kwargs=FIXED)
    speech = merged.generate(**processor(TEXT, phonemize=False), **FIXED).audio[0]
    assert torch.allclose(torch.from_numpy(output["audio"]), speech, atol=1e-3)


def test_a_folder_of_the_adapter_speaks_by_itself(folder, processor, examples, tmp_path):
    path = folder()
    model = add_lora(DiTARForTextToSpeech.from_pretrained(path), r=4, new_tokens=NEW_TOKENS)
    shake(model)
    expected = states_of(model, processor, examples)
    speech = model.generate(**processor(TEXT, phonemize=False), **FIXED).audio[0]
    model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size < 0.5 * (path / "model.safetensors").stat().st_size

    loaded = PeftModel.from_pretrained(DiTARForTextToSpeech.from_pretrained(path), tmp_path / "adapter")
    assert torch.equal(states_of(loaded, processor, examples), expected)
    speak = pipeline("text-to-speech", model=str(tmp_path / "adapter"))
    output = speak(TEXT, preprocess_params={"phonemize": False}, generate_kwargs=FIXED)
    assert torch.equal(torch.from_numpy(output["audio"]), speech)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "`r` must be a whole number of at least 1, got 0"),
        ({"r": 4.0}, "`r` must be"),
        ({"alpha": 0}, "`alpha` must be positive, got 0"),
        ({"alpha": float("nan")}, "`alpha` must be positive"),
        ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), got 1.0"),
        ({"new_tokens": [21, 22]}, "`new_tokens` holds 22, but the vocabulary of the model has 22"),
        ({"new_tokens": [-1]}, "`new_tokens` holds -1"),
    ],
)
def test_settings_out_of_range(folder, settings, message):
    model = DiTARForTextToSpeech.from_pretrained(folder())
    with pytest.raises(ValueError, match=message):
        add_lora(model, **settings)
    assert all(parameter.requires_grad for parameter in model.locdit.parameters())


def test_a_model_that_lies_nowhere_or_has_an_adapter(make_model, folder):
    with pytest.raises(ValueError, match="save it with `save_pretrained"):
        add_lora(make_model())
    model = DiTARForTextToSpeech.from_pretrained(folder())
    add_lora(model)
    with pytest.raises(ValueError, match="already has an adapter"):
        add_lora(model)


def test_without_peft(folder, monkeypatch):
    model = DiTARForTextToSpeech.from_pretrained(folder())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[lora\]"'):
        add_lora(model)
