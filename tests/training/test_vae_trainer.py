import dataclasses
import json
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

from ditar_hf import DiTARVAE
from ditar_hf.training import vae_checkpoint
from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.checkpoints import RunError, find_checkpoints
from ditar_hf.training.data import AudioSource
from ditar_hf.training.vae_trainer import VAETrainer


class Killed(Exception):
    """What ends a run in the middle."""


def same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_same_checkpoints(first, second, load_tensors):
    first, second = load_tensors(first), load_tensors(second)
    assert first.keys() == second.keys() and len(first) > 100
    assert [name for name in first if not same(first[name], second[name])] == []


def run_interrupted(arguments, at_step, monkeypatch):
    """A run that dies in the update after `at_step`, and one that resumes it."""
    learn = VAETrainer._learn

    def dying_learn(self, batch):
        if self.progress.step == at_step:
            raise Killed  # after a batch was read, which must be read again
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(VAETrainer, "_learn", dying_learn)
        with pytest.raises(Killed):
            VAETrainer(arguments).train()
    return VAETrainer(arguments).train(resume=True)


def pack_tars(recordings, folder):
    """The recordings in two tar files, as Emilia packs its own."""
    folder.mkdir()
    for part in range(2):
        with tarfile.open(folder / f"EN-{part}.tar", "w") as archive:
            for file in sorted(recordings.iterdir())[part::2]:
                meta = file.with_suffix(".json")
                meta.write_text(json.dumps({"id": file.stem, "text": " words", "speaker": "s"}))
                archive.add(meta, f"{file.stem}.json")
                archive.add(file, file.name)
                meta.unlink()
    return str(folder / "EN-*.tar")


def test_a_run_leaves_a_model_that_loads(make_vae_arguments, tmp_path, capfd):
    vae = VAETrainer(make_vae_arguments()).train()
    loaded = DiTARVAE.from_pretrained(tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(vae.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert loaded.latent_std.std() > 0  # measured
    assert [path.name for path in find_checkpoints(tmp_path / "run")] == ["checkpoint-3", "checkpoint-6"]
    assert not list((tmp_path / "run").glob(".partial*"))
    out = capfd.readouterr().out
    for name in ("mel_loss", "stft_loss", "kl_loss", "discriminator_loss", "adversarial_loss", "feature_loss"):
        assert f" {name} " in out


def test_training_lowers_the_loss(make_vae_arguments, capfd):
    arguments = make_vae_arguments(
        adversarial_start_step=None, freeze_encoder_step=None, max_steps=60, logging_steps=20, learning_rate=5e-3
    )
    VAETrainer(arguments).train()
    losses = [
        float(line.split(" loss ")[1].split()[0]) for line in capfd.readouterr().out.splitlines() if " loss " in line
    ]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"num_workers": 2},
        {"gradient_accumulation_steps": 2, "batch_size": 1},
        {"mixed_precision": "bf16", "lr_scheduler_type": "constant"},
        {"freeze_encoder_step": 3, "adversarial_start_step": 3},  # both change right after the checkpoint
    ],
    ids=str,
)
def test_an_interrupted_run_equals_an_uninterrupted_one(
    make_vae_arguments, overrides, tmp_path, monkeypatch, load_tensors
):
    whole = make_vae_arguments(output_dir=str(tmp_path / "whole"), **overrides)
    VAETrainer(whole).train()
    broken = make_vae_arguments(output_dir=str(tmp_path / "broken"), **overrides)
    run_interrupted(broken, 4, monkeypatch)
    assert_same_checkpoints(tmp_path / "whole/checkpoint-6", tmp_path / "broken/checkpoint-6", load_tensors)
    names = ("model.safetensors", "config.json")
    assert all((tmp_path / "whole" / n).read_bytes() == (tmp_path / "broken" / n).read_bytes() for n in names)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_interrupted_run_on_a_stream_equals_an_uninterrupted_one(
    make_vae_arguments, num_workers, recordings, tmp_path, monkeypatch, load_tensors
):
    streams = [AudioSource(pack_tars(recordings, tmp_path / "tars")), AudioSource(str(recordings))]
    overrides = {"data": streams, "num_workers": num_workers, "max_steps": 10, "save_steps": 5}
    overrides["crops"] = dataclasses.replace(make_vae_arguments().crops, window_rows=2)
    VAETrainer(make_vae_arguments(output_dir=str(tmp_path / "whole"), **overrides)).train()
    run_interrupted(make_vae_arguments(output_dir=str(tmp_path / "broken"), **overrides), 7, monkeypatch)
    assert_same_checkpoints(tmp_path / "whole/checkpoint-10", tmp_path / "broken/checkpoint-10", load_tensors)


