r"""
Measures where the time of `generate` goes: matrix kernels (products, convolutions, attention), and all the rest.

    OMP_NUM_THREADS=2 python examples/profile_generation.py --size 0.1B
    OMP_NUM_THREADS=2 python examples/profile_generation.py --size 0.1B --compile
    OMP_NUM_THREADS=2 python examples/profile_generation.py --model hub_cards/ditar-tiny-en

A size has random weights: time does not depend on them. The profiler itself takes time, which counts as the rest here,
so that the share of the rest is rather too large than too small.
"""

import argparse
import time

import torch
from torch.profiler import ProfilerActivity, profile

from ditar_hf import DiTARConfig, DiTARForTextToSpeech

MATRIX_KERNELS = {
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv"),
    # the second stands for transposed convolutions too, which have no name of their own on a CPU
    *(
        "aten::mkldnn_convolution",
        "aten::_convolution",
        "aten::cudnn_convolution",
        "aten::cudnn_convolution_transpose",
    ),
    *("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention"),
    "aten::_scaled_dot_product_efficient_attention",
}
NUM_TOKENS, NUM_LISTED = 60, 12


def load(options: argparse.Namespace) -> DiTARForTextToSpeech:
    """The model that is asked for, in evaluation mode."""
    if options.model:
        model = DiTARForTextToSpeech.from_pretrained(options.model)
    else:
        torch.manual_seed(0)
        model = DiTARForTextToSpeech(DiTARConfig.from_preset(options.size))
    return model.to(options.device).eval()


def speaker(model: DiTARForTextToSpeech, options: argparse.Namespace):
    """A function that speaks as many patches as asked for and returns the seconds that took."""
    ids = torch.randint(
        4, model.config.lm_config.vocab_size, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0)
    )
    ids[:, -1] = model.config.audio_bos_token_id
    lengths = {"max_new_tokens": options.patches, "min_new_tokens": options.patches}
    settings = {"guidance_scale": options.guidance_scale, "num_inference_steps": options.steps, "temperature": 0.0}
    if options.compile:
        settings |= {"compile_patch_step": True, "cache_implementation": "static"}

    def speak() -> float:
        start = time.perf_counter()
        model.generate(ids.to(model.device), **lengths, **settings).audio[0].cpu()
        return time.perf_counter() - start

    return speak


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="0.1B", help="a size of the paper, with random weights")
    parser.add_argument("--model", help="a trained model instead")
    parser.add_argument("--patches", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    parser.add_argument("--compile", action="store_true", help="compile the step of a patch (minutes, once)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    model = load(options)
    speak = speaker(model, options)
    speak()
    seconds = sorted(speak() for _ in range(3))[1]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        wall = speak()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    matrix = sum(row.self_cpu_time_total for row in rows if row.key in MATRIX_KERNELS) / 1e6
    speech = options.patches * model.config.patch_length / model.config.sampling_rate
    print(f"{speech:.1f} s of speech in {seconds:.2f} s, real-time factor {seconds / speech:.3f}, ", end="")
    print(f"{1000 * seconds / options.patches:.1f} ms a patch (median of 3)")
    print(f"profiled: {wall:.2f} s, in matrix kernels {matrix:.2f} s, outside of them {1 - matrix / wall:.1%}")
    for row in rows[:NUM_LISTED]:
        print(f"{row.self_cpu_time_total / 1e6 / wall:7.1%}  {row.count:7,}  {row.key}")


if __name__ == "__main__":
    main()
