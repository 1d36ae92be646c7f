"""Laws of a new language: old tokens, embeddings and speech stay bit for bit, and new texts have no unknown symbol."""

import copy

import pytest
import torch

from ditar_hf import DiTARFeatureExtractor, DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.lora import add_lora
from ditar_hf.training.vocabulary import draw_rows, extend_vocabulary

ENGLISH = ["The quick brown fox jumps over the lazy dog.", "Which voice would you choose today?"]
GERMAN = ["Schöne Grüße aus dem Süden!", "Ich möchte fünf Äpfel."]
EMBEDDING = "model.language_model.embed_tokens.weight"
FIXED = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}


@pytest.fixture
def processor():
    return DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_texts(ENGLISH))


@pytest.fixture(params=[0, 3, 200], ids=["full", "nearly full", "with room"])
def model(request, make_model, processor):
    """Its embedding has as many rows as there are tokens, or more, as those of many language models."""
    return make_model(lm_config={"vocab_size": len(processor.tokenizer) + request.param})


@pytest.fixture
def speech(model, processor):
    return model.generate(**processor(ENGLISH), **FIXED).latents


def test_old_tokens_and_what_is_said_with_them_stay(model, processor, speech):
    tokenizer, weights = processor.tokenizer, copy.deepcopy(model.state_dict())
    vocabulary, ids = tokenizer.get_vocab(), tokenizer(ENGLISH)["input_ids"]
    new = extend_vocabulary(model, processor, GERMAN, "de")
    assert processor.tokenizer is tokenizer and tokenizer.languages == ["en-us", "de"]
    assert vocabulary.items() <= tokenizer.get_vocab().items()
    assert tokenizer(ENGLISH)["input_ids"] == ids
    assert new == list(range(len(vocabulary), len(tokenizer))) and len(new) > 3

    after = model.state_dict()
    size = model.config.lm_config.vocab_size
    assert size == len(after[EMBEDDING]) == model.model.language_model.config.vocab_size
    assert size == max(len(tokenizer), len(weights[EMBEDDING]))
    assert torch.equal(after[EMBEDDING][: new[0]], weights[EMBEDDING][: new[0]])
    assert all(torch.equal(after[name], weights[name]) for name in weights.keys() - {EMBEDDING})
    again = model.generate(**processor(ENGLISH), **FIXED).latents
    assert all(torch.equal(row, before) for row, before in zip(again, speech, strict=True))


def test_new_tokens_are_near_the_mean_of_the_old_and_differ(model, processor):
    known = model.get_input_embeddings().weight[4 : len(processor.tokenizer)].detach().clone()
    rng = torch.random.get_rng_state()
    new = extend_vocabulary(model, processor, GERMAN, "de")
    assert torch.equal(torch.random.get_rng_state(), rng)
    rows = model.get_input_embeddings().weight[new].detach()
    deviation = (rows - known.mean(0)) / known.std(0, correction=0)
    assert 0.05 < deviation.std() < 0.15 and deviation.abs().max() < 1
    assert len(rows.unique(dim=0)) == len(new)


def test_the_seed_decides_on_the_new_rows(make_model, processor):
    def rows(seed):
        model, own = make_model(lm_config={"vocab_size": len(processor.tokenizer)}), copy.deepcopy(processor)
        return model.get_input_embeddings().weight[extend_vocabulary(model, own, GERMAN, "de", seed)]

    assert torch.equal(rows(1), rows(1)) and not torch.equal(rows(1), rows(2))


def test_the_new_language_has_no_unknown_symbol_and_is_learnt(model, processor):
    extend_vocabulary(model, processor, GERMAN, "de")
    tokenizer = processor.tokenizer
    assert tokenizer.unk_token_id not in sum(tokenizer(GERMAN, language="de")["input_ids"], [])
    assert tokenizer.decode(tokenizer(GERMAN[0], language="de")["input_ids"]) == tokenizer.phonemize(GERMAN[0], "de")
    batch = DiTARDataCollator(processor, language="de")(
        [{"text": text, "latents": torch.randn(8, 8)} for text in GERMAN]
    )
    model.train()(**batch).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert set(gradient.abs().sum(1).nonzero()[:, 0].tolist()) == set(batch["input_ids"].unique().tolist()) - {0, 3}


def test_saved_equals_loaded(model, processor, tmp_path):
    extend_vocabulary(model, processor, GERMAN, "de")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = DiTARForTextToSpeech.from_pretrained(tmp_path)
    same, own = DiTARProcessor.from_pretrained(tmp_path), model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
    assert same.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert same.tokenizer.languages == ["en-us", "de"]
    inputs, others = processor(GERMAN, language="de"), same(GERMAN, language="de")
    assert torch.equal(inputs["input_ids"], others["input_ids"])
    latents = model.generate(**inputs, **FIXED).latents
    assert all(torch.equal(*rows) for rows in zip(latents, loaded.generate(**others, **FIXED).latents, strict=True))


def test_a_language_that_is_covered_adds_nothing(model, processor):
    weights = copy.deepcopy(model.state_dict())
    assert extend_vocabulary(model, processor, ENGLISH, "en-us") == []
    assert processor.tokenizer.languages == ["en-us"]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_an_adapter_comes_after_it(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "old")
    model = DiTARForTextToSpeech.from_pretrained(tmp_path / "old")
    new = extend_vocabulary(model, processor, GERMAN, "de")
    with pytest.raises(ValueError, match="changed in memory"):
        add_lora(model, new_tokens=new)
    model.save_pretrained(tmp_path / "new")
    model = DiTARForTextToSpeech.from_pretrained(tmp_path / "new")
    add_lora(model, new_tokens=new)
    with pytest.raises(ValueError, match="has an adapter"):
        extend_vocabulary(model, processor, GERMAN, "de")


@pytest.mark.parametrize(
    ("texts", "language", "message"),
    [
        (GERMAN, "klingon", "`language` is 'klingon', which espeak-ng does not know"),
        (["…", ""], "de", "no speech"),
        ("Guten Tag", "de", "got one string"),
    ],
)
def test_a_language_that_is_none_changes_nothing(model, processor, texts, language, message):
    vocabulary, size = processor.tokenizer.get_vocab(), model.config.lm_config.vocab_size
    with pytest.raises(ValueError, match=message):
        extend_vocabulary(model, processor, texts, language)
    assert processor.tokenizer.get_vocab() == vocabulary and processor.tokenizer.languages == ["en-us"]
    assert model.config.lm_config.vocab_size == len(model.get_input_embeddings().weight) == size


def test_a_processor_of_another_model(make_model, processor):
    with pytest.raises(ValueError, match="`processor` with .* tokens does not belong to `model` with 9"):
        extend_vocabulary(make_model(lm_config={"vocab_size": 9}), processor, GERMAN, "de")


def test_rows_have_the_mean_and_a_share_of_the_deviation_of_others():
    embedding = torch.nn.Embedding(4000, 6)
    before = embedding.weight.detach().clone()
    known = torch.randn(500, 6) * torch.arange(1, 7) + 3
    draw_rows(embedding, range(1000, 4000), known, 0.5, torch.Generator().manual_seed(0))
    drawn = embedding.weight.detach()[1000:]
    assert torch.equal(embedding.weight[:1000], before[:1000])
    # a tenth of a deviation is over ten standard errors of the 3000 draws' mean
    assert ((drawn.mean(0) - known.mean(0)).abs() < 0.1 * known.std(0)).all()
    assert torch.allclose(drawn.std(0) / known.std(0), torch.full((6,), 0.5), rtol=0.1)