def test_more_than_one_worker_is_refused_for_a_stream(make_vae_arguments, recordings, tmp_path):
    streams = [AudioSource(pack_tars(recordings, tmp_path / "tars"))]
    with pytest.raises(ValueError, match="`num_workers` is 2"):
        VAETrainer(make_vae_arguments(data=streams, num_workers=2))


def torchrun(script, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, script, *arguments], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("overrides", [{}, {"freeze_encoder_step": None}], ids=str)
def test_two_processes_equal_one(make_vae_arguments, overrides, tmp_path, load_tensors):
    """And resume as one does, and stop together; what each process does is in `two_processes.py`."""
    # so small a rate that rounding cannot grow from step to step, as it does in the logarithms of near silence
    overrides = {"learning_rate": 1e-7, "gradient_accumulation_steps": 2, **overrides}
    one = make_vae_arguments(output_dir=str(tmp_path / "one"), **overrides)
    VAETrainer(one).train()
    two = dataclasses.replace(one, batch_size=1, output_dir=str(tmp_path / "two"))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(two.to_dict()))))
    torchrun(str(Path(__file__).parent / "two_processes.py"), str(tmp_path / "two.yaml"))

    one, two, resumed = (load_tensors(tmp_path / name / "checkpoint-6") for name in ("one", "two", "resumed"))
    assert [name for name in two if not same(two[name], resumed[name])] == []
    moments = [name for name in one if name.endswith("exp_avg")]  # of the gradients of all steps, of both optimizers
    assert any(name.startswith("optimizer_1.bin") for name in moments)
    for name in moments:
        assert (one[name] - two[name]).norm() < 1e-2 * one[name].norm() + 1e-7, name
    assert len(list(tmp_path.glob("stopped-*"))) == 2
    assert [path.name for path in (tmp_path / "broken").glob("nonfinite*")] == ["nonfinite-1-1.json"]


def test_accumulated_batches_equal_one_large_batch(make_vae_arguments, tmp_path, load_tensors):
    large = make_vae_arguments(output_dir=str(tmp_path / "large"), batch_size=4, learning_rate=1e-7)
    small = dataclasses.replace(large, output_dir=str(tmp_path / "small"), batch_size=2, gradient_accumulation_steps=2)
    for arguments in (large, small):
        VAETrainer(arguments).train()
    large, small = (load_tensors(tmp_path / name / "checkpoint-6") for name in ("large", "small"))
    moments = [name for name in large if name.endswith("exp_avg")]
    for name in moments:
        assert (large[name] - small[name]).norm() < 1e-2 * large[name].norm() + 1e-7, name


def test_a_frozen_encoder_keeps_its_latents(make_vae_arguments, tmp_path):
    first = VAETrainer(make_vae_arguments(output_dir=str(tmp_path / "first"))).train()
    arguments = make_vae_arguments(
        output_dir=str(tmp_path / "second"), vae={}, start_from=str(tmp_path / "first"), freeze_encoder_step=0
    )
    second = VAETrainer(arguments).train()
    waveforms = torch.randn(1, 6000) * 0.1
    assert torch.equal(first.encode(waveforms).mode(), second.encode(waveforms).mode())
    assert not torch.equal(first.decode(torch.ones(1, 3, 8)), second.decode(torch.ones(1, 3, 8)))


