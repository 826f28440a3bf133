"""The items of benchmarks (images, questions, options, answers) as declared sources that nothing trains on.

An entry has the fields of a source (`config.catalog.SourceSpec`) and says which tasks of lmms-eval ask its items. The
package declares those of the paper's 23 benchmarks and of the local suite in `defs/benchmarks/defs.yaml`; the files in
`benchmarks/` of a project lie over them by slug. Items are looked up, fetched and ingested as any source is.

What keeps them out of training: their slugs begin with `benchmark_`, which no other source may; they are of group C,
which enters no category table; and a mixture leaves out whatever has such a source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.config.catalog import Group, SourceSpec
from mvl_assets.config.project import PACKAGE_DIR, find_own_dir
from mvl_assets.config.strict_yaml import YamlError, iter_documents
from mvl_assets.errors import MvlError

BENCHMARKS_FILE = PACKAGE_DIR / "defs" / "benchmarks" / "defs.yaml"


class BenchmarkItems(SourceSpec):
    """The items of one benchmark."""

    slug: str = Field(pattern=rf"^{BENCHMARK_PREFIX}[a-z0-9_]+$")
    category: Literal["benchmark"] = "benchmark"
    group: Group | None = "C"
    reason: str | None = "The items of a benchmark are asked, never trained on."
    tasks: dict[str, str] = Field(min_length=1)
    """The lmms-eval tasks that ask the items, each with the pattern of the files that hold its questions, in order: the
    n-th row of these is the task's question n."""
    has_answers: bool = True
    """Whether the answers are published. Where they are not, `answer` names another field, and is no evidence."""

    @model_validator(mode="after")
    def _validate_group(self) -> BenchmarkItems:
        if self.group != "C":
            raise ValueError("the items of a benchmark are of group C: nothing trains on them")
        return self

    @property
    def name(self) -> str:
        """The slug without its prefix: the asset is `benchmarks/<name>`."""
        return self.slug.removeprefix(BENCHMARK_PREFIX)

    def match_task(self, task: str, file: str) -> bool:
        """Return whether a file holds questions of a task."""
        return task in self.tasks and fnmatchcase(file, self.tasks[task])


def load_benchmarks() -> Mapping[str, BenchmarkItems]:
    """Return the declared items by slug, the project's own over those of the package.

    Raises:
        MvlError: An entry is not valid; names file, line and entry.
    """
    return _load_benchmarks(find_own_dir("benchmarks"))


@cache
def _load_benchmarks(own_dir: Path | None) -> Mapping[str, BenchmarkItems]:
    own_paths = [] if own_dir is None else sorted([*own_dir.rglob("*.yaml"), *own_dir.rglob("*.yml")])
    return {spec.slug: spec for path in (BENCHMARKS_FILE, *own_paths) for spec in _iter_benchmarks(path)}


def _iter_benchmarks(path: Path) -> Iterator[BenchmarkItems]:
    slugs: set[str] = set()
    for document in iter_documents(path):
        try:
            spec = document.validate(BenchmarkItems)
        except YamlError as error:
            raise MvlError(error.message, hint=error.hint or "correct the entry and run again") from error
        if spec.slug in slugs:
            raise MvlError(f"{path}:{document.line}: the benchmark {spec.slug!r} is declared twice")
        slugs.add(spec.slug)
        yield spec
