"""`python -m leyden.policy.engines`: starts the engine that suits this machine."""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from leyden.policy.engines.launch import (
    Dtype,
    Engine,
    Machine,
    Serving,
    choose_dtype,
    choose_engine,
    tool_parser_of,
    vllm_command,
    vllm_environment,
)

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    ctx: typer.Context,
    model: Annotated[str, typer.Option(help="Folder or Hugging Face id of the base model (version 0).")],
    engine: Annotated[Engine, typer.Option(help="auto: vLLM if installed, else transformers.")] = Engine.AUTO,
    port: Annotated[int, typer.Option(help="Port of the HTTP API.")] = 8100,
    host: Annotated[str, typer.Option(help="Address to bind. The engine has no authentication.")] = "127.0.0.1",
    policy: Annotated[str, typer.Option(help="Policy name: the `model` of requests.")] = "policy",
    dtype: Annotated[
        Dtype, typer.Option(help="auto: bfloat16 if the hardware supports it, else float32.")
    ] = Dtype.AUTO,
    max_model_len: Annotated[int, typer.Option(min=16, help="Longest prompt and response, in tokens.")] = 1024,
    lora_rank: Annotated[
        int, typer.Option(min=0, max=512, help="vLLM: serve LoRA adapters up to this rank; 0: none.")
    ] = 0,
    tool_call_parser: Annotated[str, typer.Option(help="Tool call format; auto: from the chat template.")] = "auto",
) -> None:
    """Serve MODEL with an OpenAI-compatible API and swappable weights. Unknown options are passed to vLLM."""
    machine = Machine.here()
    serving = Serving(
        engine=choose_engine(engine, machine),
        model=str(Path(model).resolve()) if Path(model).is_dir() else model,
        policy=policy,
        host=host,
        port=port,
        dtype=choose_dtype(dtype, machine),
        max_model_len=max_model_len,
        lora_rank=lora_rank,
        extra=tuple(ctx.args),
        tool_parser=tool_parser_of(Path(model)) if tool_call_parser == "auto" else tool_call_parser,
    )
    device = "GPU" if machine.gpu else f"{len(machine.cores)} CPU cores"
    typer.echo(
        f"engine {serving.engine} in {serving.dtype} on {device}: {serving.policy}@0 = {serving.model}", err=True
    )
    if serving.engine is Engine.VLLM:
        if not machine.vllm:
            raise typer.BadParameter("vLLM is not installed; install leyden[vllm] or use --engine transformers")
        environment = vllm_environment(serving, machine, os.environ)
        os.execve(sys.executable, vllm_command(serving, machine), environment)  # noqa: S606  (no shell is wanted)
    if serving.extra:
        raise typer.BadParameter(f"the transformers engine does not support {' '.join(serving.extra)}")
    importlib.import_module("leyden.policy.engines.transformers_engine.server").serve(serving)


if __name__ == "__main__":
    app()
