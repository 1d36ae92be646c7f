"""What a [`TrainingRun`] needs: model and processor, sources, held-out examples, and the trainer around them."""

import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..modeling.processing_ditar import DiTARProcessor
from .batches import TokenBudgetBatches, WeightedRows
from .data import describe_rows
from .examples import UNUSABLE, ExampleMaker
from .latents import describe_latents, load_latents
from .lora import add_lora
from .run import TrainingRun
from .run_base import BASE_FOLDER, load, needs_base, prepare_base
from .run_folder import RunFolder
from .trainer import DiTARTrainer


def make_trainer(run: TrainingRun, resume: bool = False) -> DiTARTrainer:
    """
    All that a run needs, ready for `train`.

    Args:
        run ([`TrainingRun`]): The run.
        resume (`bool`, *optional*, defaults to `False`): Whether it will go on from its last checkpoint.

    Returns:
        [`DiTARTrainer`].

    Raises:
        RunError: If there is nothing to resume, the folder holds checkpoints of a run that is not, or what another
            run began with.
        ValueError: If a part is refused; the message names it.
    """
    run.check_complete()
    arguments = run.make_arguments()
    folder = RunFolder(Path(arguments.output_dir), {}, arguments.process_index)
    folder.check_resume(resume)  # before anything is read
    sources, name_or_path, config, num_known = _open_sources(run), run.model, run.config, None
    if needs_base(run):
        with arguments.main_process_first(local=False, desc="model"):
            if arguments.process_index == 0:
                with folder.claimed():
                    prepare_base(run, sources, folder.path, resume)
        name_or_path, config = str((folder.path / BASE_FOLDER).resolve()), {}
        num_known = None if run.model is None else len(DiTARProcessor.from_pretrained(run.model).tokenizer)
    model, processor = load(run, name_or_path, **config)
    if not run.keep_voices:
        processor.voices, processor.default_voice = {}, None
    _check_latents(run, model.vae)
    description = _describe(run, sources, model)
    maker = ExampleMaker(processor, run.examples, run.filters)
    batches = TokenBudgetBatches(
        sources,
        maker,
        run.batches,
        seed=arguments.seed,
        rank=arguments.process_index,
        world_size=arguments.world_size,
    )
    trained: nn.Module = model
    if run.lora is not None:
        torch.manual_seed(arguments.seed)
        new_tokens = [] if num_known is None else range(num_known, len(processor.tokenizer))
        trained = add_lora(model, **dataclasses.asdict(run.lora), new_tokens=list(new_tokens))
    return DiTARTrainer(
        trained,
        arguments,
        train_dataset=batches,
        eval_dataset=_read_eval_examples(run, maker),
        processing_class=processor,
        description=description,
    )


def _open_sources(run: TrainingRun) -> list[WeightedRows]:
    if run.latents:
        return [WeightedRows(s.path, load_latents(s.path, streaming=s.streaming), s.weight) for s in run.latents]
    return [WeightedRows(s.path, s.read(), s.weight) for s in run.data]


def _check_latents(run: TrainingRun, vae: nn.Module):
    for source in run.latents:
        load_latents(source.path, vae, streaming=True)  # refuses those of another tokenizer


def _describe(run: TrainingRun, sources: list[WeightedRows], model: nn.Module) -> dict[str, Any]:
    """What decides what is learnt, beside the trainer's arguments: data, settings and the weights to begin with."""
    values = dataclasses.asdict(run)
    rows = [describe_rows(s, w.rows) for s, w in zip(run.data, sources, strict=True)] if run.data else []
    # data may lie elsewhere later, where something else tells that it is the same
    data = [
        {k: v for k, v in source.items() if k != "audio_dir" and (k != "path" or not known)}
        for source, known in zip(values["data"], rows, strict=True)
    ]
    latents = [
        {"weight": source.weight, "streaming": source.streaming, **describe_latents(source.path)}
        for source in run.latents
    ]
    settings = {name: values[name] for name in ("config", "lora", "filters", "examples", "batches")}
    return {"data": data, "rows": rows, "latents": latents, **settings, "weights": fingerprint(model)}


def fingerprint(model: nn.Module) -> str:
    """
    A hash by which other weights are told from these, in no time: of names, shapes and some values of each.

    Args:
        model (`nn.Module`): The model.

    Returns:
        `str`: SHA-256.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().flatten()
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(values[:: max(1, len(values) // 64)].to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()


def _read_eval_examples(run: TrainingRun, maker: ExampleMaker) -> list[dict[str, Any]] | None:
    """The first held-out examples that can be used, in memory."""
    examples: list[dict[str, Any]] = []
    for row in itertools.chain.from_iterable(iter(source.read()) for source in run.eval_data):
        if len(examples) == run.num_eval_examples:
            break
        try:
            examples.append(maker.complete(maker.outline(row)))
        except UNUSABLE:
            continue
    if run.eval_data and not examples:
        raise ValueError("`eval_data`: no row can be used; `ditar prepare` says why.")
    return examples or None
