"""Paths with fields in them: `{split}/labels/{name}.json` is the glob `*/labels/*.json`, and says what each star is."""

from __future__ import annotations

import re
from functools import lru_cache

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
_GLOB_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]")
_GLOB_REGEX = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def format_glob(template: str) -> str:
    """Return the glob of the paths that a template describes; a glob without fields is one as it is."""
    return _FIELD.sub("*", template)


def parse_path(template: str, path: str) -> dict[str, str]:
    """Return the fields of a path, none where it is not of the template's form. A field does not hold a slash."""
    if not _FIELD.search(template):
        return {}
    match = _build_pattern(template).fullmatch(path)
    return {} if match is None else match.groupdict()


def translate_template(template: str) -> str:
    """Return the regular expression of the paths that a template describes."""
    parts: list[str] = []
    names: set[str] = set()
    position = 0
    for field in _FIELD.finditer(template):
        parts.append(_translate_glob(template[position : field.start()]))
        name = field.group(1)
        parts.append(f"(?P={name})" if name in names else f"(?P<{name}>[^/]+?)")
        names.add(name)
        position = field.end()
    return "(?s:" + "".join(parts) + _translate_glob(template[position:]) + ")"


@lru_cache(maxsize=64)
def _build_pattern(template: str) -> re.Pattern[str]:
    return re.compile(translate_template(template))


def _translate_glob(text: str) -> str:
    parts: list[str] = []
    position = 0
    for token in _GLOB_TOKEN.finditer(text):
        parts.append(re.escape(text[position : token.start()]))
        parts.append(_GLOB_REGEX.get(token.group()) or token.group().replace("[!", "[^"))
        position = token.end()
    return "".join(parts) + re.escape(text[position:])
