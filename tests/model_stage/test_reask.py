"""Re-asking: which request belongs to which round, and which stored answer of a chain counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from mvl_assets.common.rejects import RejectError
from mvl_assets.inference.progress import FailedRequest
from mvl_assets.inference.request import ModelRef, Request, build_json_output
from mvl_assets.model_stage.due_requests import find_due_request
from mvl_assets.model_stage.reask import ReaskChain, Resolution, RoundKeys, resolve_chains
from mvl_assets.model_stage.retry_policy import UNANSWERED

REQUEST = Request(({"role": "user", "content": "What?"},), ModelRef("m", "1"), {"max_tokens": 8}, "p", "h")
WITH_RETRY_SAMPLING = ReaskChain(REQUEST, {"max_tokens": 8, "temperature": 0.7})
WITHOUT = ReaskChain(REQUEST)


class StoredAnswers:
    """An answer log that holds texts by key; counts how often it is read."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.n_reads = 0

    def get(self, request_keys: Collection[str], columns: object = None) -> dict[str, dict[str, Any]]:
        self.n_reads += 1
        return {key: {"text": self.texts[key]} for key in request_keys if key in self.texts}


def parse(index: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1) -> str:
    if answer["text"] == "cut":
        raise RejectError("at_length_limit", "cut off")
    if answer["text"] == "bad":
        raise RejectError("schema", "not what was asked for")
    return f"{index}: {answer['text']}"


def resolve(chain: ReaskChain, *texts: str, failures: Mapping[str, FailedRequest] | None = None) -> Resolution[str]:
    """Resolve one chain whose first rounds were answered with these texts."""
    keys = [chain.build_round_request(number).key for number in range(1, len(texts) + 1)]
    log = StoredAnswers(dict(zip(keys, texts, strict=True)))
    (resolution,) = resolve_chains(log, [RoundKeys(chain=chain)], parse, failures or {})  # type: ignore[arg-type]
    return resolution


def test_each_round_has_a_request_of_its_own() -> None:
    assert WITH_RETRY_SAMPLING.build_round_request(1) is REQUEST
    assert WITH_RETRY_SAMPLING.build_round_request(2).sampling == {"max_tokens": 8, "temperature": 0.7}
    assert WITH_RETRY_SAMPLING.build_round_request(3).sampling == {"max_tokens": 8, "temperature": 0.7, "seed": 3}
    assert WITHOUT.build_round_request(2).sampling == {"max_tokens": 8, "seed": 2}
    assert (WITH_RETRY_SAMPLING.auto_rounds, WITHOUT.auto_rounds) == (2, 1)
    assert len({WITH_RETRY_SAMPLING.build_round_request(number).key for number in range(1, 6)}) == 5


def test_an_unanswered_chain_is_open_and_its_first_request_comes_next() -> None:
    resolution = resolve(WITH_RETRY_SAMPLING)
    assert (resolution.n_answers, resolution.parsed, resolution.next_key) == (0, None, REQUEST.key)
    assert resolution.is_unanswered
    assert resolution.reject_reason is not None and resolution.reject_reason.error == UNANSWERED


def test_the_first_usable_answer_counts_and_ends_the_chain() -> None:
    resolution = resolve(WITH_RETRY_SAMPLING, "bad", "good", "better")
    assert (resolution.n_answers, resolution.parsed, resolution.next_key) == (2, "0: good", None)
    assert resolution.request_key == WITH_RETRY_SAMPLING.build_round_request(2).key
    assert resolution.first_key == REQUEST.key
    assert resolution.reject_reason is None


def test_without_a_usable_answer_the_last_one_is_the_reason() -> None:
    reason = resolve(WITHOUT, "bad", "bad").reject_reason
    assert reason is not None
    assert (reason.error, reason.attempts) == ("schema", 2)
    assert reason.request_key == WITHOUT.build_round_request(2).key


@pytest.mark.parametrize("texts", [(), ("bad",), ("bad", "bad")])
def test_a_failure_of_the_next_request_is_the_reason(texts: tuple[str, ...]) -> None:
    key = WITHOUT.build_round_request(len(texts) + 1).key
    failures = {key: FailedRequest(key, "http_400", "too long", 3)}
    resolution = resolve(WITHOUT, *texts, failures=failures)
    assert resolution.reject_reason is not None
    assert (resolution.reject_reason.error, resolution.reject_reason.attempts) == ("http_400", 3)
    assert not resolution.is_unanswered


