"""How requests are written, and how replies and errors are read."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from mvl_assets.inference.client.chat_protocol import (
    MalformedReply,
    ServerLoad,
    build_request_body,
    parse_error_message,
    parse_reply,
    parse_server_load,
)
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import ModelRef, Request, build_choice_output
from tests.inference.helpers import MODEL, build_request

ENDPOINT = Endpoint("http://host/v1", "served")
JPEG = b"\xff\xd8\xff\xe0 rest"


def build_body(request: Request, endpoint: Endpoint = ENDPOINT, **images: bytes) -> dict:
    return dict(json.loads(build_request_body(request, endpoint, images)))


def build_completion(**choice: object) -> bytes:
    entry = {"message": {"content": "hi"}, "finish_reason": "stop", **choice}
    return json.dumps({"choices": [entry], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}).encode()


def test_the_load_of_a_server_is_that_of_all_its_engines() -> None:
    lines = [b"# TYPE vllm:num_requests_waiting gauge"]
    for engine, (waiting, written) in enumerate([(3, b"1.2e+03"), (4, b"34.0")]):
        labels = b'{engine="%d",model_name="m"}' % engine
        lines += [b"vllm:num_requests_waiting%s %.1f" % (labels, waiting)]
        lines += [b"vllm:generation_tokens_total%s %s" % (labels, written)]
    assert parse_server_load(b"\n".join(lines) + b"\n") == ServerLoad(7, 1234)
    assert parse_server_load(b"process_cpu_seconds_total 3\n") is None


def test_an_image_becomes_a_data_url_between_the_texts() -> None:
    content = [{"type": "text", "text": "before"}, {"type": "image", "image": "x"}, {"type": "text", "text": "after"}]
    request = Request(({"role": "user", "content": content},), MODEL, {"max_tokens": 4}, "p", "h")
    parts = build_body(request, x=JPEG)["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    start, data = parts[1]["image_url"]["url"].split(",")
    assert start == "data:image/jpeg;base64"
    assert base64.b64decode(data) == JPEG


def test_the_served_model_name_and_the_sampling_are_sent() -> None:
    sent = build_body(build_request("q", temperature=0.7, top_p=0.9))
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["max_tokens"]) == ("served", 0.7, 0.9, 16)


@pytest.mark.parametrize(
    ("temperature", "supports_seed", "sent"), [(0.8, False, False), (0.8, True, True), (0, False, True)]
)
def test_a_seed_with_temperature_is_not_sent_to_a_server_without_seed_support(
    temperature: float, supports_seed: bool, sent: bool
) -> None:
    endpoint = Endpoint("http://host/v1", "served", supports_seed=supports_seed)
    assert ("seed" in build_body(build_request("q", temperature=temperature, seed=3), endpoint)) is sent


def test_a_choice_asks_for_log_probabilities() -> None:
    sent = build_body(build_request("q", build_choice_output("Yes", "No")))
    assert sent["structured_outputs"] == {"choice": ["Yes", "No"]}
    assert sent["logprobs"] is True and sent["top_logprobs"] >= 5


def test_a_lone_surrogate_in_the_text_is_replaced() -> None:
    assert "?" in build_body(build_request("a lone surrogate \ud800"))["messages"][0]["content"]


def test_first_token_logprobs_leave_out_forbidden_tokens() -> None:
    top = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.3}, {"token": "!", "logprob": -9999.0}]
    logprobs = {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": top}]}
    logprobs_json = parse_reply(build_completion(logprobs=logprobs)).first_token_logprobs
    assert logprobs_json is not None and json.loads(logprobs_json) == {"Yes": -0.1, "No": -2.3}


def test_a_completion_is_read_with_its_usage_and_finish_reason() -> None:
    reply = parse_reply(build_completion(finish_reason="length"))
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("hi", "length", 3, 2)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>no</html>",
        b'{"choices": [',
        b'{"choices": []}',
        b'{"error": "x"}',
        b"null",
        b"[]",
        b'{"choices": [{"message": {"content": 7}}]}',
        b"\xff\xfe",
        b"",
    ],
)
def test_a_body_without_a_completion_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedReply):
        parse_reply(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"error": {"message": "too  long"}}', "too long"),
        (b'{"message": "no"}', "no"),
        (b"plain", "plain"),
        (b"", ""),
    ],
)
def test_the_message_of_an_error_body_is_kept(raw: bytes, words: str) -> None:
    assert parse_error_message(raw) == words


def test_a_reply_that_no_table_can_hold_is_malformed() -> None:
    for choice in ({"message": {"content": "half \ud83d"}}, {"finish_reason": "st\udc00p"}):
        with pytest.raises(MalformedReply):
            parse_reply(build_completion(**choice))
    for tokens in (-1, 1 << 40, float("inf")):
        with pytest.raises(MalformedReply):
            parse_reply(json.dumps({**json.loads(build_completion()), "usage": {"prompt_tokens": tokens}}).encode())
    with pytest.raises(MalformedReply):
        parse_reply(b"[" * 100_000)


def test_log_probabilities_that_are_not_numbers_are_left_out() -> None:
    top = [
        {"token": "Yes", "logprob": float("nan")},
        {"token": "No", "logprob": -0.5},
        {"token": "\udce2", "logprob": -2.0},
        {"token": "maybe", "logprob": None},
        {"token": "never", "logprob": float("-inf")},
    ]
    first = {"token": "Yes", "logprob": float("nan"), "top_logprobs": top}
    reply = parse_reply(build_completion(logprobs={"content": [first]}))
    assert reply.text == "hi"
    assert reply.first_token_logprobs is not None
    assert json.loads(reply.first_token_logprobs) == {"No": -0.5, "\udce2": -2.0}
    reply.first_token_logprobs.encode("utf-8")


@pytest.mark.parametrize(
    ("message", "reasoning", "text"),
    [
        ({"content": "7"}, None, "7"),
        ({"content": "7", "reasoning_content": "3 and 4"}, "3 and 4", "7"),
        ({"content": "7", "reasoning": "3 and 4"}, "3 and 4", "7"),
        ({"content": None, "reasoning_content": "3 and"}, "3 and", ""),
        ({"reasoning_content": "3 and"}, "3 and", ""),
        ({"content": "<think>\n3 and 4\n</think>\n\n7"}, "3 and 4", "7"),
        ({"content": "3 and 4</think>7"}, "3 and 4", "7"),
        ({"content": "<think>3 and"}, "3 and", ""),
        ({"content": "Write `<think>` and `</think>`."}, None, "Write `<think>` and `</think>`."),
    ],
)
def test_thoughts_are_apart_from_the_answer(message: dict[str, Any], reasoning: str | None, text: str):
    reply = parse_reply(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
    assert (reply.reasoning, reply.text) == (reasoning, text)


@pytest.mark.parametrize("reasoning", ["\ud83d", ["a"], 7])
def test_thoughts_that_no_table_can_store_are_a_malformed_reply(reasoning: object):
    message = {"content": "7", "reasoning_content": reasoning}
    with pytest.raises(MalformedReply):
        parse_reply(json.dumps({"choices": [{"message": message}]}).encode())


def test_a_models_extra_body_goes_over_the_prompts_fields_and_into_the_key():
    sampling = {"temperature": 0.3, "max_tokens": 8}

    def build(**fields: Any) -> Request:
        return Request(({"role": "user", "content": "a"},), ModelRef("m", "1", **fields), sampling, "p", "h")

    endpoint = Endpoint("http://127.0.0.1:1/v1", "m")
    plain, extra = build(), build(extra_body='{"temperature":null,"top_k":5}', thinking_tokens=100)
    body = json.loads(build_request_body(extra, endpoint, {}))
    assert (body["top_k"], "temperature" in body, body["max_tokens"]) == (5, False, 108)
    assert plain.key != extra.key
    assert build(extra_body="", thinking_tokens=0).key == plain.key
