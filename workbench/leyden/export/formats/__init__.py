"""The formats by name. Each writes rows to a file, which is complete once it is closed."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from leyden.export.formats.base import Writer
from leyden.export.formats.jsonl import JsonlWriter
from leyden.export.formats.llama_factory import LlamaFactoryWriter
from leyden.export.formats.parquet import ParquetTuples
from leyden.export.formats.trl import TrlWriter
from leyden.export.formats.verl import VerlWriter
from leyden.export.tasks import GroundTruth


class ExportFormat(StrEnum):
    """Values of `leyden export --format`."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    TRL = "trl"
    VERL = "verl"
    LLAMA_FACTORY = "llama-factory"


WRITERS: dict[ExportFormat, Callable[[Path, GroundTruth], Writer]] = {
    ExportFormat.PARQUET: lambda path, _: ParquetTuples(path),
    ExportFormat.JSONL: lambda path, _: JsonlWriter(path),
    ExportFormat.TRL: lambda path, _: TrlWriter(path),
    ExportFormat.VERL: VerlWriter,
    ExportFormat.LLAMA_FACTORY: lambda path, _: LlamaFactoryWriter(path),
}

__all__ = ["WRITERS", "ExportFormat", "Writer"]
