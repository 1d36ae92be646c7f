"""Laws of `DiTARTrainer`: interrupted equals uninterrupted, micro-batches equal one batch, two processes equal one."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import IterableDataset
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils.data import Subset
from transformers import Trainer

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.modeling import modeling_ditar
from ditar_hf.training import run_folder
from ditar_hf.training.batches import BatchArguments, TokenBudgetBatches, WeightedRows
from ditar_hf.training.checkpoints import RunError, find_checkpoints
from ditar_hf.training.data import AudioSource
from ditar_hf.training.examples import ExampleMaker
from ditar_hf.training.trainer import DiTARTrainer
from ditar_hf.training.training_arguments import DiTARTrainingArguments

TEXTS = ["a cat sat.", "the dog ran home", "no, a fine day it is", "we go", "who is there?", "it rains on the hill"]


@pytest.fixture
def tars(tmp_path, encode_speech, put_tar):
    """Pattern of two tar files of twelve recordings with their texts."""
    for shard in range(2):
        members = {}
        for index in range(6):
            number = 6 * shard + index
            members[f"{number}.wav"] = encode_speech(0.5 + 0.1 * index, pitch=150 + 20 * number)
            members[f"{number}.json"] = {
                "id": f"row-{number}",
                "text": TEXTS[index],
                "speaker": "s",
                "language": "en-us",
            }
        put_tar(tmp_path / "tars" / f"EN-{shard}.tar", members)
    return str(tmp_path / "tars" / "EN-*.tar")


@pytest.fixture
def model_folder(save_tiny, tmp_path):
    return save_tiny(tmp_path / "model", DiTARTokenizer.from_texts(TEXTS, "en-us"))


@pytest.fixture
def run(model_folder, tars, tmp_path):
    """Runs `train_run.py` in one or more processes and returns what became of it."""

    def run(name, processes=1, expected=0, **options):
        values = {
            "model": str(model_folder),
            "data": [tars],
            "output_dir": str(tmp_path / name),
            "max_steps": 6,
            "save_steps": 2,
            "logging_steps": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "gradient_accumulation_steps": 3,
            "num_loader_workers": 1,
            **options,
        }
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(values))
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += [str(Path(__file__).with_name("train_run.py")), str(file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == expected, done.stderr[-3000:]
        return done

    return run


def checkpoint_values(folder):
    """Everything in a checkpoint that training goes on from."""
    optimizer = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    values = {f"optimizer.{i}.{name}": value for i, state in optimizer.items() for name, value in state.items()}
    for name in ("model", "current_weights"):
        values |= {f"{name}.{key}": value for key, value in load_file(folder / f"{name}.safetensors").items()}
    positions = {file.name: json.loads(file.read_text()) for file in folder.glob("position_*.json")}
    scheduler = torch.load(folder / "scheduler.pt", weights_only=True)
    return values, positions, scheduler


def assert_equal_checkpoints(one, other):
    (values, *rest), (other_values, *other_rest) = checkpoint_values(one), checkpoint_values(other)
    assert rest == other_rest and values.keys() == other_values.keys()
    assert [name for name, value in values.items() if not torch.equal(value, other_values[name])] == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_as_if_it_had_not_been(run, processes, tmp_path):
    """Streamed, several passes, accumulation 3, one loader worker, killed by SIGKILL between two checkpoints."""
    run("whole", processes)
    run("killed", processes, expected=1 if processes > 1 else -signal.SIGKILL, kill_at_step=5)
    assert [path.name for path in find_checkpoints(tmp_path / "killed")] == ["checkpoint-2", "checkpoint-4"]
    run("killed", processes, resume=True)
    assert_equal_checkpoints(tmp_path / "whole/checkpoint-6", tmp_path / "killed/checkpoint-6")
    positions = checkpoint_values(tmp_path / "whole/checkpoint-6")[1]
    assert len(positions) == processes
    # the two tar files were read more than once
    assert all(position["sources"][0]["epoch"] >= 1 for position in positions.values())


@pytest.fixture
def make_trainer(model_folder, tars, tmp_path):
    """Factory of trainers in this process; `batches` replaces what is learnt from."""

    def make(name="run", batches=None, eval_dataset=None, model=None, **options):
        values = {"max_steps": 2, "logging_steps": 1, "learning_rate": 1e-3, "warmup_steps": 1, **options}
        args = DiTARTrainingArguments(output_dir=str(tmp_path / name), use_cpu=True, **values)
        processor = DiTARProcessor.from_pretrained(model_folder)
        model = DiTARForTextToSpeech.from_pretrained(model_folder) if model is None else model
        if batches is None:
            sources = [WeightedRows("tars", AudioSource(tars).read())]
            batches = TokenBudgetBatches(sources, ExampleMaker(processor), BatchArguments(60, 5))
        return DiTARTrainer(model, args, train_dataset=batches, eval_dataset=eval_dataset, processing_class=processor)

    return make


class FixedBatches(TokenBudgetBatches):
    """The same batches again and again, as if they came from a source."""

    def __init__(self, batches):
        torch.utils.data.IterableDataset.__init__(self)
        self.batches, self.rank, self.world_size = batches, 0, 1

    def __iter__(self):
        while True:
            for number, batch in enumerate(self.batches):
                yield {**batch, "ids": [f"row-{number}"], "position": {}, "rejected": {}, "num_left_out": 0, "seed": 7}


def latent_example(processor, num_patches, seed):
    torch.manual_seed(seed)
    text = processor.tokenize_text("the dog ran home")
    return {"input_ids": text, "latents": torch.randn(4 * num_patches, 8), "alignment": [0] * num_patches}


def gradients_of(trainer):
    """Gradients of the first update, before they are clipped."""
    found = {}
    original = trainer._clip_grad_norm

    def clip(model):
        parameters = trainer.model.named_parameters()
        found.update((name, p.grad.clone()) for name, p in parameters if p.grad is not None)
        return original(model)

    trainer._clip_grad_norm = clip
    trainer.train()
    return found


def test_micro_batches_of_any_length_equal_one_batch(make_trainer, make_model, model_folder, monkeypatch):
    """Each loss is a mean over all that it applies to in an update, not a mean of means."""
    # draws are a matter of the batch: without them, a patch is learnt in one way wherever it stands
    monkeypatch.setattr(modeling_ditar, "randn_tensor", lambda shape, *args: torch.full(shape, 0.3))
    processor = DiTARProcessor.from_pretrained(model_folder)
    examples = [latent_example(processor, *sizes) for sizes in ((3, 0), (9, 1), (5, 2), (20, 3))]
    options = {"alignment_loss_weight": 0.3, "condition_dropout": 0.0}
    options |= {"timestep_distribution": "logit_normal", "timestep_logit_mean": 0.0, "timestep_logit_std": 0.0}
    collate = make_trainer("any").data_collator
    gradients, losses = [], []
    for name, batches in (("one", [examples]), ("four", [[example] for example in examples])):
        vocabulary = {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 2048}
        model = make_model(lm_config=vocabulary, **options)
        batches = FixedBatches([collate(batch) for batch in batches])
        accumulation = {"gradient_accumulation_steps": len(batches.batches)}
        trainer = make_trainer(name, batches, model=model, max_steps=1, **accumulation)
        gradients.append(gradients_of(trainer))
        losses.append({k: v for k, v in trainer.state.log_history[0].items() if "loss" in k})
    one, four = gradients
    assert one.keys() == four.keys() and len(one) > 20
    for name, gradient in one.items():
        torch.testing.assert_close(four[name], gradient, atol=1e-5, rtol=1e-3, msg=name)
    assert losses[0].keys() == {"loss", "diffusion_loss", "stop_loss", "alignment_loss"}
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_evaluation_is_the_same_every_time_and_a_mean_over_examples(make_trainer, model_folder):
    processor = DiTARProcessor.from_pretrained(model_folder)
    examples = [latent_example(processor, *sizes) for sizes in ((3, 0), (9, 1), (5, 2))]
    trainer = make_trainer(eval_dataset=examples, per_device_eval_batch_size=1)
    torch.manual_seed(1)
    first = trainer.evaluate()
    torch.manual_seed(2)
    assert {k: v for k, v in trainer.evaluate().items() if "loss" in k} == {
        k: v for k, v in first.items() if "loss" in k
    }
    single = [trainer.evaluate(Subset(examples, [index])) for index in range(3)]
    expected = sum(n * row["eval_diffusion_loss"] for n, row in zip((3, 9, 5), single, strict=True)) / 17
    assert first["eval_diffusion_loss"] == pytest.approx(expected, rel=1e-5)
    expected = sum(n * row["eval_stop_loss"] for n, row in zip((4, 10, 6), single, strict=True)) / 20
    assert first["eval_stop_loss"] == pytest.approx(expected, rel=1e-5)
    # and what is learnt after it has the same noise as without
    state = torch.random.get_rng_state()
    trainer.evaluate()
    assert torch.equal(torch.random.get_rng_state(), state)
    # as the model itself has it
    model = trainer.model.eval()
    with torch.no_grad():
        output = model(**trainer.data_collator([examples[1]]))
    assert single[1]["eval_diffusion_loss"] == pytest.approx(output.diffusion_loss.item(), rel=1e-5)


def test_the_averaged_weights_are_saved_and_training_goes_on_from_its_own(make_trainer, tmp_path):
    trainer = make_trainer(max_steps=3, save_steps=3, learning_rate=1e-2)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    trainer.save_model()
    saved = load_file(tmp_path / "run/model.safetensors")
    current = load_file(tmp_path / "run/checkpoint-3/current_weights.safetensors")
    moved = [name for name in current if not torch.equal(current[name], start[name])]
    assert moved and all(torch.equal(current[name], dict(trainer.model.named_parameters())[name]) for name in moved)
    assert any(not torch.equal(saved[name], current[name]) for name in moved)
    checkpoint = load_file(tmp_path / "run/checkpoint-3/model.safetensors")
    assert all(torch.equal(saved[name], checkpoint[name]) for name in saved)
    # the tokenizer of speech is neither trained nor averaged
    assert not any(name.startswith("vae.") for name in current)


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_the_rows(make_trainer, model_folder, tmp_path):
    processor = DiTARProcessor.from_pretrained(model_folder)
    trainer = make_trainer(max_steps=3)
    batch = trainer.data_collator([latent_example(processor, 4, 0)])
    broken = {**batch, "latents": batch["latents"] * torch.inf}
    trainer = make_trainer("broken", FixedBatches([batch, batch, broken]), max_steps=3, save_steps=1)
    with pytest.raises(ArithmeticError, match="gradients of step 2 are not finite"):
        trainer.train()
    report = json.loads((tmp_path / "broken/nonfinite-2-0.json").read_text())
    assert report["ids"] == ["row-2"]
    assert [path.name for path in find_checkpoints(tmp_path / "broken")] == ["checkpoint-1", "checkpoint-2"]


def test_sigterm_saves_a_checkpoint_from_which_the_run_goes_on(make_trainer, tmp_path):
    make_trainer("whole", max_steps=4, save_steps=4).train()
    stopped = make_trainer("stopped", max_steps=4, save_steps=100)
    step = stopped.training_step

    def step_and_signal(*args, **kwargs):
        if stopped.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args, **kwargs)

    stopped.training_step = step_and_signal
    before = signal.getsignal(signal.SIGTERM)
    stopped.train()
    assert stopped.was_stopped and signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in find_checkpoints(tmp_path / "stopped")] == ["checkpoint-2"]
    resumed = make_trainer("stopped", max_steps=4, save_steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert not resumed.was_stopped
    assert_equal_checkpoints(tmp_path / "whole/checkpoint-4", tmp_path / "stopped/checkpoint-4")


def test_a_run_stopped_after_its_last_checkpoint_still_gives_its_model(make_trainer, tmp_path):
    make_trainer(max_steps=2, save_steps=2).train()
    again = make_trainer(max_steps=2, save_steps=2)
    assert again.train(resume_from_checkpoint=True).global_step == 2
    again.save_model()
    saved, expected = (
        load_file(tmp_path / "run" / f) for f in ("model.safetensors", "checkpoint-2/model.safetensors")
    )
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
    assert not (tmp_path / "run/.partial-model").exists()


def test_going_back_keeps_what_was_written_last(make_trainer, tmp_path):
    options = {"max_steps": 8, "save_total_limit": 2, "lr_scheduler_type": "constant"}
    make_trainer(save_steps=2, **options).train()
    assert [path.name for path in find_checkpoints(tmp_path / "run")] == ["checkpoint-6", "checkpoint-8"]
    back = make_trainer(save_steps=1, **{**options, "max_steps": 7})
    back.train(resume_from_checkpoint=tmp_path / "run/checkpoint-6")
    assert [path.name for path in back.run_folder.find_checkpoints()] == ["checkpoint-8", "checkpoint-7"]
    os.utime(tmp_path / "run/checkpoint-8/run.json")  # as a copy may do, which does not keep times
    make_trainer(save_steps=1, **options).train(resume_from_checkpoint=True)  # from 7, not from 8
    assert [path.name for path in back.run_folder.find_checkpoints()] == ["checkpoint-7", "checkpoint-8"]


def test_the_end_of_a_decay_stays_where_it_is(make_trainer, tmp_path):
    decay = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 3}}
    make_trainer(max_steps=6, save_steps=2, **decay).train()
    with pytest.raises(RunError, match="`max_steps` was 6, is 20"):
        make_trainer(max_steps=20, **decay).train(resume_from_checkpoint=tmp_path / "run/checkpoint-4")


def test_a_list_of_rejected_rows_that_was_cut_off_is_read(make_trainer, tmp_path):
    make_trainer(max_steps=1, save_steps=1).train()
    (tmp_path / "run/rejected-0.jsonl").write_text('{"id": "a", "reason": "b"}\n{"id": "c", "rea')
    trainer = make_trainer(max_steps=2, lr_scheduler_type="constant_with_warmup")
    trainer.train(resume_from_checkpoint=True)
    assert (tmp_path / "run/rejected-0.jsonl").read_text() == '{"id": "a", "reason": "b"}\n'
    assert trainer.state.log_history[-2]["rejected"] == 1


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(max_steps=2, save_steps=1)

    def fill(self, file):
        if trainer.state.global_step == 2:
            raise OSError(28, "No space left on device")
        return save_current(self, file)

    save_current = type(trainer.average).save_current
    monkeypatch.setattr(type(trainer.average), "save_current", fill)
    with pytest.raises(OSError, match="checkpoint-2 cannot be written, earlier checkpoints are as they were"):
        trainer.train()
    assert [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()] == ["checkpoint-1"]


def test_a_full_disk_at_the_end_leaves_nothing_half_written(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(max_steps=1, save_steps=1)
    trainer.train()

    def fill(self, output_dir, _internal_call=False):
        Path(output_dir).mkdir()
        Path(output_dir, "model.safetensors").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(Trainer, "save_model", fill)
    with pytest.raises(OSError, match="run cannot be written"):
        trainer.save_model()
    assert [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()] == ["checkpoint-1"]


def test_a_stream_to_evaluate_on_is_refused(make_trainer):
    stream = IterableDataset.from_generator(lambda: iter([]))
    with pytest.raises(ValueError, match="`eval_dataset` is a stream"):
        make_trainer(eval_dataset=stream, eval_strategy="steps", eval_steps=1).evaluate()


def test_a_checkpoint_killed_while_it_is_written_is_not_there(make_trainer, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*args):
        raise Killed

    trainer = make_trainer(max_steps=2, save_steps=1)
    trainer.train()
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.os, "replace", killed)
        patch.setattr(run_folder.shutil, "rmtree", lambda *args, **kwargs: None)  # a dead process tidies nothing up
        with pytest.raises(Killed):
            make_trainer("other", max_steps=2, save_steps=1).train()
    assert (tmp_path / "other/.partial/checkpoint-1").is_dir() and not find_checkpoints(tmp_path / "other")
    with pytest.raises(RunError, match="is no whole checkpoint; there is no whole one"):
        make_trainer("other").train(resume_from_checkpoint=tmp_path / "other/.partial/checkpoint-1-half")
    (tmp_path / "run/checkpoint-2/run.json").unlink()
    with pytest.raises(RunError, match="is no whole checkpoint; the last whole one is .*checkpoint-"):
        make_trainer("run").train(resume_from_checkpoint=tmp_path / "run/checkpoint-2")


def test_runs_keep_out_of_each_others_way(make_trainer, tmp_path):
    first = make_trainer(max_steps=2, save_steps=2)
    with first.run_folder.claimed(), pytest.raises(RunError, match="another run is writing"):
        make_trainer().train()
    first.train()
    with pytest.raises(RunError, match="holds checkpoint-2: resume, or take another folder"):
        make_trainer().train()
    with pytest.raises(RunError, match="`learning_rate` was 0.001, is 0.01"):
        make_trainer(learning_rate=1e-2).train(resume_from_checkpoint=True)
    with pytest.raises(RunError, match="there is no whole checkpoint in"):
        make_trainer("nowhere").train(resume_from_checkpoint=True)


def test_samples_are_heard_and_seen(make_trainer, tmp_path):
    pytest.importorskip("tensorboard")
    options = {"sample_steps": 2, "sample_texts": ["we go"], "report_to": ["tensorboard"]}
    trainer = make_trainer(max_steps=2, **options)
    trainer.train()
    assert {file.name for file in (tmp_path / "run/samples/step-2").iterdir()} == {"0.wav", "0.png"}
    assert trainer.model.training


@pytest.mark.parametrize(
    "options, name",
    [
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"num_loader_workers": 2}, "num_loader_workers"),
        ({"sample_steps": 1}, "sample_steps"),
        ({"max_steps": -1}, "max_steps"),
        ({"save_only_model": True}, "save_only_model"),
        ({"enable_jit_checkpoint": True}, "enable_jit_checkpoint"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers"),
        ({"eval_strategy": "epoch"}, "eval_strategy"),
        ({"sample_steps": 1, "sample_texts": ["a" * 2000]}, r"text[0]"),
    ],
)
def test_bad_arguments_are_refused(make_trainer, options, name):
    with pytest.raises(ValueError, match=re.escape(f"`{name}`")):
        make_trainer(**options)