def test_known_keys_resolve_like_the_chain_they_come_from() -> None:
    keys = [WITH_RETRY_SAMPLING.build_round_request(number).key for number in (1, 2)]
    log = StoredAnswers({keys[0]: "bad", keys[1]: "bad"})
    (resolution,) = resolve_chains(log, [RoundKeys(keys)], parse, {})  # type: ignore[arg-type]
    assert (resolution.n_answers, resolution.next_key) == (2, None)


LONGER = ReaskChain(REQUEST, {"max_tokens": 8, "temperature": 0.7}, can_lengthen=True)


def resolve_answers(texts: Mapping[int, str], *, of_keys_only: bool = False) -> Resolution[str]:
    """Resolve `LONGER` whose rounds were answered with these texts; `of_keys_only` as it is read back from a spool."""
    log = StoredAnswers({LONGER.build_round_request(number).key: text for number, text in texts.items()})
    keys = [LONGER.build_round_request(number).key for number in (1, 2, 3)]
    round_keys = RoundKeys(keys, longer_round=3) if of_keys_only else RoundKeys(chain=LONGER)
    (resolution,) = resolve_chains(log, [round_keys], parse, {})  # type: ignore[arg-type]
    return resolution


def test_a_longer_request_has_more_room_and_leaves_the_keys_of_the_others() -> None:
    schema = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "kind": {"enum": ["a"]},
                "code": {"type": "string", "maxLength": 4},
                "text": {"type": "string", "maxLength": 600},
            },
        },
    }
    chain = ReaskChain(replace(REQUEST, output=build_json_output(schema)), {"max_tokens": 12}, can_lengthen=True)
    request = chain.build_round_request(3)
    assert request.max_tokens == 24
    assert request.output.schema is not None
    properties = request.output.schema["items"]["properties"]
    assert (properties["code"]["maxLength"], properties["text"]["maxLength"]) == (4, 1200)
    without = ReaskChain(chain.request, chain.retry_sampling)
    assert [chain.build_round_request(n).key for n in (1, 2, 4)] == [
        without.build_round_request(n).key for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("of_keys_only", [False, True])
@pytest.mark.parametrize(
    ("texts", "n_answers", "next_round", "is_usable"),
    [
        ({1: "cut"}, 1, 3, False),
        ({1: "bad"}, 1, 2, False),
        ({1: "bad", 2: "cut"}, 2, 3, False),
        ({1: "bad", 2: "bad"}, 2, 4, False),
        ({1: "cut", 3: "good"}, 2, 1, True),
        ({1: "cut", 3: "cut"}, 2, 4, False),
        ({1: "cut", 2: "good"}, 2, 1, True),  # as an earlier release asked
        ({1: "cut", 2: "cut"}, 2, 3, False),
    ],
)
def test_an_answer_that_was_cut_is_followed_by_the_longer_request(
    texts: Mapping[int, str], n_answers: int, next_round: int, is_usable: bool, of_keys_only: bool
) -> None:
    resolution = resolve_answers(texts, of_keys_only=of_keys_only)
    assert (resolution.n_answers, resolution.next_round, resolution.parsed is not None) == (
        n_answers,
        next_round,
        is_usable,
    )
    assert (find_due_request(LONGER, resolution, {}) is None) == (is_usable or next_round == 4)


def test_chains_are_looked_up_together_round_by_round() -> None:
    others = [ReaskChain(Request(REQUEST.messages, ModelRef("m", str(n)), {"max_tokens": 8}, "p", "h")) for n in "23"]
    chains = [WITHOUT, *others]
    log = StoredAnswers({chain.request.key: "good" for chain in chains})
    resolutions = resolve_chains(log, [RoundKeys(chain=chain) for chain in chains], parse, {})  # type: ignore[arg-type]
    assert [resolution.parsed for resolution in resolutions] == ["0: good", "1: good", "2: good"]
    assert log.n_reads == 1
