import dataclasses
import errno
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from ditar_hf import DiTARVAE
from ditar_hf.training import vae_checkpoint
from ditar_hf.training.data import AudioSource
from ditar_hf.training.vae_checkpoint import find_checkpoints
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
    update = VAETrainer._update

    def dying_update(self, batches):
        if self.progress.step == at_step:
            next(batches)  # what was read ahead must be read again
            raise Killed
        return update(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(VAETrainer, "_update", dying_update)
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


def test_two_processes_equal_one(make_vae_arguments, tmp_path, load_tensors):
    overrides = {"ema_decay": 0.0, "learning_rate": 1e-4, "max_grad_norm": 1e6}
    VAETrainer(make_vae_arguments(output_dir=str(tmp_path / "one"), batch_size=2, **overrides)).train()
    two = make_vae_arguments(output_dir=str(tmp_path / "two"), batch_size=1, **overrides)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(two.to_dict()))))
    code = "from ditar_hf.cli import app; app()"
    (tmp_path / "main.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(tmp_path / "main.py"), "train-vae", str(tmp_path / "two.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_tensors(tmp_path / name / "checkpoint-6") for name in ("one", "two"))
    for name, value in one.items():
        if name.startswith("model") and isinstance(value, torch.Tensor):
            # Adam's first steps have the size of the rate whatever the gradient: rounding can turn tiny ones around
            difference = (value - two[name]).abs()
            assert difference.max() < 7e-4 and difference.mean() < 5e-6, name


def test_accumulated_batches_equal_one_large_batch(make_vae_arguments, tmp_path, load_tensors):
    overrides = {"learning_rate": 1e-4, "adversarial_start_step": None}
    VAETrainer(make_vae_arguments(output_dir=str(tmp_path / "large"), batch_size=4, **overrides)).train()
    VAETrainer(
        make_vae_arguments(output_dir=str(tmp_path / "small"), gradient_accumulation_steps=2, **overrides)
    ).train()
    large, small = (load_tensors(tmp_path / name / "checkpoint-6") for name in ("large", "small"))
    for name, value in large.items():
        if name.startswith("model") and isinstance(value, torch.Tensor):
            assert (value - small[name]).abs().mean() < 5e-6, name


def test_a_frozen_encoder_keeps_its_latents(make_vae_arguments, tmp_path):
    first = VAETrainer(make_vae_arguments(output_dir=str(tmp_path / "first"))).train()
    arguments = make_vae_arguments(
        output_dir=str(tmp_path / "second"), vae={}, start_from=str(tmp_path / "first"), freeze_encoder_step=0
    )
    second = VAETrainer(arguments).train()
    waveforms = torch.randn(1, 6000) * 0.1
    assert torch.equal(first.encode(waveforms).mode(), second.encode(waveforms).mode())
    assert not torch.equal(first.decode(torch.ones(1, 3, 8)), second.decode(torch.ones(1, 3, 8)))


def test_the_encoder_is_its_average_once_frozen(make_vae_arguments, tmp_path, load_tensors):
    vae = VAETrainer(make_vae_arguments(freeze_encoder_step=2, save_steps=1, save_total_limit=9)).train()
    encoders = [
        {n: v for n, v in load_tensors(tmp_path / f"run/checkpoint-{step}").items() if n.startswith("model.s")}
        for step in (1, 2, 6)
    ]
    names = [name for name in encoders[0] if "/encoder." in name]
    assert any(not torch.equal(encoders[0][name], encoders[1][name]) for name in names)
    assert all(torch.equal(encoders[1][name], encoders[2][name]) for name in names)
    saved = {f"model.safetensors/{name}": value for name, value in vae.state_dict().items()}
    assert all(torch.equal(encoders[2][name], saved[name]) for name in names)


def test_recordings_that_cannot_be_used_are_named_and_left_out(make_vae_arguments, recordings, capfd):
    (recordings / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(recordings / "empty.wav", torch.zeros(0).numpy(), 24000)
    soundfile.write(recordings / "telephone.wav", torch.zeros(4000).numpy(), 8000)
    VAETrainer(make_vae_arguments(max_steps=12, adversarial_start_step=None)).train()
    out = capfd.readouterr().out
    assert "not used" in out and "rejected 0" not in out.splitlines()[-1]
    for name in ("broken.wav", "empty.wav", "telephone.wav"):
        assert name in out


def test_nothing_usable_is_an_error(make_vae_arguments, recordings):
    for file in recordings.iterdir():
        file.write_bytes(b"no audio")
    with pytest.raises(ValueError, match="cannot be used.*decoded"):
        VAETrainer(make_vae_arguments()).train()


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
    with pytest.raises(ArithmeticError, match="step 4 is not finite.*nonfinite-4-0.json"):
        trainer.train()
    report = json.loads((tmp_path / "run/nonfinite-4-0.json").read_text())
    assert len(report["ids"]) == 2 and all(name.endswith(".wav") for name in report["ids"])
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert [path.name for path in find_checkpoints(tmp_path / "run")] == ["checkpoint-3"]


def test_a_full_disk_leaves_the_last_checkpoint(make_vae_arguments, tmp_path, monkeypatch):
    trainer = VAETrainer(make_vae_arguments())
    save_state = trainer.accelerator.save_state

    def full_disk(folder):
        if trainer.progress.step == 6:
            Path(folder, "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_state(folder)

    monkeypatch.setattr(trainer.accelerator, "save_state", full_disk)
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-3"]
    VAETrainer(make_vae_arguments()).train(resume=True)
    assert (tmp_path / "run/model.safetensors").is_file()


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
    VAETrainer(make_vae_arguments(logging_steps=1, save_total_limit=5)).train(resume=True)


def test_a_fresh_run_does_not_overwrite_another(make_vae_arguments):
    with pytest.raises(ValueError, match="no checkpoint"):
        VAETrainer(make_vae_arguments()).train(resume=True)
    VAETrainer(make_vae_arguments()).train()
    with pytest.raises(ValueError, match="holds checkpoint-6"):
        VAETrainer(make_vae_arguments()).train()


def test_trackers_get_curves_pictures_and_audio(make_vae_arguments, recordings, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
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
