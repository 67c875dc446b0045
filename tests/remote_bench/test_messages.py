import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_bench.messages import SHELL_SIGN, Messages, encode

TOKEN = "5ecret"
EVENTS = [{"event": "hello", "text": "grün \n @5ecret"}, {"event": "progress", "done": 1.5}]
NOISE = st.binary(max_size=40).filter(lambda noise: b"@5ecret" not in noise)


@given(st.lists(NOISE, min_size=3, max_size=3), st.data())
def test_events_come_out_whole_whatever_noise_is_between_and_wherever_chunks_are_cut(noise, data):
    lines = [encode(token=TOKEN, **event) for event in EVENTS]
    stream = b"".join([noise[0], b"\n", lines[0], noise[1], b"\n", lines[1], noise[2]])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    lines, found = Messages(TOKEN), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += lines.feed(stream[start:end])
    assert found == EVENTS


@given(st.binary(max_size=200))
def test_nothing_that_follows_the_token_raises(content):
    events = Messages(TOKEN).feed(b"@5ecret " + content + b"\n")
    assert all(isinstance(event["event"], str) for event in events)


def test_a_greeting_without_a_line_break_before_an_event_does_not_hide_it():
    assert Messages(TOKEN).feed(b"Welcome! " + encode(token=TOKEN, **EVENTS[1])) == [EVENTS[1]]


def test_lines_of_another_run_are_noise_and_the_end_of_the_noise_is_kept():
    lines = Messages(TOKEN)
    assert lines.feed(b'@other {"event": "hello"}\nThis account is locked.\n') == []
    assert lines.noise.endswith("This account is locked.")


def test_a_line_without_an_end_takes_no_endless_memory():
    lines = Messages(TOKEN)
    for _ in range(40):
        lines.feed(b"x" * 100_000)
    assert lines.feed(b"\n" + encode(token=TOKEN, **EVENTS[0])) == [EVENTS[0]]
    assert len(lines._rest) + len(lines.noise) < 2_000_000


def test_json_that_is_nested_without_end_is_noise():
    assert Messages(TOKEN).feed(b"@5ecret " + b"[" * 100_000 + b"\n") == []


def test_the_shell_s_sign_of_life_needs_no_token_and_is_no_noise():
    lines = Messages(TOKEN)
    assert lines.feed(f"Welcome! {SHELL_SIGN}\n".encode()) == [{"event": "shell"}]
    assert lines.noise == ""


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.data())
def test_bodies_come_out_whole_wherever_chunks_are_cut(bodies, data):
    stream = b"".join(encode("data", n=n, body=len(body)) + body for n, body in enumerate(bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    messages, found = Messages(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += messages.feed(stream[start:end])
    assert [message["body"] for message in found] == bodies
    assert messages.noise == ""


@pytest.mark.parametrize("body", [-1, 2 << 20, "x", 1.5, None])
def test_a_body_of_no_size_that_is_taken_is_noise(body):
    messages = Messages()
    assert messages.feed(encode("data", body=body)) == [] and messages.noise


def test_what_others_may_write_between_has_no_body():
    assert Messages(TOKEN).feed(encode("chunk", TOKEN, body=3) + b"abc") == []


@pytest.mark.parametrize(("size", "taken"), [(1 << 20, 1), ((1 << 20) + 1, 0)])
def test_a_body_of_a_megabyte_is_taken_and_no_longer_one(size, taken):
    assert len(Messages().feed(encode("data", body=size) + bytes(size))) == taken


@pytest.mark.parametrize(("size", "kept"), [(1 << 20, 1), ((1 << 20) + 1, 0)])
def test_a_line_of_a_megabyte_is_waited_for_and_no_longer_one(size, kept):
    start = encode("probe", TOKEN, text="").replace(b'"", "event": "probe"}\n', b'"')
    end = b'", "event": "probe"}\n'
    messages = Messages(TOKEN)
    assert messages.feed(start + b"x" * (size - len(start))) == []
    assert len(messages.feed(end)) == kept
