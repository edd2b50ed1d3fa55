from .cutting.cutter import Cutter
from .passages import CutReport, passage_cutter
from .reading import Source, read_passages
from .records import Block, CutSettings, Document, ReadSettings, SkippedFile
from .sync.files import Files, FilesReport, index_files

__all__ = [
    "Block",
    "CutReport",
    "CutSettings",
    "Cutter",
    "Document",
    "Files",
    "FilesReport",
    "ReadSettings",
    "SkippedFile",
    "Source",
    "index_files",
    "passage_cutter",
    "read_passages",
]
