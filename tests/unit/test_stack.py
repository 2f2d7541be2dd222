"""The interpreter's last words, as people are shown them."""

from __future__ import annotations

from pathlib import Path

from jobd.pool import stack

POOL = Path(stack.__file__).parent


def test_the_frames_that_led_to_the_job_are_left_out() -> None:
    """Those of the job, what it wrote, and what follows are kept."""
    words = [
        *("hello", "Fatal Python error: Segmentation fault", "", "Stack (most recent call first):"),
        *(
            '  File "/home/ann/tasks.py", line 3 in f',
            '  File "/lib/asyncio/runners.py", line 1 in run',
        ),
    ]
    ours = [
        f'  File "{POOL}/worker.py", line 1 in _call',
        '  File "<frozen runpy>", line 88 in run',
    ]
    after = [
        "",
        "Extension modules: msgspec._core (total: 1)",
        '  File "/home/ann/x.py", line 1 in g',
    ]
    assert stack.without_ours([*words, *ours, *after]) == [*words, *after]
    assert stack.without_ours(words) == words
