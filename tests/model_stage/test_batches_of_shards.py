"""Requests that are in a batch of another shard, as the source was divided before: they are waited for."""

from __future__ import annotations

import datetime as dt

from mvl_assets.inference.endpoint import BatchOptions, Endpoint
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.inference.testing.fake_batch_api import FakeBatchApi
from mvl_assets.lake.batch_journal import BatchedRequest, StoredBatch
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.loop import answer_requests
from mvl_assets.model_stage.stage import ServedModel
from tests.servers import serve_in_thread

MODEL = ModelRef("fake", "1")


def test_a_request_in_a_batch_of_another_shard_is_not_paid_twice(lake: Lake) -> None:
    api = FakeBatchApi()
    requests = [Request(({"role": "user", "content": text},), MODEL, {"max_tokens": 8}, "p", "h") for text in "ab"]
    with serve_in_thread(api.build_app()) as url:
        endpoint = Endpoint(url, "fake", batch=BatchOptions(poll_interval_s=0.02, settle_s=0.1))
        model = ServedModel(MODEL, lambda: [endpoint])
        batch = api.add_batch(requests[0].key)
        with lake.get_answer_log("given", "all", "0") as log:
            stored = StoredBatch("0" * 32, 1, url, dt.datetime.now(dt.UTC), batch["input_file_id"], batch["id"])
            log.batches.save(stored, [BatchedRequest(requests[0].key, "fake", "1", "p", "h", None)])
        texts, failures = answer_requests(lake, "given", "all", model, requests, run_id="run")
    assert texts.keys() == {request.key for request in requests} and failures == []
    assert set(api.paid.values()) == {1}
    assert log.batches.list_batches() == []
