"""
What a run begins with where no folder holds it yet: a fresh model, or a trained one with a larger vocabulary.

It is made once, by one process, and saved in the run's folder before training; all processes load it from there, and
so does a run that is resumed: texts are not read again, and an adapter belongs to a model that lies somewhere.
"""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from ..modeling.configuration_ditar import DiTARConfig
from ..modeling.feature_extraction_ditar import DiTARFeatureExtractor
from ..modeling.modeling_ditar import DiTARForTextToSpeech
from ..modeling.modeling_ditar_vae import DiTARVAE
from ..modeling.phonemes_ditar import resolve_language
from ..modeling.processing_ditar import DiTARProcessor
from ..modeling.tokenization_ditar import DiTARTokenizer
from .batches import WeightedRows
from .checkpoints import refuse_other_run
from .data import spread_rows
from .examples import UNUSABLE, ExampleMaker
from .length_bounds import fit_length_bounds
from .run import TrainingRun
from .text_lm import build_from_text_lm, load_text_lm, load_text_tokenizer
from .vocabulary import extend_vocabulary

BASE_FOLDER, BASE_FILE = "base", "run.json"
MOST_MEASURED_ROWS = 2000  # whose audio is decoded to see how long texts take


def needs_base(run: TrainingRun) -> bool:
    """Whether a run begins with a model that lies nowhere yet."""
    return run.model is None or run.new_language is not None


def prepare_base(run: TrainingRun, sources: list[WeightedRows], folder: Path, resume: bool = False) -> Path:
    """
    Makes what a run begins with, or finds what it began with when it is resumed.

    Args:
        run ([`TrainingRun`]): The run.
        sources (`list[WeightedRows]`): Its data.
        folder (`Path`): The run's folder.
        resume (`bool`, *optional*, defaults to `False`): Whether the run goes on from a checkpoint.

    Returns:
        `Path`: Folder of a model, its processor, and in `run.json` what it was made from.

    Raises:
        RunError: If the folder holds what another run began with.
        ValueError: If there are no texts, or a part is refused.
    """
    base, partial, origin = folder / BASE_FOLDER, folder / f".partial-{BASE_FOLDER}", describe_base(run)
    if resume and base.is_dir():
        refuse_other_run(base, origin)
        return base
    shutil.rmtree(base, ignore_errors=True)  # of a try that ended before its first checkpoint, maybe on other data
    shutil.rmtree(partial, ignore_errors=True)
    torch.manual_seed(origin["seed"])
    model, processor = _fresh(run, sources) if run.model is None else _with_new_language(run, sources)
    processor.save_pretrained(partial)
    model.save_pretrained(partial)
    (partial / BASE_FILE).write_text(json.dumps(origin, indent=2), encoding="utf-8")
    os.replace(partial, base)
    return base


def describe_base(run: TrainingRun) -> dict[str, Any]:
    """What decides on the weights that a run begins with, but for the texts of its data."""
    values = dataclasses.asdict(run)
    names = ("model", "config", "vae", "lm", "text", "languages", "new_language", "num_vocabulary_rows")
    return {**{name: values[name] for name in names}, "seed": int(run.training.get("seed", 42))}


def load(run: TrainingRun, name_or_path: str, **config: Any) -> tuple[DiTARForTextToSpeech, DiTARProcessor]:
    """A trained model with its processor, attending as the run says."""
    model = DiTARForTextToSpeech.from_pretrained(name_or_path, dtype=torch.float32, **_attention(run), **config)
    if hasattr(model, "peft_config"):  # whose weights are all frozen, those of the model and its own
        raise ValueError(f"`model` ({name_or_path}) is an adapter: merge it into its model, and train that.")
    return model, DiTARProcessor.from_pretrained(name_or_path)


def _attention(run: TrainingRun) -> dict[str, str]:
    return {} if run.attn_implementation is None else {"attn_implementation": run.attn_implementation}


def _first_rows(sources: list[WeightedRows], num_rows: int) -> Iterator[Mapping[str, Any]]:
    """As many rows of each source: of a table spread over all of it, of a stream the first ones."""
    share = -(-num_rows // len(sources))
    for source in sources:
        rows = spread_rows(source.rows, share) if isinstance(source.rows, Dataset) else source.rows
        yield from itertools.islice(iter(rows), share)


def _texts_by_language(run: TrainingRun, sources: list[WeightedRows], wanted: list[str]) -> dict[str, list[str]]:
    """Texts of rows that the filters take; those of no stated language are of the first one, if none is new."""
    languages = {resolve_language(language): language for language in wanted}
    texts: dict[str, list[str]] = {language: [] for language in wanted}
    for row in _first_rows(sources, run.num_vocabulary_rows):
        if not row.get("text") or (run.data and run.filters.find_fault(row) is not None):
            continue
        if run.new_language is not None and not row.get("language"):
            raise ValueError(
                f"`data`: row {row['id']} states no language, and would be read as the old one: name the language of "
                "each source that has none."
            )
        language = languages.get(resolve_language(row.get("language") or wanted[0]))
        if language is not None:
            texts[language].append(row["text"])
    if missing := [language for language, found in texts.items() if not found]:
        raise ValueError(f"`languages`: there is no text in {missing[0]!r} among the rows that were looked at.")
    return texts


def _fresh(run: TrainingRun, sources: list[WeightedRows]) -> tuple[DiTARForTextToSpeech, DiTARProcessor]:
    vae = DiTARVAE.from_pretrained(run.vae)
    fields = {k: v for k, v in run.config.items() if k != "preset"}
    fields = {"sampling_rate": vae.config.sampling_rate, "latent_dim": vae.config.latent_dim, **fields}
    if run.text == "bpe":
        tokenizer = load_text_tokenizer(run.lm)
    else:
        tokenizer = DiTARTokenizer.from_texts(_texts_by_language(run, sources, run.languages))
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


def _with_new_language(run: TrainingRun, sources: list[WeightedRows]) -> tuple[DiTARForTextToSpeech, DiTARProcessor]:
    model, processor = load(run, run.model, **run.config)
    texts = _texts_by_language(run, sources, [run.new_language])[run.new_language]
    extend_vocabulary(model, processor, texts, run.new_language, describe_base(run)["seed"])
    _fit_length_bounds(run, model, processor, sources, keep=True)
    return model, processor


def _fit_length_bounds(
    run: TrainingRun,
    model: DiTARForTextToSpeech,
    processor: DiTARProcessor,
    sources: list[WeightedRows],
    keep: bool,
):
    """Bounds of generation, from rows as they are learnt: without the silence at their ends."""
    maker, num_tokens, num_patches = ExampleMaker(processor, run.examples, run.filters), [], []
    for row in _first_rows(sources, min(run.num_vocabulary_rows, MOST_MEASURED_ROWS)):
        try:
            example = maker.complete(maker.outline(row))
        except UNUSABLE:
            continue  # counted when it is drawn
        num_tokens.append(len(example["input_ids"]))
        num_patches.append(maker.count_patches(example))
    if not num_tokens:
        raise ValueError("`data`: no row of those that were looked at can be used; `ditar prepare` says why.")
    fit_length_bounds(model.generation_config, num_tokens, num_patches, keep)
