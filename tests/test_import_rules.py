"""
Who may import whom, and what else the sources keep to.

The files of `modeling/` travel to the Hub one by one. What reads them there is a regular expression, not Python: it
follows `from .sibling import Name` and nothing else, also where that stands in a docstring.
"""

import ast
import re
import sys
from pathlib import Path

import pytest
import transformers.utils.import_utils

SOURCES = Path(__file__).resolve().parents[1] / "src" / "ditar_hf"

# Part of the package -> the parts of ours it may import; "" is `ditar_hf` itself, the public names. A part may always
# import its own modules.
ARROWS = {
    "__init__": {"modeling", "pipelines"},
    "modeling": set(),
    "pipelines": set(),
    "training": {"modeling", "plotting"},
    "evaluation": {"", "plotting"},
    "folders": set(),
    "hub": {"", "modeling", "pipelines", "folders", "model_card"},
    "model_card": {"card_figures"},
    "card_figures": set(),
    "plotting": set(),
    "demo_speech": {""},
    "demo": {"", "demo_speech", "modeling", "plotting"},
}
# cli.py and cli_*.py may import anything, but inside functions: `ditar --help` must be quick.
CLI_AT_IMPORT = {"typer"}
# What every user of a model on the Hub has or must install; anything else is optional in modeling/.
REQUIRED_BY_MODELING = {"torch", "transformers", "diffusers", "numpy", "huggingface_hub", "safetensors"}

# The copier of remote code, transformers.dynamic_module_utils.get_relative_imports.
COPIED_IMPORT = re.compile(r"^\s*(?:import\s+\.(\S+)\s*$|from\s+\.(\S+)\s+import)", flags=re.MULTILINE)


def violations(path: str, source: str, siblings: set[str] | None = None) -> list[str]:
    """
    The rules that `source` breaks, one line for each breach.

    Args:
        path (`str`): Path of the file below `src/ditar_hf`, such as `hub.py`; decides which rules hold.
        source (`str`): The Python source.
        siblings (`set[str]`, *optional*): Names of the modules in the same folder, where they are known.
    """
    tree = ast.parse(source)
    part = path.split("/")[0].removesuffix(".py")
    part = "cli" if part.startswith("cli_") else part
    found = [f"{path}:{node.lineno}: {problem}" for node, problem in _everywhere(tree)]
    found += [f"{path}:{node.lineno}: {problem}" for node, problem in _arrows(path, part, tree)]
    if part == "cli":
        found += [f"{path}:{node.lineno}: {problem}" for node, problem in _eager_imports(tree)]
    if part == "pipelines":
        found += [
            f"{path}:{node.lineno}: {problem}" for node, problem in _foreign_imports(tree, {"torch", "transformers"})
        ]
    if part == "modeling":
        found += [f"{path}:{node.lineno}: {problem}" for node, problem in _unguarded_imports(tree)]
        found += [f"{path}:{line}: {problem}" for line, problem in _uncopied_imports(tree, source, siblings)]
        if path.count("/") > 1:
            found.append(f"{path}:1: modeling/ is flat")
    return found


