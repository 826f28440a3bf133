"""What a picture of `mvl_assets.view.diagrams` says."""

from __future__ import annotations

from xml.etree import ElementTree


def list_texts(svg: str) -> list[str]:
    """Return the texts and titles of a picture, which has to be well-formed and to hold no script."""
    elements = list(ElementTree.fromstring(svg).iter())
    names = {element.tag.rpartition("}")[2] for element in elements}
    assert names <= {"svg", "text", "rect", "path", "title"}
    assert not [
        key for element in elements for key in element.attrib if key.startswith("on") or key in ("href", "style")
    ]
    return [element.text or "" for element in elements if element.tag.endswith(("text", "title"))]
