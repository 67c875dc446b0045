import time

from remote_bench.agent.frames import FrameLog
from remote_bench.messages import Messages, encode


def test_frames_go_out_before_their_message_gets_too_long():
    sent = []
    log = FrameLog(sent.append)
    begin = time.monotonic()
    for count in range(10_000):
        assert sent == [], count
        log.add(begin, begin + 0.123456789, (0.0123456789, 0.123456789, 0.0123456789))
    [columns] = sent
    assert len(columns["t"]) == 10_000
    assert Messages().feed(encode("frames", columns=columns))[0]["columns"] == columns


def test_frames_go_out_twice_a_second():
    sent = []
    log = FrameLog(sent.append)
    begin = time.monotonic()
    log.add(begin, begin + 0.4, (0.1, 0.2, 0.1))
    assert sent == []
    log.add(begin, begin + 0.6, (0.1, 0.4, 0.1))
    assert [len(columns["t"]) for columns in sent] == [2]
