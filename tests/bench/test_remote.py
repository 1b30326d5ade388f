"""What servers send is read with bounds, timed, judged and counted; nothing they send is trusted."""

from __future__ import annotations

import json
import time

import pytest

from outrider.bench.remote.compare import find_repetition, judge
from outrider.bench.remote.completion import Asked, Dialect, Streamed, stream_text
from outrider.bench.remote.counters import Counts, counts_in, difference, read_metrics, total
from outrider.bench.remote.endpoint import RefusedError, parse_endpoint
from outrider.bench.remote.sse import MAX_EVENT_BYTES, MAX_STREAM_BYTES, events
from outrider.bench.remote.together import GivenUpError, together
from outrider.bench.workloads import Prompt
from outrider.errors import UsageError
from tests.bench.openai_server import serving, vllm_metrics, words

ASKED = Asked(Prompt("a", "import os"), 0.0, 7, 20)


def reader(*parts: bytes):
    rest = iter(parts)
    return lambda: next(rest, b"")


def write(state, num_texts=1, seconds=20.0, is_chat=False, **asked):
    endpoint, dialect = parse_endpoint(state.url, "--url"), Dialect(is_chat=is_chat)
    body = dialect.body(ASKED._replace(**asked), "tiny")
    return together(endpoint, [lambda line: stream_text(line, endpoint.path + dialect.path, body)] * num_texts, seconds)


