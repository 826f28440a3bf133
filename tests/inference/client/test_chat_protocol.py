"""What goes over the wire, and what is made of what comes back."""

from __future__ import annotations

import base64
import json

import pytest

from mvl_assets.inference.client.chat_protocol import (
    MalformedReply,
    build_request_body,
    parse_error_message,
    parse_reply,
)
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import Request, build_choice_output
from tests.inference.helpers import MODEL, build_request

ENDPOINT = Endpoint("http://host/v1", "served")
JPEG = b"\xff\xd8\xff\xe0 rest"


def body(request: Request, endpoint: Endpoint = ENDPOINT, **pictures: bytes) -> dict:
    return dict(json.loads(build_request_body(request, endpoint, pictures)))


def completion(**choice: object) -> bytes:
    entry = {"message": {"content": "hi"}, "finish_reason": "stop", **choice}
    return json.dumps({"choices": [entry], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}).encode()


def test_a_picture_becomes_a_data_url_and_the_text_stays_where_it_was() -> None:
    content = [{"type": "text", "text": "before"}, {"type": "image", "image": "x"}, {"type": "text", "text": "after"}]
    request = Request(({"role": "user", "content": content},), MODEL, {"max_tokens": 4}, "p", "h")
    parts = body(request, x=JPEG)["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    start, data = parts[1]["image_url"]["url"].split(",")
    assert start == "data:image/jpeg;base64"
    assert base64.b64decode(data) == JPEG


def test_the_served_name_is_sent_and_the_sampling_as_given() -> None:
    sent = body(build_request("q", temperature=0.7, top_p=0.9))
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["max_tokens"]) == ("served", 0.7, 0.9, 16)


@pytest.mark.parametrize(
    ("temperature", "seeds_sampling", "sent"), [(0.8, False, False), (0.8, True, True), (0, False, True)]
)
def test_a_seed_with_temperature_never_reaches_a_server_that_dies_of_it(
    temperature: float, seeds_sampling: bool, sent: bool
) -> None:
    endpoint = Endpoint("http://host/v1", "served", supports_seed=seeds_sampling)
    assert ("seed" in body(build_request("q", temperature=temperature, seed=3), endpoint)) is sent


def test_a_choice_asks_for_log_probabilities() -> None:
    sent = body(build_request("q", build_choice_output("Yes", "No")))
    assert sent["structured_outputs"] == {"choice": ["Yes", "No"]}
    assert sent["logprobs"] is True and sent["top_logprobs"] >= 5


def test_text_that_utf_8_cannot_hold_does_not_stop_the_run() -> None:
    assert "?" in body(build_request("a lone surrogate \ud800"))["messages"][0]["content"]


def test_the_first_tokens_log_probabilities_leave_out_the_forbidden() -> None:
    top = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.3}, {"token": "!", "logprob": -9999.0}]
    logprobs = {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": top}]}
    found = parse_reply(completion(logprobs=logprobs)).first_token_logprobs
    assert found is not None and json.loads(found) == {"Yes": -0.1, "No": -2.3}


def test_a_completion_is_read_with_its_usage_and_finish_reason() -> None:
    reply = parse_reply(completion(finish_reason="length"))
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
def test_anything_else_is_a_malformed_reply(raw: bytes) -> None:
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
def test_the_servers_own_words_are_kept(raw: bytes, words: str) -> None:
    assert parse_error_message(raw) == words


def test_a_reply_that_no_table_can_hold_is_malformed() -> None:
    for choice in ({"message": {"content": "half \ud83d"}}, {"finish_reason": "st\udc00p"}):
        with pytest.raises(MalformedReply):
            parse_reply(completion(**choice))
    for tokens in (-1, 1 << 40, float("inf")):
        with pytest.raises(MalformedReply):
            parse_reply(json.dumps({**json.loads(completion()), "usage": {"prompt_tokens": tokens}}).encode())
    with pytest.raises(MalformedReply):
        parse_reply(b"[" * 100_000)


def test_log_probabilities_that_are_no_numbers_are_left_out_and_the_answer_stays() -> None:
    top = [
        {"token": "Yes", "logprob": float("nan")},
        {"token": "No", "logprob": -0.5},
        {"token": "\udce2", "logprob": -2.0},
        {"token": "maybe", "logprob": None},
        {"token": "never", "logprob": float("-inf")},
    ]
    first = {"token": "Yes", "logprob": float("nan"), "top_logprobs": top}
    reply = parse_reply(completion(logprobs={"content": [first]}))
    assert reply.text == "hi"
    assert reply.first_token_logprobs is not None
    assert json.loads(reply.first_token_logprobs) == {"No": -0.5, "\udce2": -2.0}
    reply.first_token_logprobs.encode("utf-8")
