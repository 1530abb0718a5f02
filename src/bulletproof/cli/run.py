"""Several files through one processor, with progress, into one output."""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from rich.progress import Progress, TaskID
from rich.text import Text

from bulletproof.cli.outputs import CSVOutput, JSONOutput, Output, TableOutput, destination, summary_line
from bulletproof.monitor import default_monitor
from bulletproof.processor import (
    AIDataProcessor,
    AnalysisRun,
    ProcessOptions,
    default_analyzer,
    door_workers,
    split_labels,
)
from bulletproof.settings import load_settings


class _StandardInput:
    """What is piped in: no name, so the content tells the format."""

    filename = None

    def read(self, size: int) -> bytes:
        return sys.stdin.buffer.read(size)


_OUTPUTS: dict[str, Callable[[TextIO], Output]] = {"table": TableOutput, "json": JSONOutput, "csv": CSVOutput}


async def run_files(
    files: Sequence[Path],
    *,
    form: str,
    out: Path | None,
    text_field: str | None,
    labels: str | None,
    allow_fallback: bool | None,
    progress: Progress,
) -> int:
    """Process files one after the other and write what came out.

    Args:
        files: The files.
        form: ``table``, ``json`` or ``csv``.
        out: Where the output goes; standard output when None.
        text_field: Field that holds the text; found by itself when None.
        labels: Labels separated by commas.
        allow_fallback: False forbids the local model in place of the LLM.
        progress: Shows how far it is.

    Returns:
        How many files failed.

    Raises:
        ConfigurationError: A setting is wrong.
        InputValidationError: The output or the labels cannot be used.
    """
    this = asyncio.current_task()
    if this is not None and hasattr(signal, "SIGTERM") and sys.platform != "win32":
        # Like Ctrl-C: the file under way is taken back, not left half-stored.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    settings = load_settings()
    # The limits of uploads protect a service from strangers; a file of one's own may be larger.
    own_files = settings.model_copy(
        update={
            "max_upload_bytes": settings.max_file_bytes,
            "max_decompressed_bytes": settings.max_file_bytes,
            "max_records": sys.maxsize,
        }
    )
    chosen = split_labels(labels)
    failed = 0
    analyzer = default_analyzer(own_files, default_monitor(), workers=door_workers())
    async with AIDataProcessor(settings=own_files, analyzer=analyzer) as processor:
        with destination(out, sys.stdout, lossy=form == "table") as stream, progress:
            output = _OUTPUTS[form](stream)
            bare = form == "csv" or (form == "json" and out is not None)
            for path in files:
                size = path.stat().st_size if path.is_file() else None
                task = progress.add_task(path.name, total=size, records=0)

                def show(records: int, position: int, task: TaskID = task) -> None:
                    progress.update(task, completed=position, records=records)

                broken: list[Exception] = []

                def keep(run: AnalysisRun, name: str = str(path), broken: list[Exception] = broken) -> None:
                    try:
                        output.results(name, run)
                    except (OSError, UnicodeError) as error:
                        broken.append(error)

                answer = await processor.process_file(
                    path if str(path) != "-" else _StandardInput(),
                    ProcessOptions(
                        text_field=text_field,
                        labels=chosen,
                        allow_fallback=allow_fallback,
                        on_progress=show,
                        on_run=keep,
                    ),
                )
                if broken:
                    raise broken[0]
                progress.remove_task(task)
                failed += answer["status"] == "error"
                output.answer(str(path), answer)
                line = summary_line(str(path), answer) if bare else None
                if line is not None:
                    progress.console.print(Text(line))
            output.finish()
    return failed