class TestEvents:
    def test_however_they_are_cut_they_are_the_same(self):
        stream = b': hello\n\nevent: x\ndata: {"a": 1}\n\ndata:two\r\ndata: lines\r\n\r\ndata: [DONE]\n\n'
        expected = [b'{"a": 1}', b"two\nlines", b"[DONE]"]
        assert list(events(reader(stream))) == expected
        assert list(events(reader(*(bytes([byte]) for byte in stream)))) == expected

    def test_the_last_may_lack_its_end(self):
        assert list(events(reader(b"data: a"))) == [b"a"]

    def test_an_event_that_is_whole_is_not_held_back(self):
        def read():
            yield b"data: a\n\nda"
            pytest.fail("asked for more before giving what is whole")

        parts = read()
        assert next(events(lambda: next(parts))) == b"a"

    @pytest.mark.parametrize(
        ("part", "what"),
        [
            (b"x" * MAX_EVENT_BYTES, "a line"),
            (b"data: " + b"x" * (MAX_EVENT_BYTES // 2) + b"\n", "an event"),
            (b": " + b"x" * 1000 + b"\n", "a text"),
        ],
    )
    def test_without_end_they_are_refused(self, part, what):
        parts = iter([part] * (MAX_STREAM_BYTES // len(part) + 3))
        with pytest.raises(UsageError, match=f"sends {what} of more than"):
            list(events(lambda: next(parts, b"")))


class TestAddresses:
    @pytest.mark.parametrize(
        ("url", "origin", "path"),
        [
            ("http://localhost:8000", "http://localhost:8000", "/v1"),
            ("http://localhost:8000/v1/", "http://localhost:8000", "/v1"),
            ("https://api.example.com", "https://api.example.com:443", "/v1"),
            ("http://[::1]:80/openai/v1", "http://[::1]:80", "/openai/v1"),
            ("http://host/openai", "http://host:80", "/openai/v1"),
        ],
    )
    def test_they_may_lack_v1(self, url, origin, path):
        endpoint = parse_endpoint(url, "--url")
        assert (str(endpoint), endpoint.path) == (origin, path)

    @pytest.mark.parametrize(
        "url",
        [
            *("localhost:8000", "ftp://host", "http://", "", "http://host:port", "http://host:99999", "http://[::1"),
            *(
                "http://user:secret@host",
                "http://host/?key=secret",
                "http://host/#x",
                "http://host/\n",
                "http://host/ä",
            ),
        ],
    )
    def test_what_is_none_is_refused_and_no_secret_is_quoted(self, url):
        with pytest.raises(UsageError, match="--url") as error:
            parse_endpoint(url, "--url")
        assert "secret" not in str(error.value)

    def test_a_key_is_never_shown(self):
        endpoint = parse_endpoint("http://host", "--url", "secret")
        assert "secret" not in repr(endpoint)
        assert endpoint.shown("wrong key secret,\nsorry") == "wrong key ***, sorry"
        assert len(endpoint.shown("x" * 10_000)) < 400


class TestCounters:
    def test_vllm_and_its_ratios(self):
        with serving() as state:
            state.num_tokens = 40
            found = read_metrics(vllm_metrics()(state).encode())
        assert found == ("vllm", Counts(10, 40, 30, (10, 10, 10), 40))
        assert found[1].acceptance_length == 4.0
        assert found[1].acceptance_rate == 0.75
        assert found[1].survival == [1.0, 1.0, 1.0]

    def test_llama_cpp(self):
        lines = ["llamacpp:spec_decode_num_drafts_total 5", "llamacpp:spec_decode_num_draft_tokens_total 1.5e+01",
                 "llamacpp:spec_decode_num_accepted_tokens_total 9", "llamacpp:tokens_predicted_total 14",
                 'llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 4']  # fmt: skip
        assert read_metrics("\n".join(lines).encode()) == ("llamacpp", Counts(5, 15, 9, (0, 4), 14))

    def test_sglang_counts_steps_alone_and_each_rank_the_same_ones(self):
        lines = [
            f'sglang:spec_verify_calls_total{{dp_rank="{dp}",tp_rank="{tp}"}} 10' for dp in (0, 1) for tp in (0, 1)
        ]
        lines += ['sglang:generation_tokens_total{model_name="a b"} 50.0', "sglang:spec_accept_length 3.5"]
        engine, counts = read_metrics("\n".join(lines).encode())
        assert (engine, counts) == ("sglang", Counts(20, None, None, (), 50))
        assert (counts.acceptance_length, counts.acceptance_rate, counts.survival) == (2.5, None, [])

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>", b"\xff\xfe", b"vllm:generation_tokens_total 5", b"vllm:spec_decode_num_drafts_total NaN",
         b"vllm:spec_decode_num_drafts_total -1", b"vllm:spec_decode_num_drafts_total 1e300",
         b"vllm:spec_decode_num_drafts_total{", b"vllm:spec_decode_num_drafts_total e"],
    )  # fmt: skip
    def test_what_is_no_counter_is_passed_over(self, content):
        assert read_metrics(content) is None

    def test_a_position_without_bounds_takes_no_memory(self):
        lines = [
            "vllm:spec_decode_num_drafts_total 1",
            'vllm:spec_decode_num_accepted_tokens_per_pos_total{position="99999999999"} 1',
        ]
        assert read_metrics("\n".join(lines).encode())[1].accepted_at == ()

    def test_differences_and_sums(self):
        before, after = Counts(1, 4, 2, (1,), None), Counts(3, 12, 5, (2, 3), None)
        assert difference(before, after) == Counts(2, 8, 3, (1, 3), None)
        assert difference(after, before) is None  # the server began anew
        assert total([before, after]) == Counts(4, 16, 7, (3, 3), None)
        assert total([]) is None

    def test_of_one_text_in_its_answer(self):
        counts = counts_in({"timings": {"draft_n": 40, "draft_n_accepted": 30, "predicted_n": 41}})
        assert counts == Counts(10, 40, 30, (), 41)
        assert counts.acceptance_length == 4.0
        metrics = {"num_spec_steps": 4, "num_draft_tokens": 8, "num_accepted_draft_tokens": 5}
        document = {"metrics": {"speculative_decoding": {**metrics, "acceptance_histogram": [1, 1, 2]}}}
        assert counts_in(document) == Counts(4, 8, 5, (3, 2), None)

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"timings": None},
            {"timings": {"predicted_n": 3}},
            {"metrics": []},
            {"metrics": {"speculative_decoding": 1}},
        ],
    )
    def test_an_answer_that_says_nothing(self, answer):
        assert counts_in(answer) is None


