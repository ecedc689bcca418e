"""Makes items in a thread of its own, ahead of the code that uses them: files are decoded while the network runs."""

import collections
import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")

AHEAD = 2
"""Items that are made ahead: a large image takes half a gigabyte, so there are few."""


def read_ahead(items: Iterator[Item], count: int = AHEAD) -> Iterator[Item]:
    """Yields what an iterator gives, in its order; the next items are made in another thread meanwhile.

    An exception of the iterator is raised where its item would have come. When this generator is closed, the iterator is closed too.

    Args:
        items: is used in the other thread only, with the context variables of this one.
        count: items that wait at most.
    """
    end = object()

    def advance() -> object:
        return next(items, end)

    context = contextvars.copy_context()
    pool = ThreadPoolExecutor(1, thread_name_prefix="kfpn-read-ahead")
    try:
        waiting = collections.deque(pool.submit(context.run, advance) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(context.run, advance))
            yield cast(Item, item)
    finally:
        pool.shutdown(cancel_futures=True)
        if close := getattr(items, "close", None):
            close()