def test_the_encoder_is_its_average_once_frozen(make_vae_arguments, tmp_path):
    vae = VAETrainer(make_vae_arguments(freeze_encoder_step=2, save_steps=1, save_total_limit=9)).train()
    before, after, last = (load_file(tmp_path / f"run/checkpoint-{step}/model.safetensors") for step in (2, 3, 6))
    average = DiTARVAE.from_pretrained(tmp_path / "run/checkpoint-2/averaged").state_dict()
    names = [name for name in before if name.startswith("encoder.")]
    assert any(not torch.equal(before[name], after[name]) for name in names)
    for later in (after, last, vae.state_dict()):
        assert all(torch.equal(average[name], later[name]) for name in names)
    assert any(not torch.equal(after[name], last[name]) for name in before if name.startswith("decoder."))


def test_recordings_that_cannot_be_used_are_named_and_left_out(make_vae_arguments, recordings, tmp_path, capfd):
    (recordings / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(recordings / "empty.wav", torch.zeros(0).numpy(), 24000)
    soundfile.write(recordings / "telephone.wav", torch.zeros(4000).numpy(), 8000)
    VAETrainer(make_vae_arguments(max_steps=20, adversarial_start_step=None)).train()
    out = capfd.readouterr().out
    assert "not used" in out and out.splitlines()[-1].endswith("rejected 3")
    lines = (tmp_path / "run/rejected-0.jsonl").read_text().splitlines()
    rejected = {json.loads(line)["id"].split(": ")[1]: json.loads(line)["reason"] for line in lines}
    assert rejected.keys() == {"broken.wav", "empty.wav", "telephone.wav"} and len(lines) == 3
    assert "8000 Hz" in rejected["telephone.wav"] and "no samples" in rejected["empty.wav"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_usable_is_an_error(make_vae_arguments, recordings, num_workers):
    for file in recordings.iterdir():
        file.write_bytes(b"no audio")
    with pytest.raises(UnusableAudioError, match="^`data`: 1000 recordings.*cannot be used.*decoded"):
        VAETrainer(make_vae_arguments(num_workers=num_workers)).train()


def test_an_empty_folder_is_an_error(make_vae_arguments, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no speech"):
        VAETrainer(make_vae_arguments(data=[AudioSource(str(tmp_path / "nothing"))]))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(make_vae_arguments, tmp_path, monkeypatch):
    trainer = VAETrainer(make_vae_arguments(adversarial_start_step=None))
    forward = trainer.model.forward

    def broken_forward(*args, **kwargs):
        output = forward(*args, **kwargs)
        if trainer.progress.step == 4:
            output.loss = output.loss * float("nan")
        return output

    monkeypatch.setattr(trainer.model, "forward", broken_forward)
    with pytest.raises(ArithmeticError, match="step 4 is not finite"):
        trainer.train()
    report = json.loads((tmp_path / "run/nonfinite-4-0.json").read_text())
    assert len(report["ids"]) == 2 and all(name.endswith(".wav") for name in report["ids"])
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert [path.name for path in find_checkpoints(tmp_path / "run")] == ["checkpoint-3"]


def test_a_full_disk_leaves_the_last_checkpoint(make_vae_arguments, tmp_path, monkeypatch):
    trainer = VAETrainer(make_vae_arguments())
    save_state, limits = trainer.accelerator.save_state, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_on_a_full_disk(folder):
        if trainer.progress.step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        return save_state(folder)

    monkeypatch.setattr(trainer.accelerator, "save_state", save_on_a_full_disk)
    try:
        with pytest.raises(OSError, match="checkpoint-6 cannot be written"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-3"]
    VAETrainer(make_vae_arguments()).train(resume=True)
    assert (tmp_path / "run/model.safetensors").is_file()


def test_a_fault_of_ours_is_not_taken_for_a_full_disk(make_vae_arguments, tmp_path, monkeypatch):
    trainer = VAETrainer(make_vae_arguments())
    monkeypatch.setattr(trainer.model, "save_pretrained", lambda folder: {}["a fault"])
    with pytest.raises(KeyError, match="a fault"):
        trainer.train()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_held_out_recording_that_cannot_be_used_is_named(make_vae_arguments, recordings, caplog):
    (recordings / "00.wav").write_bytes(b"no audio")
    trainer = VAETrainer(make_vae_arguments(eval_data=[AudioSource(str(recordings))], num_eval_clips=2))
    assert [clip.name for clip in trainer.clips] == ["0.wav", "1.wav"]
    assert "00.wav" in caplog.text and "decoded" in caplog.text


def test_a_kill_while_a_checkpoint_is_written_leaves_nothing_that_is_taken_for_one(
    make_vae_arguments, tmp_path, monkeypatch
):
    def killed(source, target):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(vae_checkpoint.os, "replace", killed)
        with pytest.raises(Killed):
            VAETrainer(make_vae_arguments()).train()
    assert find_checkpoints(tmp_path / "run") == []
    VAETrainer(make_vae_arguments()).train()
    assert not list((tmp_path / "run").glob(".partial*"))


def test_another_configuration_does_not_resume(make_vae_arguments):
    VAETrainer(make_vae_arguments()).train()
    other = make_vae_arguments(
        learning_rate=2e-3, crops=dataclasses.replace(make_vae_arguments().crops, crop_seconds=1)
    )
    with pytest.raises(ValueError, match=r"`crops.crop_seconds` was 0.2, is 1; `learning_rate` was 0.001, is 0.002"):
        VAETrainer(other).train(resume=True)


def test_what_is_not_learnt_from_may_change_on_resume(make_vae_arguments, monkeypatch):
    arguments = make_vae_arguments()
    run_interrupted(arguments, 4, monkeypatch)
    VAETrainer(make_vae_arguments(logging_steps=1, save_total_limit=5, num_workers=1)).train(resume=True)


def test_other_recordings_do_not_resume(make_vae_arguments, recordings, monkeypatch):
    VAETrainer(make_vae_arguments()).train()
    (recordings / "0.wav").rename(recordings / "00.wav")
    with pytest.raises(RunError, match=r"`recordings\[0\].rows_hash`"):
        VAETrainer(make_vae_arguments()).train(resume=True)


def test_what_differs_is_named_down_to_the_entry(make_vae_arguments, recordings):
    VAETrainer(make_vae_arguments()).train()
    other = make_vae_arguments(data=[AudioSource(str(recordings), weight=2.0)])
    with pytest.raises(RunError, match=r"`data\[0\].weight` was 1.0, is 2.0\. Restore"):
        VAETrainer(other).train(resume=True)


def test_a_tracker_that_is_not_installed_is_refused(make_vae_arguments):
    with pytest.raises(ValueError, match="`report_to`: comet_ml"):
        VAETrainer(make_vae_arguments(report_to=["comet_ml"]))


def test_low_precision_is_the_runs_own_matter(make_vae_arguments, tmp_path, monkeypatch):
    VAETrainer(make_vae_arguments(output_dir=str(tmp_path / "one"))).train()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    VAETrainer(make_vae_arguments(output_dir=str(tmp_path / "two"))).train()
    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.gpu
def test_a_run_on_an_accelerator_resumes(make_vae_arguments, monkeypatch):
    run_interrupted(make_vae_arguments(cpu=False), 4, monkeypatch)


def test_a_fresh_run_does_not_overwrite_another(make_vae_arguments):
    with pytest.raises(ValueError, match="no checkpoint"):
        VAETrainer(make_vae_arguments()).train(resume=True)
    VAETrainer(make_vae_arguments()).train()
    with pytest.raises(ValueError, match="holds checkpoint-6"):
        VAETrainer(make_vae_arguments()).train()


def test_trackers_get_curves_pictures_and_audio(make_vae_arguments, recordings, tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    arguments = make_vae_arguments(
        report_to=["tensorboard"], eval_data=[AudioSource(str(recordings))], eval_steps=3, num_eval_clips=2
    )
    VAETrainer(arguments).train()
    events = event_accumulator.EventAccumulator(str(tmp_path / "run/logs"))
    events.Reload()
    tags = events.Tags()
    assert {"loss", "mel_loss", "eval_mel_loss", "learning_rate"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("eval_mel_loss")] == [3, 6]
    assert set(tags["images"]) == {"spectrogram/0.wav", "spectrogram/1.wav"}
    assert {"recording/0.wav", "reconstruction/0.wav"} <= set(tags["audio"])
