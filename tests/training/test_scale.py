"""
Laws of training on many processes: two are as one, with whole weights (DDP) or with weights in pieces (FSDP2).

What makes a step cheaper, and no other, stands here too: compiled blocks, recomputed activations, lower precision.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from safetensors.torch import load_file
from torch.utils.data import IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.training import run_parts
from ditar_hf.training.batches import BatchArguments, TokenBudgetBatches
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.data import AudioSource
from ditar_hf.training.lora import add_lora
from ditar_hf.training.run import TrainingRun
from ditar_hf.training.trainer import DiTARTrainer
from ditar_hf.training.training_arguments import DiTARTrainingArguments

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "accelerate"
TEXTS = ["a cat sat.", "the dog ran home", "no, a fine day it is", "we go", "who is there?", "it rains on the hill"]


class FixedBatches(TokenBudgetBatches):
    """The same batches again and again, as if they came from a source."""

    def __init__(self, batches):
        IterableDataset.__init__(self)
        self.batches, self.rank, self.world_size = batches, 0, 1

    def __iter__(self):
        while True:
            for batch in self.batches:
                yield {**batch, "ids": [], "position": {}, "rejected": {}, "num_left_out": 0, "seed": 7}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folder that the tests of this file have in common."""
    return tmp_path_factory.mktemp("scale")


@pytest.fixture
def folder(shared, save_tiny):
    """A model, a batch for each of two processes, of other lengths and numbers of rows, and held-out examples."""
    if not (shared / "model").exists():
        save_tiny(shared / "model", DiTARTokenizer.from_texts(TEXTS, "en-us"))
        processor = DiTARProcessor.from_pretrained(shared / "model")
        collate = DiTARDataCollator(processor)
        rows = [latent_example(processor, index, 3 + 2 * index) for index in range(6)]
        torch.save([collate(rows[:1]), collate(rows[1:4])], shared / "batches.pt")
        held_out = [latent_example(processor, index, 9 - index) for index in range(5)]
        torch.save(held_out, shared / "held_out.pt")
    return shared


def latent_example(processor, index, num_patches):
    torch.manual_seed(index)
    ids = list(processor.tokenize_text(TEXTS[index], "en-us"))
    return {"input_ids": ids, "latents": torch.randn(4 * num_patches, 8)}


@pytest.fixture
def launched(monkeypatch):
    """What `accelerate launch` with a configuration hands over: arguments of `torchrun` and an environment."""

    def launch(name, *options):
        found = {}
        monkeypatch.setattr(
            "torch.distributed.run.run", lambda args: found.update(args=args, environment=dict(os.environ))
        )
        command = ["--config_file", str(EXAMPLES / name), "--main_process_port", "0", *options]
        launch_command(launch_command_parser().parse_args([*command, "-m", "ditar_hf.cli", "train", "run.yaml"]))
        return found["args"], found["environment"]

    return launch


@pytest.fixture
def run_two(folder):
    """Runs `scale_run.py` in two processes, once in this file, and returns what each of them found."""

    def run(kind, environment):
        if not (folder / f"{kind}-0.pt").exists():
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
            command += [str(Path(__file__).with_name("scale_run.py")), str(folder), kind]
            environment = {**environment, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-5000:]
        return [torch.load(folder / f"{kind}-{rank}.pt") for rank in range(2)]

    return run


@pytest.fixture
def ddp(run_two):
    return run_two("ddp", dict(os.environ))


@pytest.fixture
def fsdp2(run_two, launched):
    return run_two("fsdp2", launched("fsdp2.yaml")[1])


@pytest.fixture
def make_trainer(folder, tmp_path):
    """Factory of trainers of the two batches in this process, both in each update."""

    def make(name="run", model=None, **options):
        values = {"max_steps": 2, "save_steps": 100, "logging_steps": 1, "warmup_steps": 0, "ema_decay": 0.0}
        args = DiTARTrainingArguments(
            output_dir=str(tmp_path / name),
            use_cpu=True,
            gradient_accumulation_steps=2,
            **{**values, **options},
        )
        return DiTARTrainer(
            DiTARForTextToSpeech.from_pretrained(folder / "model") if model is None else model,
            args,
            train_dataset=FixedBatches(torch.load(folder / "batches.pt")),
            eval_dataset=torch.load(folder / "held_out.pt"),
            processing_class=DiTARProcessor.from_pretrained(folder / "model"),
        )

    return make


def train(trainer):
    """Losses and norms of each update, and the gradients of the first before they are clipped."""
    found, clip = {}, trainer._clip_grad_norm

    def clip_and_keep(model):
        parameters = trainer.model.named_parameters()
        found.update((name, p.grad.clone()) for name, p in parameters if p.grad is not None and name not in found)
        return clip(model)

    trainer._clip_grad_norm = clip_and_keep
    trainer.train()
    return losses_of(trainer), found


