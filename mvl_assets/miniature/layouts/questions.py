"""Questions about pictures in files of their own: VQA v2, GQA, DocVQA and its kin, OCR-VQA, CLEVR, ScienceQA."""

from __future__ import annotations

from mvl_assets.miniature.layouts.common import Layout

LAYOUTS: dict[str, Layout] = {}
