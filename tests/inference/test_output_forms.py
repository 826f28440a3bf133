"""Forms of constraints: one probe per endpoint finds the server's, answers record it, a refusal is no bad row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mvl_assets.inference.client.output_forms import is_form_error
from mvl_assets.inference.endpoint import EndpointError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.request import ModelRef, OutputFormat, Request, build_choice_output, build_json_output
from mvl_assets.inference.tagged_blocks import describe_blocks, parse_blocks
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.lake.lake import Lake
from tests.servers import serving

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["pairs"],
    "properties": {
        "pairs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["kind", "answer"],
                "properties": {"kind": {"enum": ["read", "plan"]}, "answer": {"type": "string", "maxLength": 90}},
            },
        }
    },
}


def build_requests(output: OutputFormat, n: int = 5) -> list[Request]:
    return [
        Request(({"role": "user", "content": f"{number}?"},), ModelRef("m", "1"), {"max_tokens": 8}, "p", "h", output)
        for number in range(n)
    ]


@pytest.mark.parametrize(
    ("config", "form", "n_refused"),
    [
        (FakeServerConfig(), "vllm", 0),
        (FakeServerConfig(output_form="openai"), "openai", 1),
        (FakeServerConfig(output_form="none"), "none", 2),
        (FakeServerConfig(ignores_forms=True), "none", 0),
    ],
)
def test_one_probe_of_an_endpoint_finds_its_form(lake: Lake, config: FakeServerConfig, form: str, n_refused: int):
    with serving(config) as (server, endpoint):
        endpoint = replace(endpoint, output_form="auto")
        log = lake.get_answer_log("rewritten", "s")
        outcome = answer_all(build_requests(build_json_output(SCHEMA), 20), endpoints=[endpoint], log=log)
        assert (outcome.answered, outcome.failures) == (20, [])
        assert server.fault_counts["form_refused"] == n_refused
        assert server.n_form_probes == (2 if config.ignores_forms else 0 if form == "none" else 1)
    assert {row["output_form"] for row in log.table.iter_rows(["output_form"])} == {form}


@pytest.mark.parametrize(
    ("config", "given"),
    [
        (FakeServerConfig(output_form="openai"), True),
        (FakeServerConfig(output_form="openai", logprobs="ignored"), False),
        (FakeServerConfig(output_form="none", logprobs="refused"), False),
        (FakeServerConfig(output_form="none"), True),
        (FakeServerConfig(), True),
    ],
)
def test_a_probe_finds_whether_there_are_log_probabilities(lake: Lake, config: FakeServerConfig, given: bool):
    config.text_by_marker = {"?": "Yes"}
    with serving(config) as (server, endpoint):
        server.record_bodies = True
        endpoint = replace(endpoint, output_form="auto")
        log = lake.get_answer_log("judged", "s")
        outcome = answer_all(build_requests(build_choice_output("Yes", "No"), 20), endpoints=[endpoint], log=log)
        assert (outcome.answered, outcome.failures) == (20, [])
        assert {"logprobs" in body for body in server.bodies} == {given}
    stored = {row["first_token_logprobs"] for row in log.table.iter_rows(["first_token_logprobs"])}
    assert (None not in stored) == given


def test_plain_text_needs_no_probe(lake: Lake):
    with serving(FakeServerConfig()) as (server, endpoint):
        log = lake.get_answer_log("rewritten", "s")
        answer_all(build_requests(OutputFormat()), endpoints=[replace(endpoint, output_form="auto")], log=log)
        assert server.n_form_probes == 0
    assert {row["output_form"] for row in log.table.iter_rows(["output_form"])} == {None}


@pytest.mark.parametrize("output", [build_choice_output("Yes", "No"), build_json_output(SCHEMA)])
def test_a_server_that_refuses_the_form_ends_the_run_and_rejects_no_row(lake: Lake, output: OutputFormat):
    with (
        serving(FakeServerConfig(output_form="none")) as (_, endpoint),
        pytest.raises(EndpointError, match="refuses the form of output 'vllm'") as raised,
    ):
        answer_all(build_requests(output), endpoints=[endpoint], log=lake.get_answer_log("judged", "s"))
    assert "output_form" in (raised.value.hint or "")


def test_a_bad_row_stays_one_where_the_server_knows_the_form(lake: Lake):
    with serving(FakeServerConfig(fault_by_marker={"2?": "400"})) as (_, endpoint):
        requests = build_requests(build_json_output(SCHEMA))
        outcome = answer_all(requests, endpoints=[endpoint], log=lake.get_answer_log("rewritten", "s"))
    assert (outcome.answered, [failure.error for failure in outcome.failures]) == (4, ["http_400"])


def test_without_constraints_the_message_asks_for_blocks(lake: Lake):
    with serving(FakeServerConfig(output_form="none")) as (server, endpoint):
        server.record_bodies = True
        log = lake.get_answer_log("rewritten", "s")
        endpoint = replace(endpoint, output_form="none")
        answer_all(build_requests(build_json_output(SCHEMA), 1), endpoints=[endpoint], log=log)
        (body,) = server.bodies
    assert "response_format" not in body
    assert body["messages"][0]["content"].endswith(describe_blocks(SCHEMA))


BLOCKS = r"""Here it is:
<pair><kind>read</kind>
<answer>
It is \frac{1}{2}, "as" the <b>text</b> says.
</answer></pair>
<PAIR><kind>plan</kind><answer>Two</answer></PAIR>"""


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (BLOCKS, [r'It is \frac{1}{2}, "as" the <b>text</b> says.', "Two"]),
        ('Sure: {"pairs": [{"kind": "read", "answer": "One"}]} I hope so.', ["One"]),
        ('```json\n{"pairs": [{"kind": "read", "answer": "One"}]}\n```\nDone.', ["One"]),
        ("nothing of the kind", []),
        ("<pair><kind>read</kind><answer>cut", []),
    ],
)
def test_blocks_and_json_among_words_are_read(text: str, answers: list[str]):
    assert [pair.get("answer") for pair in parse_blocks(SCHEMA, text)["pairs"]] == answers


@pytest.mark.parametrize("text", ["<pair>" * 5000, "<" * 20_000, "{" * 20_000, "```\n" * 5000, "[" * 50_000])
def test_hostile_text_is_read_at_once(text: str):
    parse_blocks(SCHEMA, text)


def test_errors_about_the_form_are_told_from_others():
    assert is_form_error("Unknown parameter: 'structured_outputs'.")
    assert is_form_error("response_format.type json_schema is not supported")
    assert not is_form_error("This model's maximum context length is 4096 tokens")
