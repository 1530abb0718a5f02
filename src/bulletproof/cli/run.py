"""Several files through one processor, with progress, into one output."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from rich.progress import Progress

from bulletproof.cli.outputs import CSVOutput, JSONOutput, Output, TableOutput, destination
from bulletproof.monitor import default_monitor
from bulletproof.processor import AIDataProcessor, ProcessOptions, default_analyzer, door_workers, split_labels
from bulletproof.settings import load_settings

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
    settings = load_settings()
    # The limits of uploads protect a service from strangers; a file of one's own may be larger.
    own_files = settings.model_copy(
        update={
            "max_upload_bytes": settings.max_file_bytes,
            "max_decompressed_bytes": settings.max_file_bytes,
        }
    )
    chosen = split_labels(labels)
    failed = 0
    analyzer = default_analyzer(own_files, default_monitor(), workers=door_workers())
    async with AIDataProcessor(settings=own_files, analyzer=analyzer) as processor:
        with destination(out, sys.stdout) as stream, progress:
            output = _OUTPUTS[form](stream)
            for path in files:
                size = path.stat().st_size if path.is_file() else None
                task = progress.add_task(path.name, total=size, records=0)

                def show(records: int, position: int, task: int = task) -> None:
                    progress.update(task, completed=position, records=records)  # type: ignore[arg-type]

                answer = await processor.process_file(
                    path,
                    ProcessOptions(
                        text_field=text_field,
                        labels=chosen,
                        allow_fallback=allow_fallback,
                        on_progress=show,
                        on_run=output.results,
                    ),
                )
                progress.remove_task(task)
                failed += answer["status"] == "error"
                output.answer(str(path), answer)
            output.finish()
    return failed
