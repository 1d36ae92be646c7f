import dataclasses
import itertools
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.data import EXAMPLE_FEATURES, AudioSource
from ditar_hf.training.vae_crops import CropArguments, CropBatches

ARGUMENTS = CropArguments(crop_seconds=0.2, max_speed_change=0.1, window_rows=4)


def make(sources, arguments=ARGUMENTS, batch_size=2, **kwargs):
    sources = [AudioSource(str(source)) if not isinstance(source, AudioSource) else source for source in sources]
    return CropBatches(sources, arguments, sampling_rate=24000, hop_length=600, batch_size=batch_size, **kwargs)


def take(batches, count):
    return list(itertools.islice(batches, count))


def rows_of(batches):
    return [(i, w) for batch in batches for i, w in zip(batch["ids"], batch["target_waveforms"], strict=True)]


def assert_same_rows(first, second):
    assert [identifier for identifier, _ in first] == [identifier for identifier, _ in second]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))


class Stream(AudioSource):
    """A streamed source of the recordings in a folder."""

    def read(self):
        rows = super().read()
        return Dataset.from_list(list(rows), features=EXAMPLE_FEATURES).to_iterable_dataset(num_shards=2)


def test_batches_depend_on_their_number_alone(recordings):
    first, again = take(make([recordings]), 4), take(make([recordings]), 4)
    assert_same_rows(rows_of(first), rows_of(again))
    other = rows_of(take(make([recordings], seed=1), 4))
    assert any(not torch.equal(a, b) for (_, a), (_, b) in zip(rows_of(first), other, strict=True))
    assert first[0]["target_waveforms"].shape == (2, 4800)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_nothing(recordings, num_workers):
    loader = DataLoader(make([recordings]), batch_size=None, num_workers=num_workers)
    assert_same_rows(rows_of(take(loader, 5)), rows_of(take(make([recordings]), 5)))


def test_processes_share_the_batches_of_one(recordings):
    one = rows_of(take(make([recordings], batch_size=4), 3))
    parts = [take(make([recordings], batch_size=2, rank=rank, world_size=2), 3) for rank in (0, 1)]
    assert_same_rows(one, [row for pair in zip(*parts, strict=True) for row in rows_of(pair)])


@pytest.mark.parametrize("kinds", [(AudioSource,), (Stream,), (Stream, AudioSource)])
@pytest.mark.parametrize("at", [1, 2, 5])
def test_it_goes_on_from_any_state(recordings, kinds, at):
    sources = [kind(str(recordings)) for kind in kinds]
    whole = take(make(sources), 9)
    rest = take(make(sources, first_batch=at, positions=whole[at - 1]["positions"]), 9 - at)
    assert_same_rows(rows_of(whole[at:]), rows_of(rest))


def test_a_stream_gives_every_row_once_a_pass(recordings):
    batches = take(make([Stream(str(recordings))], batch_size=3), 4)
    names = [identifier for batch in batches for identifier in batch["ids"]]
    assert sorted(names[:6]) == sorted(names[6:]) == [f"{index}.wav" for index in range(6)]


def test_a_stream_is_split_among_processes(recordings):
    parts = [rows_of(take(make([Stream(str(recordings))], batch_size=3, rank=r, world_size=2), 1)) for r in (0, 1)]
    assert sorted(identifier for part in parts for identifier, _ in part) == [f"{index}.wav" for index in range(6)]


def test_shares_follow_the_weights(recordings, tmp_path):
    (tmp_path / "other").mkdir()
    soundfile.write(tmp_path / "other/other.wav", np.ones(12000, np.float32) * 0.1, 24000)
    sources = [AudioSource(str(recordings), weight=3), AudioSource(str(tmp_path / "other"), weight=1)]
    names = [identifier for identifier, _ in rows_of(take(make(sources, batch_size=50), 8))]
    assert 60 < names.count("other.wav") < 140  # 100 expected, 4.6 standard deviations