class TestJudgement:
    def streamed(self, pieces, num_tokens=None, is_counted=True):
        times = tuple(float(number) for number in range(len(pieces)))
        return Streamed(text="".join(pieces), times=times, num_tokens=num_tokens or len(pieces), is_counted=is_counted)

    def test_a_good_text_is_measured(self):
        assert judge(self.streamed(words(40))) == (None, None)

    def test_a_loop_is_found_in_words_and_placed_in_tokens(self):
        text = self.streamed([*words(40), *[" 0,"] * 60], num_tokens=200)
        fault, loop = judge(text)
        assert fault is None
        assert loop.period == 3
        assert 100 < loop.start < 160  # 40 pieces of six characters or seven, then 60 of three

    @pytest.mark.parametrize(
        ("pieces", "num_tokens", "why"),
        [
            ([" 0,"] * 60, None, "repeats 3 words from about token"),
            (words(15), None, "ends after 15 tokens"),
            ([" ".join(words(40))], 40, "came in one piece"),
            ([], None, "ends after 0 tokens"),
        ],
    )
    def test_others_are_named(self, pieces, num_tokens, why):
        assert judge(self.streamed(pieces, num_tokens))[0].startswith(why)

    def test_an_empty_text_has_no_loop(self):
        assert find_repetition(self.streamed([])) is None


class TestStreams:
    def test_a_text_comes_with_its_times_and_its_tokens(self):
        with serving(first_delay=0.05, piece_delay=0.004, tokens_per_piece=3, cached=8) as state:
            (text,) = write(state)
        assert text.text == "".join(words(20, seed=7))
        assert (text.num_tokens, text.is_counted, len(text.times)) == (60, True, 20)
        assert (text.num_prompt_tokens, text.num_cached_tokens, text.finish_reason) == (10, 8, "length")
        # Sleeping is never shorter than asked for.
        assert text.first_seconds >= 0.05
        assert text.last_seconds >= text.first_seconds + 19 * 0.004
        assert text.seconds_per_further_token == pytest.approx((text.last_seconds - text.first_seconds) / 59)
        assert len(text.gaps) == 19

    def test_without_usage_pieces_are_counted_and_it_is_said(self):
        with serving(has_usage=False) as state:
            (text,) = write(state)
        assert (text.num_tokens, text.is_counted) == (20, False)

    def test_a_chat_is_asked_as_one(self):
        messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"})
        with serving() as state:
            (text,) = write(state, is_chat=True, prompt=Prompt("a", "", None, messages))
        assert text.text == "".join(words(20, seed=7))
        assert state.bodies[0]["messages"] == list(messages)
        assert state.paths == ["/v1/chat/completions"]

    def test_thoughts_are_text(self):
        def think(handler, body):
            handler.begin()
            for delta in ({"reasoning_content": "a"}, {"reasoning": "b"}, {"content": "c"}, {"tool_calls": []}, None):
                handler.event({"choices": [{"delta": delta}]})
            handler.end_text(["a", "b", "c"], body)
            return True

        with serving(handle=think) as state:
            (text,) = write(state, is_chat=True)
        assert (text.text, len(text.times)) == ("abc", 3)

    def test_a_server_may_end_a_stream_by_hanging_up(self):
        def write_and_go(handler, body):
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Connection", "close")
            handler.end_headers()
            for piece in ("a", "b"):
                handler.wfile.write(b"data: " + json.dumps(handler.choice(piece, "stop")).encode() + b"\n\n")
            return True

        with serving(handle=write_and_go) as state:
            (text,) = write(state)
        assert (text.text, text.finish_reason) == ("ab", "stop")

    def test_sixteen_run_at_once_and_each_is_its_own(self):
        with serving(piece_delay=0.005) as state:
            texts = write(state, num_texts=16)
        assert state.most_running == 16
        assert {text.text for text in texts} == {"".join(words(20, seed=7))}

    def test_counts_of_an_answer_are_kept(self):
        with serving(timings={"draft_n": 4, "draft_n_accepted": 3, "predicted_n": 20}) as state:
            (text,) = write(state)
        assert text.counts == Counts(16, 4, 3, (), 20)

    def test_one_byte_now_and_then_does_not_last_for_ever(self):
        def drip(handler, body):
            handler.begin()
            while True:
                handler.send(b":")
                handler.wfile.flush()
                time.sleep(0.02)

        with serving(handle=drip) as state, pytest.raises(UsageError, match=r"not done after 0\.3 s: raise --timeout"):
            write(state, seconds=0.3)

    def test_an_interruption_ends_all_at_once(self):
        body = Dialect(is_chat=False).body(ASKED, "tiny")
        tasks = [lambda line: stream_text(line, "/v1/completions", body)] * 3
        with serving(first_delay=5.0) as state:
            endpoint = parse_endpoint(state.url, "--url")
            with pytest.raises(GivenUpError):
                together(endpoint, tasks, 20.0, lambda: len(state.bodies) == 3)

    def test_one_that_fails_ends_the_others(self):
        def fail(handler, body):
            handler.answer(500, "out of memory", "text/plain")
            return True

        with serving(handle=fail) as state, pytest.raises(RefusedError, match=r"500 .*out of memory"):
            write(state, num_texts=4)