def _everywhere(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node, "assert is for tests; raise ValueError"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            yield node, "`.cuda()` names a device; use `.to(device)`"


def _imported_modules(node, path=""):
    """The absolute names of the modules that an import statement may import; relative ones start with `ditar_hf`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level == 0:
        base = node.module
    else:
        folders = ["ditar_hf", *path.split("/")[:-1]]
        if node.level > len(folders):
            return ["ditar_hf.<outside>"]
        base = ".".join([*folders[: len(folders) - node.level + 1], *([node.module] if node.module else [])])
    # `from ditar_hf import modeling` imports a module as much as `import ditar_hf.modeling` does.
    return [f"{base}.{alias.name}" for alias in node.names] if base == "ditar_hf" else [base]


def _arrows(path, part, tree):
    allowed = ARROWS.get(part)
    if allowed is None and part != "cli":
        yield tree.body[0] if tree.body else ast.Pass(lineno=1), f"ARROWS says nothing about {part}"
        return
    for node in ast.walk(tree):
        for module in _imported_modules(node, path):
            names = module.split(".")
            if names[0] != "ditar_hf" or part == "cli":
                continue
            # `ditar_hf.DiTARProcessor` is no part but a public name.
            is_part = len(names) > 1 and names[1] in ARROWS.keys() | {"cli", "<outside>"}
            target = names[1] if is_part else ""
            if target != part and target not in allowed:
                yield node, f"{part} must not import {module}"


def _top_level(module):
    return module.split(".")[0]


def _eager_imports(tree):
    """Imports that run when the module is imported, other than the standard library's and `CLI_AT_IMPORT`."""

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                continue
            for module in _imported_modules(child):
                if module.startswith("ditar_hf.cli_"):
                    continue  # which keeps to the same rule
                if _top_level(module) not in sys.stdlib_module_names | CLI_AT_IMPORT:
                    yield child, f"{module} must be imported inside the function that needs it"
            yield from walk(child)

    yield from walk(tree)


def _foreign_imports(tree, allowed):
    for node in ast.walk(tree):
        for module in _imported_modules(node):
            if _top_level(module) not in sys.stdlib_module_names | allowed | {"ditar_hf"}:
                yield node, f"pipelines imports only torch and transformers, not {module}"


def _is_availability_check(test):
    """The copier's rule: a call of a function of `transformers.utils.import_utils` by its bare name."""
    names = {node.func.id for node in ast.walk(test) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return any(hasattr(transformers.utils.import_utils, name) for name in names)


def _unguarded_imports(tree):
    """Imports that the Hub takes for requirements, also in functions and under TYPE_CHECKING, and private ones."""

    def walk(node, guarded):
        for child in ast.iter_child_nodes(node):
            for module in _imported_modules(child):
                names = module.split(".")
                if names[0] not in sys.stdlib_module_names | REQUIRED_BY_MODELING | {"ditar_hf"} and not guarded:
                    yield child, f"{names[0]} is optional: import it under `try` or `if is_..._available()`"
                if names[0] != "__future__" and any(name.startswith("_") for name in names):
                    yield child, f"{module} is private"
                if names[:2] == ["transformers", "models"] and names[2:3] != ["auto"]:
                    yield child, f"{module}: build on the public API, not on another model"
            yield from walk(
                child,
                guarded
                or isinstance(child, ast.Try)
                or (isinstance(child, ast.If) and _is_availability_check(child.test)),
            )

    yield from walk(tree, guarded=False)


def _uncopied_imports(tree, source, siblings):
    """Where the copier and Python disagree about what is imported from the same folder."""
    relative = {node.lineno: node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 0}
    copied = {}
    for match in COPIED_IMPORT.finditer(source):
        start = match.end() - len(match.group().lstrip())
        copied[source.count("\n", 0, start) + 1] = match.group(1) or match.group(2)
    for line, node in relative.items():
        name = node.module or ""
        if node.level != 1 or not name or "." in name or line not in copied:
            yield line, "write `from .sibling import Name`: nothing else is copied to the Hub"
        elif any(alias.name == "*" for alias in node.names):
            yield line, "import names, not `*`"
        elif siblings is not None and name not in siblings:
            yield line, f"there is no {name}.py beside it"
    for line in copied.keys() - relative.keys():
        yield line, "the copier takes this text for an import; word it differently"
    for node in ast.walk(tree):
        for module in _imported_modules(node):
            # Relative imports are seen as names below `ditar_hf` only where they have a level.
            if _top_level(module) == "ditar_hf" and not (isinstance(node, ast.ImportFrom) and node.level):
                yield node.lineno, "ditar_hf is not there where this file is loaded from the Hub"


def test_sources_keep_the_rules():
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        siblings = {sibling.stem for sibling in path.parent.glob("*.py")}
        found += violations(path.relative_to(SOURCES).as_posix(), path.read_text(encoding="utf-8"), siblings)
    assert not found, "\n".join(found)


GOOD = {
    "modeling/a_ditar.py": [
        "import math\nimport torch\nfrom torch import nn\nfrom transformers import PreTrainedModel\n",
        "from .b_ditar import (\n    One,\n    Two,\n)\n",
        "from transformers.utils import is_soxr_available\nif is_soxr_available():\n    import soxr\n",
        "try:\n    import espeakng_loader\nexcept ImportError:\n    espeakng_loader = None\n",
        "from transformers.models.auto import AutoModel\n",
        "import torch\ndevice = 'cuda' if torch.cuda.is_available() else 'cpu'\n",
        '"""Imports as in `from .b_ditar import One` are copied."""\n',
    ],
    "modeling/__init__.py": ["from .b_ditar import One\n"],
    "pipelines/pipeline_ditar.py": ["import torch\nfrom transformers import TextToAudioPipeline\n"],
    "training/trainer.py": [
        "import datasets\nfrom ..modeling.a_ditar import A\nfrom .collator import C\nfrom ditar_hf.modeling import A\n"
    ],
    "evaluation/metrics.py": ["import jiwer\nfrom ditar_hf import DiTARProcessor\nfrom .flops import count\n"],
    "evaluation/pictures.py": ["from ..plotting import log_spectrogram\n"],
    "hub.py": ["from .modeling.a_ditar import A\nfrom ditar_hf.pipelines import P\n"],
    "cli.py": [
        "import os\nimport typer\n\ndef speak():\n    import torch\n    from ditar_hf.training import train\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n",
        "from .cli_common import note\n",
    ],
    "cli_vae.py": ["from .cli_common import note\n\ndef train():\n    from .training.trainer import T\n"],
    "__init__.py": ["from .modeling.a_ditar import A\n"],
}
BAD = {
    "modeling/a_ditar.py": [
        "from . import b_ditar\n",
        "from .. import hub\n",
        "from ..hub import push\n",
        "from .sub.b_ditar import B\n",
        "from .b_ditar import *\n",
        "from .missing_ditar import B\n",
        "from ditar_hf.modeling.b_ditar import B\n",
        "from ditar_hf import B\n",
        "import ditar_hf\n",
        "if True: from .b_ditar import B\n",
        '"""How to import:\n\n    from .b_ditar import B\n"""\n',
        '"""How to import:\n\nimport .b_ditar\n"""\n',
        "import phonemizer\n",
        "def f():\n    import phonemizer\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import phonemizer\n",
        "if has_phonemizer():\n    import phonemizer\n",
        "import einops\n",
        "from torch._dynamo import config\n",
        "from transformers.models.llama.modeling_llama import LlamaModel\n",
        "def f(x):\n    assert x > 0\n",
        "def f(x):\n    return x.cuda()\n",
    ],
    "modeling/sub/a_ditar.py": ["import torch\n"],
    "pipelines/pipeline_ditar.py": [
        "import numpy\n",
        "from ..modeling.a_ditar import A\n",
        "from ditar_hf import DiTARProcessor\n",
    ],
    "training/trainer.py": ["from ..hub import push\n", "from ditar_hf import A\n", "import ditar_hf.evaluation\n"],
    "evaluation/metrics.py": [
        "from ..modeling.a_ditar import A\n",
        "from ditar_hf.modeling import A\n",
        "from ditar_hf import modeling\n",
        "from ..training.trainer import T\n",
    ],
    "hub.py": ["from .training.trainer import T\n", "from . import evaluation\n"],
    "plotting.py": ["from .modeling.a_ditar import A\n"],
    "cli.py": [
        "import torch\n",
        "import ditar_hf\n",
        "from .plotting import save\n",
        "try:\n    import torch\nexcept ImportError:\n    pass\n",
        "class A:\n    import numpy\n",
    ],
    "cli_vae.py": ["import torch\n", "from .training.trainer import T\n"],
    "__init__.py": ["from .cli import app\n", "from .training.trainer import T\n"],
    "newcomer.py": ["import os\n"],
}


def _cases(sources):
    return [
        pytest.param(path, source, id=f"{path}-{i}") for path, all_ in sources.items() for i, source in enumerate(all_)
    ]


@pytest.mark.parametrize(("path", "source"), _cases(GOOD))
def test_checker_accepts(path, source):
    assert violations(path, source, siblings={"b_ditar"}) == []


@pytest.mark.parametrize(("path", "source"), _cases(BAD))
def test_checker_refuses(path, source):
    assert violations(path, source, siblings={"b_ditar"})


def test_checker_names_file_and_line():
    found = violations("modeling/a_ditar.py", "import torch\n\nfrom . import b_ditar\n")
    assert found == ["modeling/a_ditar.py:3: write `from .sibling import Name`: nothing else is copied to the Hub"]
