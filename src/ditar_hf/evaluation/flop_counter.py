"""Floating-point operations that torch counts while a model really speaks."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from ditar_hf import DiTARForTextToSpeech

from .cost_model import CostSetting

ATTENTION = "eager"  # of fused attention torch counts nothing on a CPU


def measure_flops(model: DiTARForTextToSpeech, setting: CostSetting) -> dict[str, int]:
    """
    Operations of one call of `generate` as torch's counter finds them.

    Args:
        model ([`DiTARForTextToSpeech`]):
            With attention written out: `attn_implementation="eager"`. Its weights do not matter.
        setting ([`CostSetting`]): What is spoken, in one row; the prompt is given as latents.

    Returns:
        `dict[str, int]`: Of `generate` without the vocoder, and of the `vocoder`.

    Raises:
        ValueError: If the model attends by a kernel whose operations are not counted.
    """
    config = model.config
    for name, part in (("lm_config", config.lm_config), ("locdit_config", config.locdit_config)):
        if part._attn_implementation != ATTENTION:
            raise ValueError(
                f"`{name}` attends by {part._attn_implementation!r}, whose operations torch does not count: load the "
                f"model with `attn_implementation={ATTENTION!r}`."
            )
    rate = config.sampling_rate / config.patch_length
    num_prompt, num_new = round(setting.prompt_seconds * rate), max(1, round(setting.target_seconds * rate))
    first = 1 + max(config.pad_token_id or 0, config.audio_bos_token_id, config.audio_patch_token_id)
    ids = [first] * setting.num_text_tokens + [config.audio_bos_token_id] + [config.audio_patch_token_id] * num_prompt
    arguments = {
        "input_ids": torch.tensor([ids], device=model.device),
        "max_new_tokens": num_new,
        "min_new_tokens": num_new,
        "num_inference_steps": setting.num_inference_steps,
        "guidance_scale": float(setting.num_branches),
        "temperature": 0.0,
        "cache_implementation": "dynamic",
        "compile_patch_step": False,
    }
    if num_prompt:
        shape = (1, num_prompt * config.patch_size, config.latent_dim)
        arguments["prompt_latents"] = torch.zeros(shape, device=model.device)
    with FlopCounterMode(display=False) as everything:
        output = model.generate(**arguments)
    with FlopCounterMode(display=False) as vocoder, torch.no_grad():
        model.vae.decode(output.latents[0][None])
    flops = vocoder.get_total_flops()
    return {"generate": everything.get_total_flops() - flops, "vocoder": flops}
