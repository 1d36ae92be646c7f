"""`ditar flops`: what an utterance costs, by formulas and by counting. Heavy packages are imported late."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_common import errors_only, exits_with_2, given, note

if TYPE_CHECKING:
    from ditar_hf import DiTARConfig, DiTARForTextToSpeech

TERA = 1e12

app = typer.Typer()


@app.command()
def flops(
    size: Annotated[str, typer.Option(help="A size of the paper: 0.1B, 0.4B, 0.6B, 1B; or tiny.")] = "0.6B",
    model: Annotated[str | None, typer.Option(help="A model instead: a folder or Hub id.")] = None,
    prompt_seconds: Annotated[float | None, typer.Option(help="Length of the voice prompt.  [default: 3]")] = None,
    target_seconds: Annotated[float | None, typer.Option(help="Length of the speech.  [default: 10]")] = None,
    text_tokens: Annotated[int | None, typer.Option(help="Phonemes of prompt and target.  [default: 91]")] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps for each patch.  [default: 10]")] = None,
    guidance: Annotated[bool, typer.Option(help="Whether LocDiT also runs without its condition.")] = True,
    measure: Annotated[
        bool, typer.Option(help="Also count what `generate` does; minutes for the large sizes.")
    ] = False,
    baselines: Annotated[bool, typer.Option(help="Also those systems of Table 1 that the formulas know.")] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this new file.")] = None,
) -> None:
    """Floating-point operations of an utterance: the paper's formulas, what they leave out, and torch's count."""
    with exits_with_2(ValueError, OSError, name="--size"):
        if out is not None and out.exists():
            raise ValueError(f"`--json`: there is a file {out} already. Name a new one.")
        from ditar_hf import DiTARConfig

        from .evaluation.cost_model import CostSetting, baseline_flops, further_flops, paper_flops

        setting = CostSetting(
            has_guidance=guidance,
            **given(
                prompt_seconds=prompt_seconds,
                target_seconds=target_seconds,
                num_text_tokens=text_tokens,
                num_inference_steps=steps,
            ),
        )
        config = DiTARConfig.from_preset(size) if model is None else DiTARConfig.from_pretrained(model)
        report = {"model": model or size, "setting": vars(setting)}
        report["paper"] = paper_flops(config, setting)
        report["further"] = further_flops(config, setting)
        if measure:
            from .evaluation.flop_counter import measure_flops

            note("counting a whole `generate`: minutes for the larger sizes")
            with errors_only("ditar_hf.modeling.generation_ditar"):  # the length is forced, and no row stops by itself
                report["measured"] = measure_flops(_load(model, config), setting)
        if baselines:
            report["baselines"] = dict(baseline_flops(setting))
        if out is not None:
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for line in _lines(report):
        typer.echo(line)


def _load(model: str | None, config: "DiTARConfig") -> "DiTARForTextToSpeech":
    """A model whose attention is written out, which alone is counted."""
    from ditar_hf import DiTARForTextToSpeech

    if model is not None:
        return DiTARForTextToSpeech.from_pretrained(model, attn_implementation="eager").eval()
    return DiTARForTextToSpeech._from_config(config, attn_implementation="eager").eval()


def _lines(report: dict) -> list[str]:
    """A Markdown table, in units of 10¹² operations."""
    rows = [(name, value) for name, value in report["paper"].items()]
    paper = sum(report["paper"].values())
    total = paper + sum(report["further"].values())
    rows += [("**by the paper's formulas**", paper), *report["further"].items(), ("**with all of these**", total)]
    if "measured" in report:
        counted = report["measured"]["generate"]
        rows += [("**counted by torch in `generate`**", counted), ("vocoder, counted", report["measured"]["vocoder"])]
    rows += [(f"Table 1: {name}", value) for name, value in report.get("baselines", {}).items()]
    lines = ["| part | TFLOPs |", "|---|---:|", *(f"| {name} | {value / TERA:.6f} |" for name, value in rows)]
    if "measured" in report:
        lines += ["", f"counted − formulas: {(counted - total) / total:+.4%}"]
    return lines
