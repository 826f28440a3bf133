"""An XML file is one record: elements and attributes are fields, elements of one name a list."""

from __future__ import annotations

import pytest

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.parsers.xml_record import MAX_DEPTH, parse_xml

VOC = b"""<?xml version="1.0" encoding="utf-8"?>
<annotation verified="yes"><filename>\xc3\xbc.jpg</filename><size><width>4</width></size><segmented/>
<object><name>cat &amp; kitten</name></object><object id="2">dog</object></annotation>"""


def test_elements_and_attributes_are_fields() -> None:
    assert parse_xml(VOC) == {
        "verified": "yes",
        "filename": "ü.jpg",
        "size": {"width": "4"},
        "segmented": None,
        "object": [{"name": "cat & kitten"}, {"id": "2", "text": "dog"}],
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<a><b></a>", "mismatched tag"),
        (b"", "no element found"),
        (b"<a>" * (MAX_DEPTH + 1), "nested deeper"),
        (b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><a>&d;</a>', "entities"),
        (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "entities"),
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(RejectError, match=message) as caught:
        parse_xml(data)
    assert caught.value.code == "bad_xml"
