"""Options of the commands that are written by hand, and of all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from purpleteam.verbs.options import DEVICE, MAX_SEED, MAX_THREADS, MODEL, OUT, SEED, THREADS

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help=SEED)]
SeedOrNone = Annotated[int | None, typer.Option("--seed", min=0, max=MAX_SEED, help=SEED)]
Threads = Annotated[int | None, typer.Option("--threads", min=1, max=MAX_THREADS, help=THREADS)]
Device = Annotated[str, typer.Option("--device", help=DEVICE)]
Out = Annotated[Path | None, typer.Option("--out", help=OUT)]
Model = Annotated[str, typer.Option("--model", help=MODEL.help)]
