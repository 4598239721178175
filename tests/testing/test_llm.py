"""The fake language model does to a client what its script says, and forgets nothing that it was asked."""

import asyncio
import json

import pytest

from journeyman.testing.llm import (
    FakeLLM,
    Reply,
    Request,
    empty,
    filtered,
    hang,
    long,
    malformed,
    ok,
    refusal,
    reset,
    status,
    stream_cut,
    trickle,
    truncated,
)

BODY = b'{"model": "small"}'


async def post(llm: FakeLLM, body: bytes = BODY) -> bytes:
    """The whole response to one request, as it comes over the wire."""
    host, _, port = llm.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nX-Test: Yes\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        return await reader.read()
    finally:
        writer.close()


def content(response: bytes) -> object:
    return json.loads(response.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]


async def test_the_script_is_followed_and_its_last_reply_repeated() -> None:
    async with FakeLLM([status(429, headers={"Retry-After": "2"}), ok("One."), ok("Two.")]) as llm:
        first = await post(llm)
        rest = [content(await post(llm)) for _ in range(3)]

    assert first.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nRetry-After: 2\r\n" in first
    assert rest == ["One.", "Two.", "Two."]


async def test_without_a_script_every_answer_is_a_summary() -> None:
    async with FakeLLM() as llm:
        assert content(await post(llm)) == "A short summary."


async def test_a_reply_can_be_made_of_its_request() -> None:
    def echo(request: Request) -> Reply:
        return ok(request.headers["x-test"])

    async with FakeLLM([echo]) as llm:
        assert content(await post(llm)) == "Yes"


async def test_requests_are_kept_up_to_a_bound_and_counted_beyond_it() -> None:
    async with FakeLLM(requests_max=2) as llm:
        for n in range(3):
            await post(llm, b"%d" % n)

        assert llm.calls == 3
        assert [request.body for request in llm.requests] == [1, 2]
        assert llm.requests[0].method == "POST"
        assert llm.requests[0].path == "/v1/chat/completions"
        assert llm.requests[0].headers["x-test"] == "Yes"


async def test_a_body_that_is_no_json_is_none() -> None:
    async with FakeLLM() as llm:
        await post(llm, b"{oops")

        assert llm.requests[0].body is None


async def test_a_test_can_wait_until_it_was_asked() -> None:
    async with FakeLLM() as llm, asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(llm.wait_for_calls(2))
        await post(llm)
        assert not waiting.done()
        await post(llm)


async def test_too_large_a_request_is_refused() -> None:
    async with FakeLLM() as llm:
        host, _, port = llm.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 8000001\r\n\r\n")
        response = await reader.read()
        writer.close()

        assert response.startswith(b"HTTP/1.1 413 ")
        assert llm.calls == 0


async def test_a_truncated_reply_ends_before_the_length_that_it_promised() -> None:
    async with FakeLLM([truncated()]) as llm:
        head, _, body = (await post(llm)).partition(b"\r\n\r\n")

    promised = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert 0 < len(body) < promised


async def test_a_stream_that_is_cut_ends_without_its_last_chunk() -> None:
    async with FakeLLM([stream_cut()]) as llm:
        head, _, body = (await post(llm)).partition(b"\r\n\r\n")

    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    size, _, rest = body.partition(b"\r\n")
    assert len(rest) == int(size, 16) + 2
    assert not body.endswith(b"0\r\n\r\n")


async def test_a_reset_reply_resets_the_connection() -> None:
    async with FakeLLM([reset()]) as llm:
        with pytest.raises(ConnectionResetError):
            await post(llm)


async def test_a_hanging_reply_waits_for_the_client() -> None:
    async with FakeLLM([hang(), ok("Next.")]) as llm:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await post(llm)

        assert content(await post(llm)) == "Next."


async def test_the_end_of_the_test_ends_a_hanging_reply() -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks, FakeLLM([hang()]) as llm:
        hanging = tasks.create_task(post(llm))
        await llm.wait_for_calls(1)

    assert hanging.result() == b""


async def test_a_trickling_reply_comes_byte_by_byte_until_the_client_or_the_test_ends() -> None:
    async with asyncio.timeout(5), FakeLLM([trickle()]) as llm:
        host, _, port = llm.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

        assert [len(await reader.read(100)) for _ in range(3)] == [1, 1, 1]
    writer.close()


def test_the_other_replies_are_what_their_names_say() -> None:
    assert json.loads(empty().body)["choices"][0]["message"]["content"] == ""
    assert len(json.loads(long(5_000).body)["choices"][0]["message"]["content"]) > 5_000
    assert json.loads(refusal("No.").body)["choices"][0]["message"]["refusal"] == "No."
    assert json.loads(filtered().body)["choices"][0]["finish_reason"] == "content_filter"
    assert json.loads(status(400, error_code="x").body)["error"]["code"] == "x"
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(malformed().body)
