"""Laws of a model from a text LM: the LM's weights arrive bit for bit, and it trains, speaks and is saved like any."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextToWaveform,
    AutoProcessor,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    T5Config,
    T5Model,
    pipeline,
)

from ditar_hf import DiTARFeatureExtractor, DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.length_bounds import fit_length_bounds
from ditar_hf.training.text_lm import build_from_text_lm, load_text_lm, load_text_tokenizer

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Hello there, good morning!"]
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
}
FAMILIES = {
    "llama": lambda **sizes: LlamaConfig(**SIZES, **sizes),
    "qwen3": lambda **sizes: Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True, **sizes),
}
FIXED = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}


@pytest.fixture(params=["llama", "qwen3"])
def family(request):
    return request.param


@pytest.fixture(params=[0, 1, 40], ids=["full", "nearly full", "with room"])
def room(request):
    """Rows of the LM's embedding behind those of its tokens, as many have."""
    return request.param


@pytest.fixture
def tokenizer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([*TEXTS, *TEXTS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


@pytest.fixture
def save_lm(tokenizer, tmp_path):
    """Saves a pretrained text LM with its tokenizer; returns its folder."""

    def save(family="llama", room=0, dtype=torch.float32):
        folder = tmp_path / f"text-{family}"
        config = FAMILIES[family](vocab_size=len(tokenizer) + room)
        AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def config(make_config):
    return make_config()


def processor_of(tokenizer):
    return DiTARProcessor(DiTARFeatureExtractor(), tokenizer)


def assert_lm_arrived(model, folder):
    """All weights of the LM but its embedding, which is returned."""
    stored = {name.removeprefix("model."): value for name, value in load_file(folder / "model.safetensors").items()}
    stored.pop("lm_head.weight", None)
    own = model.model.language_model.state_dict()
    assert own.keys() == stored.keys()
    embedding = stored.pop("embed_tokens.weight")
    assert all(torch.equal(own[name], value.float()) for name, value in stored.items())
    return embedding.float()


# Phonemes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_phonemes_take_the_place_of_the_vocabulary(save_lm, family, config, dtype):
    folder, phonemes = save_lm(family, dtype=dtype), DiTARTokenizer.from_texts(TEXTS)
    model = build_from_text_lm(load_text_lm(folder), phonemes, config)
    assert model.dtype == torch.float32 and model.config.lm_config.model_type == family
    assert model.config.lm_config.vocab_size == len(phonemes) == len(model.get_input_embeddings().weight)
    assert model.config.locdit_config == config.locdit_config and config.lm_config.model_type == "arcee"
    known, rows = assert_lm_arrived(model, folder), model.get_input_embeddings().weight.detach()
    # 60 rows: three standard errors of a channel's mean are 0.4 deviations
    assert ((rows.mean(0) - known.mean(0)).abs() < 0.6 * known.std(0)).all()
    assert 0.8 < (rows.std(0) / known.std(0)).mean() < 1.2
    assert len(rows.unique(dim=0)) == len(rows)


def test_what_is_fresh_follows_torchs_seed(save_lm, config):
    lm, phonemes = load_text_lm(save_lm()), DiTARTokenizer.from_texts(TEXTS)

    def weights(seed):
        torch.manual_seed(seed)
        model = build_from_text_lm(lm, phonemes, config)
        return torch.cat([model.get_input_embeddings().weight.flatten(), model.locdit.output_proj.weight.flatten()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


# Letters


def test_a_text_tokenizer_keeps_its_ids(save_lm, family, tokenizer):
    ours = load_text_tokenizer(save_lm(family))
    assert tokenizer.get_vocab().items() <= ours.get_vocab().items()
    assert ours(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    added = [ours.audio_bos_token_id, ours.audio_patch_token_id, ours.pad_token_id]
    assert added == [len(tokenizer), len(tokenizer) + 1, len(tokenizer) + 2] and ours.padding_side == "left"


def test_a_padding_token_that_is_there_is_kept(save_lm, tokenizer):
    tokenizer.pad_token = "<|end|>"
    ours = load_text_tokenizer(save_lm())
    assert (ours.pad_token, ours.pad_token_id, len(ours)) == ("<|end|>", 0, len(tokenizer) + 2)


def test_letters_keep_the_embedding(save_lm, family, room, config, tokenizer):
    folder = save_lm(family, room)
    ours = load_text_tokenizer(folder)
    model = build_from_text_lm(load_text_lm(folder), ours, config)
    known, rows = assert_lm_arrived(model, folder), model.get_input_embeddings().weight.detach()
    assert model.config.lm_config.vocab_size == len(rows) == max(len(known), len(ours))
    assert torch.equal(rows[: len(tokenizer)], known[: len(tokenizer)])
    fresh = rows[[ours.audio_bos_token_id, ours.audio_patch_token_id]]
    assert ((fresh - known.mean(0)).abs() < 0.6 * known.std(0)).all() and not torch.equal(*fresh)
    ids = (model.config.pad_token_id, model.config.audio_bos_token_id, model.config.audio_patch_token_id)
    assert ids == (ours.pad_token_id, ours.audio_bos_token_id, ours.audio_patch_token_id)


def test_a_tokenizer_of_speech_is_taken_over(save_lm, config, make_vae):
    vae = make_vae(seed=3)
    model = build_from_text_lm(load_text_lm(save_lm()), DiTARTokenizer.from_texts(TEXTS), config, vae)
    assert all(torch.equal(value, model.vae.state_dict()[name]) for name, value in vae.state_dict().items())


def test_a_model_in_memory_with_its_output_layer(save_lm, config):
    folder = save_lm()
    lm = AutoModelForCausalLM.from_pretrained(folder)
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    model = build_from_text_lm(lm, DiTARTokenizer.from_texts(TEXTS), config)
    assert_lm_arrived(model, folder)
    assert all(torch.equal(value, before[name]) for name, value in lm.state_dict().items())
    assert lm.config.vocab_size == len(before["model.embed_tokens.weight"])


# Both, as models


@pytest.fixture(params=["phonemes", "letters"])
def folder(request, save_lm, family, config, tmp_path):
    """A saved model and processor, from a text LM."""
    lm_folder = save_lm(family)
    tokenizer = DiTARTokenizer.from_texts(TEXTS) if request.param == "phonemes" else load_text_tokenizer(lm_folder)
    model = build_from_text_lm(load_text_lm(lm_folder), tokenizer, config)
    model.save_pretrained(tmp_path / "model")
    processor_of(tokenizer).save_pretrained(tmp_path / "model")
    own = DiTARForTextToSpeech.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    return tmp_path / "model"


def test_it_trains(folder):
    model = AutoModelForTextToWaveform.from_pretrained(folder).train()
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is DiTARProcessor
    examples = [{"input_ids": processor.tokenize_text(text), "latents": torch.randn(12, 8)} for text in TEXTS]
    batch = DiTARDataCollator(processor)(examples)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = model(**batch, generator=torch.Generator().manual_seed(0)).loss
        loss.backward()
        missing = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
        assert not missing
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_it_speaks(folder):
    model, processor = DiTARForTextToSpeech.from_pretrained(folder), DiTARProcessor.from_pretrained(folder)
    together = model.generate(**processor(TEXTS), **FIXED).audio
    for text, audio in zip(TEXTS, together, strict=True):
        assert torch.allclose(model.generate(**processor(text), **FIXED).audio[0], audio, atol=1e-4)
    speak = pipeline("text-to-speech", model=str(folder))
    for output, audio in zip(speak(TEXTS, generate_kwargs=FIXED), together, strict=True):
        assert np.allclose(output["audio"], audio, atol=1e-4) and output["sampling_rate"] == 24_000
    prompt = {"prompt_audio": np.sin(np.arange(24_000) / 20) / 2, "prompt_text": TEXTS[1], "sampling_rate": 24_000}
    output = speak(TEXTS[0], preprocess_params=prompt, generate_kwargs=FIXED)
    assert output["audio"].shape == (7200,)


def test_lengths_are_bounded_by_tokens_of_text(folder):
    model, processor = DiTARForTextToSpeech.from_pretrained(folder), DiTARProcessor.from_pretrained(folder)
    num_tokens = len(processor.tokenize_text(TEXTS[0]))
    settings = {"temperature": 0, "num_inference_steps": 1, "stop_threshold": 1}
    drawn = model.generate(**processor(TEXTS[0]), **settings).num_patches.item()
    assert drawn == int((1.5 if processor.reads_phonemes else 6) * num_tokens) + 10
    # spoken at a usual rate, 44 characters take some 30 patches; in tokens of either kind there is room, but no more
    assert 35 < drawn < 150
    fit_length_bounds(model.generation_config, [num_tokens], [30])
    assert abs(model.generate(**processor(TEXTS[0]), **settings).num_patches.item() - (1.2 * 30 + 10)) <= 1


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T5Config(vocab_size=30, d_model=16, num_layers=1), "is an encoder-decoder: take a decoder only"),
        (lambda: BertConfig(vocab_size=30), "'bert', but its attention sees what follows"),
        (lambda: AutoConfig.for_model("vit"), "'vit', but transformers has no causal language model of this type"),
        (lambda: AutoConfig.for_model("gemma3"), "'gemma3', but only its text part is a language model"),
        (lambda: AutoConfig.for_model("mamba"), "'mamba', but its `forward` does not take"),
        (
            lambda: LlamaConfig(**SIZES, quantization_config={"quant_method": "gptq", "bits": 4}),
            "is quantized, and could not be trained",
        ),
    ],
    ids=["encoder-decoder", "encoder", "images", "images and text", "no attention", "quantized"],
)
def test_language_models_that_will_not_do(tmp_path, make, message):
    make().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"the language model, '{tmp_path}', .*{message}"):
        load_text_lm(tmp_path)


def test_an_encoder_decoder_in_memory(config):
    lm = T5Model(T5Config(vocab_size=30, d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(ValueError, match="a T5Model, is an encoder-decoder"):
        build_from_text_lm(lm, DiTARTokenizer.from_texts(TEXTS), config)


def test_damaged_folders(save_lm):
    folder = save_lm()
    whole = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in whole.items() if "layers.1" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 9 weights of a LlamaModel, such as layers.1"):
        load_text_lm(folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    for damage in (lambda: None, (folder / "model.safetensors").unlink, (folder / "config.json").unlink):
        damage()
        with pytest.raises(
            ValueError, match=f"the language model in '{folder}' cannot be read, for a file is missing"
        ):
            load_text_lm(folder)
    for damage in (lambda: (folder / "tokenizer.json").write_text("{"), (folder / "tokenizer.json").unlink):
        damage()
        with pytest.raises(ValueError, match=f"the tokenizer in '{folder}' cannot be read, for a file is missing"):
            load_text_tokenizer(folder)


def test_nothing_at_that_name():
    for load in (load_text_lm, load_text_tokenizer):
        with pytest.raises(OSError, match="there is no folder 'no/such-model', and no (language model|tokenizer) of"):
            load("no/such-model")


def test_code_from_the_hub_is_not_run(save_lm):
    folder = save_lm()
    config = (folder / "config.json").read_text()
    own = '{"auto_map": {"AutoConfig": "configuration_own.OwnConfig"}, '
    (folder / "config.json").write_text(config.replace('"llama"', '"own"').replace("{", own, 1))
    (folder / "configuration_own.py").write_text("raise SystemExit\n")
    with pytest.raises(ValueError, match="trust_remote_code|custom code"):
        load_text_lm(folder)


def test_tokenizers_that_do_not_belong_to_it(save_lm, config, tokenizer):
    lm = load_text_lm(save_lm())
    with pytest.raises(ValueError, match="`tokenizer` has no `pad_token_id`: take that of `load_text_tokenizer`"):
        build_from_text_lm(lm, tokenizer, config)
    tokenizer.add_tokens(["[one]", "[more]"])
    ours = load_text_tokenizer(save_lm("qwen3"))
    with pytest.raises(ValueError, match=r"`tokenizer` has \d+ tokens of its own and `lm` \d+: take the one"):
        build_from_text_lm(lm, ours, config)


def test_sizes_of_the_tokenizer_of_speech_must_fit(save_lm, config, make_vae):
    with pytest.raises(ValueError, match="`latent_dim`"):
        build_from_text_lm(load_text_lm(save_lm()), DiTARTokenizer.from_texts(TEXTS), config, make_vae(latent_dim=4))


def test_the_lm_is_the_decoder_without_its_output_layer(save_lm, family):
    folder = save_lm(family, dtype=torch.bfloat16)
    lm = load_text_lm(folder)
    assert type(lm) is type(AutoModel.from_pretrained(folder)) and lm.dtype == torch.float32