def raw(*parts):
    def handle(handler, body):
        handler.begin()
        for part in parts:
            handler.send(part)
        handler.wfile.write(b"0\r\n\r\n")
        return True

    return handle


def cut(handler, body):
    handler.begin()
    handler.event(handler.choice("a"))
    handler.cut()
    return True


def answer(status, document, kind="application/json"):
    def handle(handler, body):
        handler.answer(status, document, kind)
        return True

    return handle


DONE = b"data: [DONE]\n\n"
FAULTS = {
    "cut": (cut, "the connection with http://.* was cut|ended a text before its end"),
    "silently over": (raw(b'data: {"choices": [{"text": "a"}]}\n\n'), "ended a text before its end"),
    "no stream": (answer(200, {"choices": [{"text": "all at once"}]}), "with application/json and no stream"),
    "html": (answer(200, "<html>Welcome</html>", "text/html"), "text/html and no stream of events: <html>Welcome"),
    "no json": (raw(b"data: {nonsense\n\n"), "an event that is no JSON: {nonsense"),
    "not utf-8": (raw(b"data: \xff\xfe\n\n"), "an event that is no JSON"),
    "deep": (raw(b"data: " + b"[" * 100_000 + b"\n\n"), "an event that is no JSON"),
    "a list": (raw(b"data: [1]\n\n"), "none of OpenAI's API"),
    "choices": (raw(b'data: {"choices": 5}\n\n'), "none of OpenAI's API"),
    "choice": (raw(b'data: {"choices": [5]}\n\n'), "none of OpenAI's API"),
    "delta": (raw(b'data: {"choices": [{"delta": "x"}]}\n\n'), "none of OpenAI's API"),
    "text": (raw(b'data: {"choices": [{"text": 5}]}\n\n'), "none of OpenAI's API"),
    "no choices": (raw(b'data: {"id": "x"}\n\n', DONE), "streams no choices"),
    "error within": (raw(b'data: {"error": {"message": "out of memory"}}\n\n'), "fails within a text: out of memory"),
    "moved": (answer(307, ""), "answers 307 .*name the address that it moved to"),
    "busy": (answer(503, {"message": "full"}), "answers 503 .*: full; lower --concurrency"),
    "unprocessable": (answer(422, {"detail": [{"msg": "no"}]}), r'answers 422 .*"msg": "no"'),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong_is_one_line(name):
    handle, message = FAULTS[name]
    with serving(handle=handle) as state, pytest.raises(UsageError, match=message) as error:
        write(state)
    assert len(str(error.value)) < 600


def test_a_server_that_objects_is_asked_otherwise():
    dialect = Dialect(is_chat=False)
    endpoint = parse_endpoint("http://host", "--url")

    def after(dialect, status, message):
        return dialect.after(RefusedError(endpoint, "/v1/completions", status, message))

    assert after(dialect, 404, "Not Found").is_chat
    assert after(Dialect(is_chat=True), 404, "no such model") is None
    assert after(dialect, 401, "stream_options") is None
    without = after(dialect, 400, "Unexpected keys: stream_options")
    assert without.left_out == ("stream_options",)
    assert "stream_options" not in without.body(ASKED, "tiny")
    assert after(without, 400, "Unexpected keys: stream_options") is None  # it was not sent: no endless loop
    renamed = after(dialect, 400, "use max_completion_tokens instead of max_tokens")
    assert json.dumps(renamed.body(ASKED, "tiny")).count("max_completion_tokens") == 1
