"""Names: functions begin with a verb, and the words that were left behind do not come back (CONTRIBUTING, "Names")."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvl_assets.config.settings import PROJECT_ROOT

BANNED = frozenset(
    "asked beside film films found heard lane miniature picture pictures place places planted road said shown told"
    " wanted whom whoever".split()
)
"""Words that say too little (`found`), or have another word here: image, video, demo data, probe, pipeline."""

VERBS = frozenset(
    """
    abort accepts acquire adapt add adds adjust admit advance allocate allow answer append apply apportion arrange as
    assemble attach attempt begin block bootstrap build calibrate call can cancel categorise check choose classify clear
    close collapse collate collect combine commit compact compare compile compute concatenate conform connect
    consolidate construct contains continue convert cool copy count create cut damage decode dedupe defer delete deliver
    demote dequantize descend describe detach detect diagnose digest discard dispatch download drain draw drop embed
    enable encode end enqueue ensure equals escape estimate evaluate exchange exclude execute exists exit expand expire
    export extend extract fail fetch fill filter finalize find finish fit flatten flip flush fold follow forecast format
    forward from fsync gather generate get group gzip handle has hedge hold identify ignore index infer ingest init
    insert inspect interpolate interrupt is isolate iter join judge keep kill label lay lengthen link list load locate
    lock log lookup maintain make mark mask match matches materialize may measure merge move needs normalize number
    observe on open order overlay pack pad pair parse patch peek permits permute pick pin plan plant plot pluralize poll
    pop prefetch prepare prepend pretrain print probe process publish push put quantize queue quote raise read rebuild
    receive reclaim record reduce refuse register rehash reject rejects release reload remove rename render renew repair
    replace report request requeue require resample reset resize resolve restrict retain retry rewrite rotate round run
    runs sample save scan schedule score screen search seek select send serve set settle ship show shut shutdown
    simulate skip skips snapshot sniff sort spawn spill split spool standardise start states step stop store stream
    strip submit suggest sum summarize supervise suppress sweep sync take tell terminate tile to toggle trace train
    translate transliterate trim truncate try unload unpack unshare unwrap update upgrade upsample use validate vary
    verify wait warm wrap write zero
    """.split()
)
"""A new verb is added here, if it is one."""

FREE = frozenset(
    "main natural_sort_key difference for_stage readable seekable readinto loglikelihood"
    " doc_to_visual doc_to_text doc_to_messages".split()
)
"""Entry points, constructors, and names that the interface of a library asks for."""

MODULES = sorted(path for package in ("mvl_assets", "mvl_training") for path in (PROJECT_ROOT / package).rglob("*.py"))


def iter_assigned_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every definition, parameter, variable and assigned attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def iter_functions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of functions that are not properties, special methods, assets or commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__"):
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if not re.search(r"property|\.setter|\bdg\.|click\.|\.command", decorators):
                yield node.lineno, node.name


def split_words(name: str) -> list[str]:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_a_module_uses_the_vocabulary(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    banned = [
        f"{path.name}:{line}: {name}"
        for line, name in iter_assigned_names(tree)
        if name == "one" or BANNED & set(split_words(name))
    ]
    assert not banned, "names with words that this project does not use; docs/glossary.md has the right ones"
    verbless = [
        f"{path.name}:{line}: {name}"
        for line, name in iter_functions(tree)
        if name not in FREE and split_words(name)[0] not in VERBS
    ]
    assert not verbless, "functions whose names do not begin with a verb (or with one that VERBS lacks)"