def losses_of(trainer):
    return [{k: v for k, v in row.items() if "loss" in k or k == "grad_norm"} for row in trainer.state.log_history]


def assert_same_gradients(ours, expected, **tolerance):
    assert ours.keys() == expected.keys() and len(expected) > 20
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def assert_same_losses(ours, expected, rel):
    assert [row.keys() for row in ours] == [row.keys() for row in expected] and len(ours) == 3
    for one, other in zip(ours[:2], expected[:2], strict=True):
        assert one == pytest.approx(other, rel=rel)


def test_two_processes_learn_as_one_does_from_both_batches(ddp, make_trainer):
    losses, gradients = train(make_trainer())
    for found in ddp:
        assert_same_losses(found["losses"], losses, 1e-4)
        assert_same_gradients(found["gradients"], gradients, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_an_evaluation_does_not_depend_on_the_number_of_processes(kind, request, make_trainer, folder):
    """Five examples, so that one process has a batch more than the other."""
    processes = request.getfixturevalue(kind)
    weights = load_file(folder / f"{kind}-model" / "model.safetensors")
    for size in (1, 2):
        trainer = make_trainer(per_device_eval_batch_size=size)
        trainer.model.load_state_dict(weights)
        expected = {k: v for k, v in trainer.evaluate().items() if "loss" in k}
        for found in processes:
            assert found["evaluation"][size] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_what_is_no_number_on_one_process_stops_both(kind, request, folder):
    for rank, found in enumerate(request.getfixturevalue(kind)):
        assert "gradients of step 0 are not finite" in found["stopped"]
        assert (folder / f"{kind}-broken" / f"nonfinite-0-{rank}.json").is_file()


def test_sigterm_to_one_process_stops_both_with_a_checkpoint(ddp):
    for found in ddp:
        assert found["was_stopped"] and found["checkpoints"] == ["checkpoint-1"]


def test_weights_in_pieces_are_those_of_the_blocks_but_not_of_the_tokenizer_of_speech(fsdp2, folder):
    model = DiTARForTextToSpeech.from_pretrained(folder / "model")
    layers = [f"model.language_model.layers.{index}" for index in range(2)]
    for found in fsdp2:
        sharding = found["sharding"]
        embedding = "model.language_model.embed_tokens"
        assert set(sharding["units"]) == {"", embedding, *layers, "model.patch_encoder", "locdit"}
        assert sharding["whole"] == [f"vae.{name}" for name, _ in model.vae.named_parameters()]
        assert set(sharding["dtypes"].values()) == {"torch.float32"}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(found["sharding"]["local"] for found in fsdp2) == trained


def test_weights_in_pieces_learn_as_whole_ones_do(fsdp2, ddp, folder):
    for found in fsdp2:
        assert_same_losses(found["losses"], ddp[0]["losses"], 1e-4)
        assert_same_gradients(found["gradients"], ddp[0]["gradients"], atol=1e-6, rtol=1e-3)
        assert found["resumed"]
    assert DiTARForTextToSpeech.from_pretrained(folder / "fsdp2-model").config.architectures == [
        "DiTARForTextToSpeech"
    ]
    assert (folder / "fsdp2-run/checkpoint-1/model.safetensors").is_file()


def test_weights_in_pieces_are_rounded_and_losses_are_not(fsdp2):
    """bf16 with activations computed anew."""
    for found in fsdp2:
        assert_same_losses(found["half_losses"], found["losses"], 3e-2)
        assert found["half_losses"] != found["losses"]
        loss = torch.tensor(found["half_losses"][0]["diffusion_loss"])
        assert loss.bfloat16().float() != loss
        assert set(found["half_dtypes"].values()) == {"torch.float32"}


def test_the_launcher_takes_the_files_on_one_machine_and_on_several(launched):
    for name in ("ddp.yaml", "fsdp2.yaml"):
        args, environment = launched(name)
        assert (args.nnodes, args.nproc_per_node, args.module) == ("1:1", "8", True)
        assert [args.training_script, *args.training_script_args] == ["ditar_hf.cli", "train", "run.yaml"]
        assert (environment.get("ACCELERATE_USE_FSDP") == "true") == (name == "fsdp2.yaml")
        nodes = ["--num_machines", "2", "--num_processes", "16", "--machine_rank", "1"]
        args, _ = launched(name, *nodes, "--main_process_ip", "10.0.0.1")
        assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)


