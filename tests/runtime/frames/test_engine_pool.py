import threading
from queue import LifoQueue
from typing import Any

import pytest
from fastseg_runtime.frames.engine_pool import EnginePool


def test_a_close_that_ctrl_c_interrupts_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    runners: list[Any] = ["first", "second"]
    pool = EnginePool(runners, lambda: closed.append(True))
    real_get, taken = LifoQueue.get, []

    def get_one_then_interrupt(queue: Any) -> Any:
        if taken:
            raise KeyboardInterrupt
        taken.append(real_get(queue))
        return taken[0]

    monkeypatch.setattr(LifoQueue, "get", get_one_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.close()
    monkeypatch.undo()
    assert not closed
    with pool.engine() as one, pool.engine() as other:
        assert sorted([one, other]) == runners
    again = threading.Thread(target=pool.close, daemon=True)
    again.start()
    again.join(timeout=30)
    assert closed == [True]
    with pytest.raises(RuntimeError, match="session is closed"), pool.engine():
        pass
