import json

from hypothesis import given
from hypothesis import strategies as st
from remote_bench.link.lines import SHELL_SIGN, EventLines

TOKEN = "5ecret"
EVENTS = [{"event": "hello", "text": "grün \n @5ecret"}, {"event": "progress", "done": 1.5}]
NOISE = st.binary(max_size=40).filter(lambda noise: b"@5ecret" not in noise)


def line_of(event: dict) -> bytes:
    return f"@{TOKEN} {json.dumps(event)}\n".encode()


@given(st.lists(NOISE, min_size=3, max_size=3), st.data())
def test_events_come_out_whole_whatever_noise_is_between_and_wherever_chunks_are_cut(noise, data):
    stream = b"".join(
        [noise[0] + b"\n", line_of(EVENTS[0]), noise[1] + b"\n", line_of(EVENTS[1]), noise[2]]
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    lines, found = EventLines(TOKEN), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += lines.feed(stream[start:end])
    assert found == EVENTS


@given(st.binary(max_size=200))
def test_nothing_that_follows_the_token_raises(content):
    events = EventLines(TOKEN).feed(b"@5ecret " + content + b"\n")
    assert all(isinstance(event["event"], str) for event in events)


def test_a_greeting_without_a_line_break_before_an_event_does_not_hide_it():
    assert EventLines(TOKEN).feed(b"Welcome! " + line_of(EVENTS[1])) == [EVENTS[1]]


def test_lines_of_another_run_are_noise_and_the_end_of_the_noise_is_kept():
    lines = EventLines(TOKEN)
    assert lines.feed(b'@other {"event": "hello"}\nThis account is locked.\n') == []
    assert lines.noise.endswith("This account is locked.")


def test_a_line_without_an_end_takes_no_endless_memory():
    lines = EventLines(TOKEN)
    for _ in range(40):
        lines.feed(b"x" * 100_000)
    assert lines.feed(b"\n" + line_of(EVENTS[0])) == [EVENTS[0]]
    assert len(lines._rest) + len(lines.noise) < 2_000_000


def test_json_that_is_nested_without_end_is_noise():
    assert EventLines(TOKEN).feed(b"@5ecret " + b"[" * 100_000 + b"\n") == []


def test_the_shell_s_sign_of_life_needs_no_token_and_is_no_noise():
    lines = EventLines(TOKEN)
    assert lines.feed(f"Welcome! {SHELL_SIGN}\n".encode()) == [{"event": "shell"}]
    assert lines.noise == ""
