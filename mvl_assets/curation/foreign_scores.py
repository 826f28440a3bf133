"""Assets `scores/<name>`: scores that others gave rows, read from Parquet files and joined with the samples."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mvl_assets.common.project_root import find_project_root
from mvl_assets.common.score_type import ScoreType
from mvl_assets.config.score_file import ScoreFile
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SCORES
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.foreign_scores import ARROW_TYPES, KEY_TYPES, ScoredSource, open_joined_scores

BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class ScoresReport:
    """What joining did.

    Attributes:
        n_rows: Rows of the files.
        n_without_id: Those whose key is null.
        n_unknown: Those that no current sample is.
        example: The key of one of them; empty without any.
        sources: How many samples of each source have scores.
        published: Result of publishing.
    """

    n_rows: int
    n_without_id: int
    n_unknown: int
    example: str
    sources: list[ScoredSource]
    published: PublishResult


def join_scores(lake: Lake, name: str, score_file: ScoreFile, *, run_id: str) -> ScoresReport:
    """Publish `scores/<name>`: the scores of all current samples that the files have.

    Args:
        lake: The lake.
        name: Name of the scores.
        score_file: What the profile says of them.
        run_id: Id of the run.

    Raises:
        MvlError: A file or column is missing, cannot be read or is of another type, a row has two scores, or none of
            the rows is in the lake.
    """
    with _mark_errors(name):
        reader = _ScoreReader(score_file)
        keys = ["file", "position"] if score_file.key_kind == "row" else [score_file.key_kind]
        with open_joined_scores(lake, reader.iter_batches(), keys, score_file.columns, score_file.source) as joined:
            if not joined.sources:
                source = "the lake" if score_file.source is None else f"the rows of {score_file.source} in the lake"
                raise MvlError(
                    f"none of the {reader.n_rows:,} rows of {score_file.path} is among {source}"
                    + (f", for instance not {joined.example[:200]!r}" if joined.example else ""),
                    hint="`key` names the column with ids of samples or, with `source`, with ids of its rows",
                )
            run_ids = (table.append_column("run_id", pa.repeat(run_id, len(table))) for table in joined.batches)
            published = lake.get_table(f"{SCORES.name}/{name}").publish(run_ids)
    return ScoresReport(reader.n_rows, reader.n_without_id, joined.n_unknown, joined.example, joined.sources, published)


@contextmanager
def _mark_errors(name: str) -> Iterator[None]:
    """Say in an error which scores it is about."""
    try:
        yield
    except MvlError as error:
        if type(error) is not MvlError:
            raise
        raise MvlError(f"scores: {name}: {error.message}", hint=error.hint) from error


class _ScoreReader:
    """Reads the files, a batch at a time.

    Attributes:
        n_rows: Rows read so far.
        n_without_id: Those of them whose key is null.
    """

    def __init__(self, score_file: ScoreFile) -> None:
        self.n_rows = self.n_without_id = 0
        self._spec = score_file
        self._root, self._paths = _find_files(score_file.path)

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the keys and scores of all files."""
        for path in self._paths:
            try:
                with pq.ParquetFile(path) as file:
                    self._check_columns(path, file.schema_arrow)
                    yield from self._iter_file(path, file)
            except (pa.ArrowException, OSError) as error:
                raise MvlError(
                    f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}", hint="look at the file"
                ) from error

    def _iter_file(self, path: Path, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        names = list(self._spec.columns)
        first_row = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=[*([self._spec.key] if self._spec.key else []), *names]):
            values = [_convert(batch.column(name), type_) for name, type_ in self._spec.columns.items()]
            keys = self._build_keys(path, first_row, batch)
            first_row += len(batch)
            self.n_rows += len(batch)
            is_known = keys[next(iter(keys))].is_valid()
            self.n_without_id += len(batch) - (is_known.true_count or 0)
            columns = {**keys, **{f"c{number}": value for number, value in enumerate(values)}}
            yield pa.RecordBatch.from_pydict(columns).filter(is_known)

    def _build_keys(self, path: Path, first_row: int, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        if self._spec.key is None:
            names = pa.repeat(path.relative_to(self._root).as_posix(), len(batch))
            return {"file": names, "position": pa.array(range(first_row, first_row + len(batch)), pa.int64())}
        ids = batch.column(self._spec.key).cast(pa.string())
        if self._spec.key_kind == "sample_id":  # with or without dashes
            ids = pc.replace_substring(pc.utf8_lower(ids), "-", "")
        return {self._spec.key_kind: ids.cast(KEY_TYPES[self._spec.key_kind])}

    def _check_columns(self, path: Path, schema: pa.Schema) -> None:
        names = [*([self._spec.key] if self._spec.key else []), *self._spec.columns]
        if missing := [name for name in names if name not in schema.names]:
            raise MvlError(f"{path} has no column {missing[0]!r}", hint=f"columns: {', '.join(schema.names)}")
        for name, type_ in self._spec.columns.items():
            if (stored := _get_score_type(schema.field(name).type)) != type_:
                raise MvlError(
                    f"{path}: column {name!r} is {stored or schema.field(name).type}, and no {type_}",
                    hint=f"columns: {{{name}: {stored}}}" if stored else "take a column of single values",
                )
        if self._spec.key is not None:
            type_of_key = schema.field(self._spec.key).type
            if not (pa.types.is_integer(type_of_key) or _get_score_type(type_of_key) == "text"):
                raise MvlError(f"{path}: the key {self._spec.key!r} is {type_of_key}", hint="ids are texts or integers")


def _find_files(path: str) -> tuple[Path, list[Path]]:
    """Return the folder that names of files are relative to, and the files in order."""
    full_path = Path(path).expanduser()
    if not full_path.is_absolute():
        full_path = (find_project_root() or Path.cwd()) / full_path
    root, pattern = (full_path, "**/*.parquet") if full_path.is_dir() else (full_path.parent, full_path.name)
    while glob.has_magic(str(root)):
        root, pattern = root.parent, f"{root.name}/{pattern}"
    paths = sorted(root.glob(pattern))
    if not paths:
        raise MvlError(f"there is no file {full_path}", hint="`path` is a Parquet file, a folder of them or a pattern")
    return root, paths


def _get_score_type(type_: pa.DataType) -> ScoreType | None:
    if pa.types.is_dictionary(type_):
        return _get_score_type(type_.value_type)
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    return "number" if is_number else None


def _convert(column: pa.Array, type_: ScoreType) -> Any:
    values = column.cast(ARROW_TYPES[type_], safe=False)
    # Not a number is no score; as a value it would be larger than all others.
    return pc.if_else(pc.is_nan(values), None, values) if type_ == "number" else values
