"""The speech tokenizer of the tiny recipe in half precision, as it is shipped.

python examples/tiny/export_vae.py --vae runs/tiny/vae_top --out model
"""

import argparse
from pathlib import Path

from ditar_hf import DiTARVAE


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    vae = DiTARVAE.from_pretrained(options.vae)
    # on disk only: the statistics of the latents stay, and the configuration says to load in fp32
    state = {name: value if "latent_" in name else value.half() for name, value in vae.state_dict().items()}
    vae.save_pretrained(options.out, state_dict=state)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{options.out}: {vae.num_parameters() / 1e6:.1f}M parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