def test_activations_computed_anew_change_nothing(make_trainer):
    losses, gradients = train(make_trainer("plain"))
    trainer = make_trainer("anew", activation_checkpointing=True)
    anew_losses, anew_gradients = train(trainer)
    layers = [trainer.model.locdit.transformer.layers[0], trainer.model.model.language_model.layers[0]]
    assert all(layer.gradient_checkpointing for layer in layers)
    assert_same_losses(anew_losses, losses, 1e-6)
    assert_same_gradients(anew_gradients, gradients, atol=1e-7, rtol=1e-5)


def test_activations_of_an_adapted_model_are_computed_anew(make_trainer, folder):
    pytest.importorskip("peft")
    found = []
    for name in ("plain", "anew"):
        torch.manual_seed(0)
        model = add_lora(DiTARForTextToSpeech.from_pretrained(folder / "model"), r=4)
        found.append(train(make_trainer(name, model, activation_checkpointing=name == "anew")))
    (losses, gradients), (anew_losses, anew_gradients) = found
    assert all("lora_" in name or "stop_head" in name for name in gradients)
    assert_same_losses(anew_losses, losses, 1e-6)
    assert_same_gradients(anew_gradients, gradients, atol=1e-7, rtol=1e-5)


def test_half_precision_learns_the_same_but_for_rounding(make_trainer):
    losses, gradients = train(make_trainer("plain"))
    half_losses, half_gradients = train(make_trainer("half", bf16=True))
    assert_same_losses(half_losses, losses, 3e-2)
    assert half_losses != losses
    ours, expected = (torch.cat([g.flatten() for g in found.values()]) for found in (half_gradients, gradients))
    assert torch.cosine_similarity(ours, expected, dim=0) > 0.999


def test_kinds_of_attention_learn_the_same(make_trainer, folder):
    found = [
        train(make_trainer(kind, DiTARForTextToSpeech.from_pretrained(folder / "model", attn_implementation=kind)))
        for kind in ("sdpa", "eager")
    ]
    (losses, gradients), (eager_losses, eager_gradients) = found
    assert_same_losses(eager_losses, losses, 1e-4)
    assert_same_gradients(eager_gradients, gradients, atol=1e-5, rtol=1e-3)


@pytest.fixture
def make_run(recordings, folder, tmp_path):
    """Factory of runs on six recordings."""
    rows = [f"{index}.wav,{text}" for index, text in enumerate(["a cat sat", "we go", "who is there"] * 2)]
    (recordings / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    DiTARForTextToSpeech.from_pretrained(folder / "model").vae.save_pretrained(tmp_path / "vae")
    blocks = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"encoder_config": blocks, "locdit_config": blocks, "lm_config": blocks}

    def make(name, **fields):
        training = {"output_dir": str(tmp_path / name), "max_steps": 2, "save_steps": 1, "use_cpu": True}
        fresh = {} if "model" in fields else {"vae": str(tmp_path / "vae"), "config": config}
        data, batches = [AudioSource(str(recordings))], BatchArguments(max_positions=60, window_rows=6)
        return TrainingRun(training, data=data, batches=batches, **{**fresh, **fields})

    return make


def test_a_run_says_how_attention_is_computed(make_run, folder, tmp_path):
    lm = LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(lm).save_pretrained(tmp_path / "lm")
    runs = {
        "fresh": make_run("fresh", attn_implementation="eager"),
        "trained": make_run("trained", model=str(folder / "model"), attn_implementation="eager"),
        "lm": make_run("lm-run", lm=str(tmp_path / "lm"), attn_implementation="eager"),
    }
    assert attention_of(run_parts.make_trainer(make_run("any")).model) == {"sdpa"}
    for name, run in runs.items():
        assert attention_of(run_parts.make_trainer(run).model) == {"eager"}, name
    stopped = run_parts.make_trainer(runs["fresh"])
    stopped.add_callback(StopAfterOne())
    stopped.train()
    assert attention_of(run_parts.make_trainer(runs["fresh"], resume=True).model) == {"eager"}
    with pytest.raises(ValueError, match="`attn_implementation` is no field of a model"):
        make_run("any", config={"attn_implementation": "eager"})
    with pytest.raises(ValueError, match="nonsense"):
        run_parts.make_trainer(make_run("any", attn_implementation="nonsense"))


class StopAfterOne(TrainerCallback):
    """Ends a run after its first update."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = True


def attention_of(model):
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    return {config._attn_implementation for config in configs if hasattr(config, "num_attention_heads")}


@pytest.mark.slow
@pytest.mark.parametrize("option", ["compile_blocks", "torch_compile"])
def test_what_is_compiled_learns_the_same(option, make_trainer):
    losses, gradients = train(make_trainer("plain"))
    compiled_losses, compiled_gradients = train(make_trainer("compiled", **{option: True}))
    assert_same_losses(compiled_losses, losses, 1e-4)
    assert_same_gradients(compiled_gradients, gradients, atol=1e-5, rtol=1e-3)
