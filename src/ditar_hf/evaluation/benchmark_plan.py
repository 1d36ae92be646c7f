"""Which systems a benchmark compares: names and sizes become specifications, checked before anything is built."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig

from ditar_hf import DiTARConfig

from .benchmark_nar import NARSystem
from .benchmark_peers import PocketTTSSystem, VibeVoiceSystem, pocket_tts_configs, vibevoice_configs
from .benchmark_systems import DiTARSystem, MARSystem, System, SystemSpec, Workload
from .summary import one_line

SYSTEMS = {
    "ditar": DiTARSystem,
    "nar": NARSystem,
    "mar": MARSystem,
    "pocket_tts": PocketTTSSystem,
    "vibevoice": VibeVoiceSystem,
}
# built beside each of our sizes, with as many weights or from the same configuration
BASELINES = ("nar", "mar")
# of the published sizes
PEERS = {"pocket_tts": pocket_tts_configs, "vibevoice": vibevoice_configs}
DTYPES = ("float32", "bfloat16", "float16")


def build_system(spec: SystemSpec) -> System:
    """
    A system with its weights.

    Args:
        spec ([`SystemSpec`]): Which one.

    Returns:
        [`System`].

    Raises:
        ValueError: If it cannot be built.
    """
    return SYSTEMS[spec.kind](spec)


def skeleton(spec: SystemSpec) -> System:
    """
    A system without weights, which tells its sizes; it takes no memory.

    Args:
        spec ([`SystemSpec`]): Which one.

    Returns:
        [`System`] on the device "meta".

    Raises:
        ValueError: If it cannot be built.
    """
    return build_system(replace(spec, device="meta"))


def plan_systems(
    workload: Workload,
    sizes: Sequence[str] = (),
    models: Sequence[str] = (),
    others: Sequence[str] = (),
    patch_sizes: Sequence[int] = (),
    transformer_class: type[nn.Module] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    compile: bool = False,
) -> list[SystemSpec]:
    """
    The systems of a benchmark, ours first in each size.

    Baselines are compared with DiTAR of the same size, peers with the DiTAR that is nearest in weights.

    Args:
        workload ([`Workload`]): What all say.
        sizes (`list[str]`, *optional*): Presets of [`DiTARConfig`], with random weights.
        models (`list[str]`, *optional*): Folders or Hub ids of trained models.
        others (`list[str]`, *optional*): Of "nar", "mar", "pocket_tts", "vibevoice".
        patch_sizes (`list[int]`, *optional*): Run each size also with patches of so many frames.
        transformer_class (`type`, *optional*): DiTAR's own `DiTARTransformer`; only "nar" needs it.
        device (`str`, *optional*, defaults to `"cpu"`): Where all compute.
        dtype (`str`, *optional*, defaults to `"float32"`): "float32", "bfloat16" or "float16", of all but vocoders.
        compile (`bool`, *optional*, defaults to `False`): Compile what can be compiled.

    Returns:
        `list[SystemSpec]`.

    Raises:
        ValueError: If a name is unknown or given twice, there is no DiTAR to compare with, or a system cannot say
            exactly as much as is asked for.
    """
    known = (*BASELINES, *PEERS)
    for name in others:
        if name not in known:
            raise ValueError(f"`others`: there is no system {name!r}; there are {', '.join(known)}.")
    if len(set(others)) < len(others):
        raise ValueError(f"`others` names one twice: {', '.join(others)}.")
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` is {dtype!r}: take one of {', '.join(DTYPES)}.")
    for size in patch_sizes:
        if size < 1:
            raise ValueError(f"`patch_sizes` must be positive, got {size}.")
    if not sizes and not models:
        raise ValueError("`sizes` and `models` are both empty: name a DiTAR, which all others are compared with.")
    shared = {"workload": workload, "device": device, "dtype": dtype, "compile": compile}
    configs = {name: (DiTARConfig.from_preset(name), None) for name in sizes}
    configs |= {Path(name).name: (_config_of(name), name) for name in models}
    if len(configs) < len(sizes) + len(models):
        raise ValueError(f"`sizes` and `models` name one twice: {', '.join((*sizes, *models))}.")
    specs = []
    for name, (config, folder) in configs.items():
        specs += _family(name, config, folder, others, patch_sizes, transformer_class, shared)
    for kind in (kind for kind in PEERS if kind in others):
        spec = SystemSpec(kind, kind, **PEERS[kind](), **shared)
        specs.append(replace(spec, reference=nearest(spec, specs)))
    check_lengths(specs)
    return specs


def _config_of(name: str) -> DiTARConfig:
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"`models`: cannot load `{name}`: {one_line(error)}") from error
    if config.model_type != "ditar":
        raise ValueError(f"`{name}` is of the type `{config.model_type}`, not `ditar`: name a DiTAR model.")
    return config


def _family(
    name: str,
    config: DiTARConfig,
    folder: str | None,
    others: Sequence[str],
    patch_sizes: Sequence[int],
    transformer_class: type[nn.Module] | None,
    shared: dict[str, Any],
) -> list[SystemSpec]:
    """One DiTAR, itself with other patches, and the baselines that are built from its configuration."""
    first = SystemSpec(f"DiTAR {name}", "ditar", config, folder=folder, **shared)
    specs = [first]
    for size in patch_sizes:
        if size != config.patch_size:
            specs.append(replace(first, name=f"DiTAR {name} P={size}", config=changed(config, patch_size=size)))
    if "nar" in others:
        specs.append(replace(first, name=f"NAR {name}", kind="nar", transformer_class=transformer_class))
    if "mar" in others:
        frames = changed(config, head_type="mlp", patch_size=1, num_history_patches=0)
        specs.append(replace(first, name=f"MAR {name}", kind="mar", config=frames))
    # trained weights are of the first configuration only
    return [first, *(replace(spec, folder=None, reference=first.name) for spec in specs[1:])]


def changed(config: DiTARConfig, **fields: Any) -> DiTARConfig:
    """
    A configuration with other fields.

    Args:
        config ([`DiTARConfig`]): It is not changed.
        **fields: Names and values.

    Returns:
        [`DiTARConfig`].

    Raises:
        ValueError: If they contradict the others.
    """
    other = copy.deepcopy(config)  # not by way of a dict, which would forget the attention implementation
    for name, value in fields.items():
        setattr(other, name, value)
    other.validate_architecture()
    return other


def nearest(spec: SystemSpec, candidates: Sequence[SystemSpec]) -> str:
    """
    Name of the DiTAR that is nearest in weights, the vocoder left out, as a factor.

    Args:
        spec ([`SystemSpec`]): A system.
        candidates (`list[SystemSpec]`): Systems with a DiTAR among them.

    Returns:
        `str`.
    """
    size = math.log(skeleton(spec).num_parameters)
    ours = [candidate for candidate in candidates if candidate.kind == "ditar" and candidate.reference is None]
    return min(ours, key=lambda candidate: abs(math.log(skeleton(candidate).num_parameters) - size)).name


def check_lengths(specs: Sequence[SystemSpec]) -> None:
    """
    Raises unless all systems can say exactly as much as is asked for.

    Args:
        specs (`list[SystemSpec]`): With one workload.

    Raises:
        ValueError: If not; the message says what they can say.
    """
    systems = [skeleton(spec) for spec in specs]
    steps = [system.step_seconds for system in systems]
    common = Fraction(math.lcm(*(s.numerator for s in steps)), math.gcd(*(s.denominator for s in steps)))
    for system in systems:
        try:
            system.describe()
        except ValueError as error:
            below = math.floor(Fraction(str(system.workload.seconds)) / common) * common
            near = [f"{float(length):g}" for length in (below, below + common) if length > 0]
            raise ValueError(
                f"{error} All systems together can make multiples of {float(common):g} s: take {' or '.join(near)}."
            ) from error
