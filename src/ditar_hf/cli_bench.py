"""The command that times systems against one another. Heavy packages are imported by the command."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from .cli_common import errors_only, exits_with_2, find_device, given, note
from .cli_options import DeviceOption

LIMIT_LOGGER = "ditar_hf.modeling.generation_ditar"
CPU_BATCH_SIZES, GPU_BATCH_SIZES = (1, 4), (1, 10, 100, 500)

app = typer.Typer()


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Folder of the report, a new one.")],
    sizes: Annotated[
        str | None, typer.Option(help="Sizes of DiTAR with random weights, as `0.1B,0.6B`; 0.1B without `--model`.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Folder or Hub id of a trained DiTAR; give it once for each.")
    ] = None,
    others: Annotated[
        str, typer.Option("--with", help="Systems to compare with, of `nar,mar,pocket_tts,vibevoice`.")
    ] = "",
    patch_sizes: Annotated[str, typer.Option(help="Time each size also with patches of so many frames, as `2`.")] = "",
    seconds: Annotated[float, typer.Option(help="Speech of each row, the same for all.")] = 4.0,
    prompt_seconds: Annotated[
        float | None, typer.Option(help="Length of the voice that is followed; 3 if not given, 0 is none.")
    ] = None,
    text_tokens: Annotated[
        int | None, typer.Option(help="Tokens of the text; 7 for each second if not given, as in the paper.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Diffusion steps; 10 if not given.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="1 is no guidance; 2 if not given.")] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            help=f"Rows at once; {','.join(map(str, CPU_BATCH_SIZES))} if not given, on a GPU "
            f"{','.join(map(str, GPU_BATCH_SIZES))}."
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Rounds, each with a call of every system; 5 if not given.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch on a CPU.")] = None,
    device: DeviceOption = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision, not of codecs; float32 if not given, on a GPU bfloat16.")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile what can be compiled; takes minutes.")] = False,
    isolate: Annotated[
        bool, typer.Option(help="Give each system a process of its own, so that its memory is known.")
    ] = True,
) -> None:
    """Time DiTAR and other systems in turns: latency, real-time factor, throughput, memory."""
    with exits_with_2(ValueError, OSError, others="--with", name="--sizes", out="--out"):
        from .evaluation import benchmark_report, vae_report
        from .evaluation.benchmark import check_numbers, run_benchmark
        from .evaluation.benchmark_plan import plan_systems
        from .evaluation.benchmark_systems import Workload
        from .folders import new_folder
        from .modeling.transformer_ditar import DiTARTransformer

        with new_folder(out) as folder:
            of_workload = given(
                prompt_seconds=prompt_seconds,
                num_text_tokens=text_tokens,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
            )
            workload = Workload(seconds, **of_workload)
            target_device = find_device(device)
            on_cpu = target_device.type == "cpu"
            rows = _numbers(batch_sizes, "--batch-sizes") or (CPU_BATCH_SIZES if on_cpu else GPU_BATCH_SIZES)
            of_run = given(repeats=repeats)
            check_numbers(rows, **{"repeats": 1, "threads": threads, **of_run})
            specs = plan_systems(
                workload,
                _names(sizes) if sizes is not None or model else ["0.1B"],
                model or [],
                _names(others),
                _numbers(patch_sizes, "--patch-sizes"),
                DiTARTransformer,
                device=str(target_device),
                dtype=dtype or ("float32" if on_cpu else "bfloat16"),
                compile=compile,
            )
            environment = vae_report.environment(target_device)
            with errors_only(LIMIT_LOGGER), _Progress() as progress:
                result = run_benchmark(specs, rows, threads=threads, isolate=isolate, on_call=progress.show, **of_run)
            settings = {
                "command": shlex.join(["ditar", *sys.argv[1:]]),
                "environment": environment | given(threads=threads),
                "isolated": isolate,
            }
            no_picture = benchmark_report.write_report(folder, result, settings)
    typer.echo(benchmark_report.markdown_table(result))
    if no_picture is not None:
        note(f"no picture: {no_picture}")
    typer.echo(f"{out}: the report, in report.md and report.json")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _numbers(text: str | None, option: str) -> list[int]:
    try:
        return [int(name) for name in _names(text)]
    except ValueError as error:
        raise ValueError(f"`{option}` must be whole numbers with commas between them, got `{text}`") from error


class _Progress:
    """What is under way, in a line on a terminal that vanishes; silent where standard error is none."""

    def __init__(self) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        self._status = console.status("") if console.is_terminal else None

    def __enter__(self) -> "_Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, words: str) -> None:
        """Says what comes next."""
        if self._status is not None:
            self._status.update(words)
