"""The Space: the page of `ditar demo` around a model of the Hub."""

import os
from pathlib import Path

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor
from ditar_hf.cli_common import find_device
from ditar_hf.demo import build_demo, launch_demo

# In the clone it is the model that lies beside; a Space has a variable DITAR_MODEL, which names one on the Hub.
MODEL = os.environ.get("DITAR_MODEL") or str(Path(__file__).resolve().parents[1] / "ditar-tiny-en")
if not os.environ.get("DITAR_MODEL") and not os.path.isdir(MODEL):
    raise ValueError("no model is named: set the variable DITAR_MODEL of the Space to one on the Hub (org/model).")

model = DiTARForTextToSpeech.from_pretrained(MODEL).to(find_device(None))
demo = build_demo(model, DiTARProcessor.from_pretrained(MODEL), Path(MODEL).name)

if __name__ == "__main__":
    launch_demo(demo)
    demo.block_thread()