def test_loudness_is_drawn_and_silence_stays(recordings, tmp_path):
    for _, waveform in rows_of(take(make([recordings]), 10)):
        assert 10 ** (-16 / 20) * 0.9 < waveform.abs().max() <= 10 ** (-1 / 20) + 1e-6
    (tmp_path / "silence").mkdir()
    soundfile.write(tmp_path / "silence/a.wav", np.zeros(24000, np.float32), 24000)
    assert not rows_of(take(make([tmp_path / "silence"]), 1))[0][1].any()
    soundfile.write(tmp_path / "silence/a.wav", np.full(24000, 1e-3, np.float32), 24000)
    assert rows_of(take(make([tmp_path / "silence"]), 1))[0][1].abs().max() < 1.2e-3 * 10 ** (30 / 20)
    kept = dataclasses.replace(ARGUMENTS, peak_decibels=None, max_speed_change=0.0)
    for identifier, waveform in rows_of(take(make([recordings], kept), 4)):
        assert waveform.abs().max() <= np.abs(soundfile.read(recordings / identifier)[0]).max() * 1.3, identifier


def test_what_is_short_ends_in_zeros(recordings):
    batch = take(make([recordings], dataclasses.replace(ARGUMENTS, crop_seconds=1.0)), 1)[0]
    assert batch["target_waveforms"].shape[1] == 24000
    assert not batch["target_waveforms"][:, 20000:].any() and batch["target_waveforms"][:, :8000].any()


def test_bandwidth_is_that_of_the_recording(recordings):
    still = dataclasses.replace(ARGUMENTS, max_speed_change=0.0)
    for batch in take(make([recordings], still), 8):
        for identifier, bandwidth in zip(batch["ids"], batch["bandwidths"], strict=True):
            assert bandwidth == (12000 if int(identifier[0]) % 2 else 8000)


def test_an_empty_top_may_be_judged(recordings):
    judged = dataclasses.replace(ARGUMENTS, ignore_above_bandwidth=False)
    assert all((batch["bandwidths"] == 12000).all() for batch in take(make([recordings], judged), 4))


def test_narrow_crops_are_heard_without_their_top(recordings):
    always = dataclasses.replace(ARGUMENTS, max_speed_change=0.0, narrow_probability=1.0)
    seen = set()
    for batch in take(make([recordings], always), 8):
        top = torch.fft.rfftfreq(4800, 1 / 24000) > 8000
        for heard, target, bandwidth in zip(
            batch["waveforms"], batch["target_waveforms"], batch["bandwidths"], strict=True
        ):
            energies = [torch.fft.rfft(x).abs()[top].square().sum() for x in (heard, target)]
            assert (energies[0] < 1e-6 * energies[1]) == (bandwidth == 12000)
            seen.add(float(bandwidth))
    assert seen == {8000.0, 12000.0}


def test_unusable_recordings_are_named_once_each(recordings):
    (recordings / "broken.wav").write_bytes(b"RIFF")
    rejected = {}
    for batch in take(make([recordings]), 20):
        rejected.update(batch["rejected"])
        assert "broken.wav" not in batch["ids"]
    assert list(rejected) == [f"{recordings}: broken.wav"] and "decoded" in rejected[f"{recordings}: broken.wav"]


@pytest.mark.parametrize(
    "values",
    [
        {"crop_seconds": 0},
        {"peak_decibels": (-1.0, -16.0)},
        {"peak_decibels": (-3.0, 3.0)},
        {"max_gain_decibels": -1.0},
        {"max_speed_change": 0.6},
        {"invert_probability": 1.5},
        {"narrow_probability": -0.1},
        {"window_rows": 0},
    ],
)
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match=f"`{next(iter(values))}`"):
        CropArguments(**values)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_empty_stream_is_named(tmp_path, num_workers):
    (tmp_path / "empty").mkdir()
    source = AudioSource(str(tmp_path / "empty/*.tar"))
    with tarfile.open(tmp_path / "empty/a.tar", "w"):
        pass
    loader = DataLoader(make([source]), batch_size=None, num_workers=num_workers)
    if num_workers:
        assert "empty/*.tar" in take(loader, 1)[0]["error"]
    else:
        with pytest.raises(UnusableAudioError, match="there is no speech in .*empty"):
            take(loader, 1)
