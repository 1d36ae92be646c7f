"""Laws of batches: within the budget, every row once, resumable at any batch, and unusable rows are named."""

import io
import itertools

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from ditar_hf import DiTARFeatureExtractor, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.batches import BatchArguments, TokenBudgetBatches, WeightedRows
from ditar_hf.training.examples import ExampleArguments, ExampleMaker
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.schema import EXAMPLE_FEATURES, make_example

PROCESSOR = DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_phonemes(list("abdefɡhijklmnop")))


def make_rows(number, name="row"):
    """Rows of latents: 5 to 12 patches with a phone for each."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(number):
        patches = 5 + index % 8
        latents = rng.standard_normal((4 * patches, 8)).astype(np.float32)
        rows.append({"id": f"{name}-{index}", "input_ids": [5 + i % 9 for i in range(patches)], "latents": latents})
    return Dataset.from_list(rows)


def make_batches(rows=None, max_positions=60, window_rows=16, **options):
    sources = [WeightedRows("source", make_rows(40) if rows is None else rows)] if not isinstance(rows, list) else rows
    return TokenBudgetBatches(sources, ExampleMaker(PROCESSOR), BatchArguments(max_positions, window_rows), **options)


def take(batches, number):
    return list(itertools.islice(batches, number))


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        equal = torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        assert equal, name


@pytest.mark.parametrize("max_positions", [26, 60, 500])
def test_no_batch_is_over_the_budget_and_little_is_padding(max_positions):
    batches = take(make_batches(max_positions=max_positions, window_rows=40), 20)
    assert all(batch["input_ids"].numel() <= max_positions for batch in batches)
    if max_positions == 60:
        assert sum(int(b["attention_mask"].sum()) for b in batches) > 0.85 * sum(
            b["input_ids"].numel() for b in batches
        )


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_pass_has_every_row_once(world_size):
    ids = []
    for rank in range(world_size):
        # windows that divide a pass
        batches = make_batches(window_rows=10, rank=rank, world_size=world_size)
        for batch in batches:
            if batch["position"]["window"] >= 40 // 10 // world_size:
                break
            ids += batch["ids"]
    assert sorted(ids) == sorted(make_rows(40)["id"])


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("rank", [0, 1])
def test_it_goes_on_after_any_batch(rank, num_workers):
    whole = take(make_batches(rank=rank, world_size=2), 14)
    for number in (1, 2, 5, 9, 13):
        resumed = make_batches(rank=rank, world_size=2, position=whole[number - 1]["position"])
        loader = DataLoader(resumed, batch_size=None, num_workers=num_workers)
        for one, other in zip(whole[number:], loader, strict=False):
            same({**one, "rejected": {}}, {**other, "rejected": {}})


def test_batches_differ_from_seed_to_seed_and_in_their_noise():
    first, second = take(make_batches(seed=0), 8), take(make_batches(seed=1), 8)
    assert [batch["ids"] for batch in first] != [batch["ids"] for batch in second]
    assert len({batch["seed"] for batch in first + second}) == 16


def test_sources_are_drawn_by_weight():
    sources = [WeightedRows("a", make_rows(30, "a"), 3.0), WeightedRows("b", make_rows(30, "b"), 1.0)]
    ids = [i for batch in take(make_batches(sources, window_rows=64), 200) for i in batch["ids"]]
    assert sum(i.startswith("a-") for i in ids) / len(ids) == pytest.approx(0.75, abs=0.06)


def test_what_is_longer_than_the_budget_is_named_and_the_rest_is_used():
    batches = take(make_batches(max_positions=20), 12)
    rejected = {name: reason for batch in batches for name, reason in batch["rejected"].items()}
    assert "source: row-7" in rejected  # twelve patches, twelve phones and one
    assert all("more than `max_positions` (20)" in reason for reason in rejected.values())
    assert {i for batch in batches for i in batch["ids"]}.isdisjoint(name.split(": ")[1] for name in rejected)


def speech_rows(encode_speech, languages, name="row", audio=None, **columns):
    """Rows of audio in these languages."""
    audio = encode_speech(0.5) if audio is None else audio
    return Dataset.from_list(
        [
            make_example(f"{name}-{index}", content=audio, text="be a big dog", language=language, **columns)
            for index, language in enumerate(languages)
        ],
        features=EXAMPLE_FEATURES,
    )


def make_filtered(rows, max_positions=60, window_rows=4, **filters):
    filters = FilterArguments(languages=["en"], **filters)
    maker = ExampleMaker(PROCESSOR, ExampleArguments(max_unknown_tokens=100), filters)
    sources = rows if isinstance(rows, list) else [WeightedRows("source", rows)]
    return TokenBudgetBatches(sources, maker, BatchArguments(max_positions, window_rows))


def test_what_the_filters_leave_out_does_not_lessen_the_share_of_a_source(encode_speech):
    some = speech_rows(encode_speech, ["en", "de", "de", "de", "de"] * 6, "some")
    sources = [WeightedRows("some", some), WeightedRows("all", speech_rows(encode_speech, ["en"] * 30, "all"))]
    ids = [i for batch in take(make_filtered(sources, window_rows=64), 100) for i in batch["ids"]]
    assert sum(i.startswith("some-") for i in ids) / len(ids) == pytest.approx(0.5, abs=0.08)


def test_a_source_of_which_nothing_can_be_used_is_not_passed_over(encode_speech):
    sources = [
        WeightedRows("broken", speech_rows(encode_speech, ["en"] * 3, audio=b"")),
        WeightedRows("good", make_rows(9)),
    ]
    with pytest.raises(UnusableAudioError, match="broken: row-"):
        next(iter(make_filtered(sources)))


@pytest.mark.parametrize("max_positions", [40, 60, 220])
def test_no_batch_is_over_the_budget_where_speech_is_longer_than_stated(encode_speech, max_positions):
    rows = speech_rows(encode_speech, ["en"] * 20, audio=encode_speech(0.55), duration_seconds=0.5)
    batches = take(make_filtered(rows, max_positions, 20), 20)
    assert all(batch["input_ids"].numel() <= max_positions for batch in batches)
    assert not any(batch["rejected"] for batch in batches)


def test_what_is_too_short_when_its_silent_end_is_off_is_left_out(encode_speech):
    samples, rate = soundfile.read(io.BytesIO(encode_speech(0.2)))
    silent = io.BytesIO()
    soundfile.write(silent, np.concatenate([samples, np.zeros(rate)]), rate, format="WAV")
    short = WeightedRows("short", speech_rows(encode_speech, ["en"] * 4, "short", silent.getvalue()))
    long = WeightedRows("long", speech_rows(encode_speech, ["en"] * 4, "long", encode_speech(0.8)))
    batches = take(make_filtered([short, long], min_seconds=0.5), 8)
    assert all(i.startswith("long-") for batch in batches for i in batch["ids"])
    assert sum(batch["num_left_out"] for batch in batches) and not any(batch["rejected"] for batch in batches)


def test_rows_that_the_filters_leave_out_are_counted_however_many_they_are(encode_speech):
    batches = take(make_filtered(speech_rows(encode_speech, ["de"] * 1500 + ["en"] * 4)), 4)
    assert {i for batch in batches for i in batch["ids"]} <= {f"row-{index}" for index in range(1500, 1504)}
    assert sum(batch["num_left_out"] for batch in batches) > 1000 and not batches[0]["rejected"]


def test_filters_that_leave_nothing_end_with_a_reason(encode_speech):
    with pytest.raises(UnusableAudioError, match="`filters` leave out all rows; the last one is source: row-"):
        next(iter(make_filtered(speech_rows(encode_speech, ["de"] * 3))))


def test_a_budget_smaller_than_every_example_ends_with_a_reason():
    with pytest.raises(UnusableAudioError, match=r"more than `max_positions` \(5\)"):
        next(iter(make_batches(max_positions=5)))
    # and so it does in a worker, whose exceptions have no message
    (batch,) = DataLoader(make_batches(max_positions=5), batch_size=None, num_workers=1)
    assert "more than `max_positions` (5)" in batch["error"]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`sources` is empty"):
        TokenBudgetBatches([], ExampleMaker(PROCESSOR))
    with pytest.raises(ValueError, match="`window_rows` is 0"):
        BatchArguments(window_rows=0)
    with pytest.raises(ValueError, match="`num_workers` is 2"):
        next(iter(DataLoader(make_batches(), batch_size=None, num_workers=2)))
