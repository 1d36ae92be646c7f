"""What a [`TrainingRun`] needs: model and processor, sources, held-out examples, and the trainer around them."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..modeling.configuration_ditar import DiTARConfig
from ..modeling.feature_extraction_ditar import DiTARFeatureExtractor
from ..modeling.modeling_ditar import DiTARForTextToSpeech
from ..modeling.modeling_ditar_vae import DiTARVAE
from ..modeling.phonemes_ditar import resolve_language
from ..modeling.processing_ditar import DiTARProcessor
from ..modeling.tokenization_ditar import DiTARTokenizer
from .batches import TokenBudgetBatches, WeightedRows
from .checkpoints import find_checkpoints
from .data import describe_rows
from .examples import UNUSABLE, ExampleMaker
from .latents import load_latents
from .length_bounds import fit_length_bounds
from .lora import add_lora
from .run import TrainingRun
from .text_lm import build_from_text_lm, load_text_lm, load_text_tokenizer
from .trainer import DiTARTrainer
from .vocabulary import extend_vocabulary

BASE_FOLDER = "base"  # what an adapter belongs to, where it lies nowhere else


def make_trainer(run: TrainingRun, resume: bool = False) -> DiTARTrainer:
    """
    All that a run needs, ready for `train`.

    Args:
        run ([`TrainingRun`]): The run.
        resume (`bool`, *optional*, defaults to `False`): Whether it will go on from its last checkpoint.

    Returns:
        [`DiTARTrainer`].

    Raises:
        ValueError: If a part is refused; the message names it.
    """
    run.check_complete()
    arguments = run.make_arguments()
    torch.manual_seed(arguments.seed)
    sources = _open_sources(run)
    is_main = arguments.process_index == 0
    with arguments.main_process_first(local=False, desc="model"):
        model, processor, new_tokens = _make_model(run, sources, Path(arguments.output_dir), resume, is_main)
    _check_latents(run, model.vae)
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
        trained = add_lora(model, **dataclasses.asdict(run.lora), new_tokens=new_tokens)
    return DiTARTrainer(
        trained,
        arguments,
        batches,
        eval_dataset=_read_eval_examples(run, maker),
        processing_class=processor,
        description=_describe(run, sources, model.config),
    )


def _open_sources(run: TrainingRun) -> list[WeightedRows]:
    if run.latents:
        return [WeightedRows(s.path, load_latents(s.path, streaming=s.streaming), s.weight) for s in run.latents]
    return [WeightedRows(s.path, s.read(), s.weight) for s in run.data]


def _check_latents(run: TrainingRun, vae: DiTARVAE):
    for source in run.latents:
        load_latents(source.path, vae, streaming=True)  # refuses those of another tokenizer


def _describe(run: TrainingRun, sources: list[WeightedRows], config: DiTARConfig) -> dict[str, Any]:
    """What decides what is learnt, beside the arguments of the trainer."""
    values = dataclasses.asdict(run)
    names = ("data", "latents", "lm", "text", "lora", "filters", "examples", "batches")
    rows = [describe_rows(s, w.rows) for s, w in zip(run.data, sources, strict=True)] if run.data else []
    return {**{name: values[name] for name in names}, "rows": rows, "model": config.to_diff_dict()}


def _first_rows(run: TrainingRun, sources: list[WeightedRows]) -> Iterator[Mapping[str, Any]]:
    """Rows at the beginning of all sources, the same number of each."""
    share = -(-run.num_vocabulary_rows // len(sources))
    return itertools.chain.from_iterable(itertools.islice(iter(source.rows), share) for source in sources)


def _texts_by_language(run: TrainingRun, sources: list[WeightedRows]) -> dict[str, list[str]]:
    """Texts of the first rows that the filters take; those of no stated language are of the first one."""
    languages = {resolve_language(language): language for language in run.languages}
    texts: dict[str, list[str]] = {language: [] for language in run.languages}
    for row in _first_rows(run, sources):
        if row.get("text") and (run.latents or run.filters.find_fault(row) is None):
            language = languages.get(resolve_language(row.get("language") or run.languages[0]))
            if language is not None:
                texts[language].append(row["text"])
    if missing := [language for language, found in texts.items() if not found]:
        raise ValueError(f"`languages`: there is no text in {missing[0]!r} among the first rows of the data.")
    return texts


def _make_model(
    run: TrainingRun, sources: list[WeightedRows], folder: Path, resume: bool, is_main: bool
) -> tuple[DiTARForTextToSpeech, DiTARProcessor, list[int]]:
    """Model, processor, and the tokens that are new to it."""
    checkpoints = find_checkpoints(folder) if resume else []
    if run.model is None:
        if checkpoints:  # vocabulary and bounds are what they were, without reading the texts again
            return *_load(str(checkpoints[-1]), {}), []
        return *_fresh(run, sources), []
    if run.new_language is None:
        return *_load(run.model, run.config), []
    return _with_new_language(run, sources, folder, is_main)


def _load(name_or_path: str, config: Mapping[str, Any]) -> tuple[DiTARForTextToSpeech, DiTARProcessor]:
    model = DiTARForTextToSpeech.from_pretrained(name_or_path, dtype=torch.float32, **config)
    return model, DiTARProcessor.from_pretrained(name_or_path)


def _fresh(run: TrainingRun, sources: list[WeightedRows]) -> tuple[DiTARForTextToSpeech, DiTARProcessor]:
    vae = DiTARVAE.from_pretrained(run.vae)
    fields = {k: v for k, v in run.config.items() if k != "preset"}
    fields = {"sampling_rate": vae.config.sampling_rate, "latent_dim": vae.config.latent_dim, **fields}
    if run.text == "bpe":
        tokenizer = load_text_tokenizer(run.lm)
    else:
        tokenizer = DiTARTokenizer.from_texts(_texts_by_language(run, sources))
    if run.lm is None:
        fields["lm_config"] = {**fields.get("lm_config", {}), "vocab_size": len(tokenizer)}
    fields["vae_config"] = vae.config.to_dict()
    preset = run.config.get("preset")
    config = DiTARConfig(**fields) if preset is None else DiTARConfig.from_preset(preset, **fields)
    if run.lm is None:
        model = DiTARForTextToSpeech.from_vae(vae, config)
    else:
        model = build_from_text_lm(load_text_lm(run.lm), tokenizer, config, vae)
    extractor = DiTARFeatureExtractor(
        sampling_rate=config.sampling_rate, hop_length=vae.config.hop_length, patch_size=config.patch_size
    )
    processor = DiTARProcessor(extractor, tokenizer)
    _fit_length_bounds(run, model, processor, sources, keep=False)
    return model, processor


def _with_new_language(
    run: TrainingRun, sources: list[WeightedRows], folder: Path, is_main: bool
) -> tuple[DiTARForTextToSpeech, DiTARProcessor, list[int]]:
    """The model with a larger vocabulary, saved first: an adapter belongs to a model that lies somewhere."""
    base = folder / BASE_FOLDER
    model, processor = _load(run.model, run.config)
    known = len(processor.tokenizer)
    if not (base / "config.json").is_file() and is_main:
        wanted = dataclasses.replace(run, languages=[run.new_language])
        texts = _texts_by_language(wanted, sources)[run.new_language]
        extend_vocabulary(model, processor, texts, run.new_language, int(run.training.get("seed", 0)))
        _fit_length_bounds(run, model, processor, sources, keep=True)
        processor.save_pretrained(base)
        model.save_pretrained(base)
    model, processor = _load(str(base.resolve()), {})
    return model, processor, list(range(known, len(processor.tokenizer)))


def _fit_length_bounds(
    run: TrainingRun,
    model: DiTARForTextToSpeech,
    processor: DiTARProcessor,
    sources: list[WeightedRows],
    keep: bool,
):
    """Bounds of generation from the first rows of all sources."""
    maker, num_tokens, num_patches = ExampleMaker(processor, run.examples, run.filters), [], []
    for row in _first_rows(run, sources):
        try:
            outline = maker.outline(row)
            num_tokens.append(len(outline.input_ids))
            num_patches.append(outline.num_positions - 1 - len(outline.input_ids))
        except UNUSABLE:
            continue  # counted when it is drawn
    if not num_tokens:
        raise ValueError("`data`: no row of the first ones can be used; `ditar prepare` says why.")
    fit_length_bounds(model.generation_config, num_tokens, num_patches, keep)


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
