"""One command of Redis at a time, without the layers of redis-py's client, which take longer."""

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

from redis import ConnectionPool, Redis
from redis.exceptions import ResponseError


class OwnRedis(threading.local):
    """A connection to Redis for each thread: to take one from a pool and give it back takes nearly
    as long as the command. The client gives it back when the thread ends.
    """

    def __init__(self, pool: Callable[[], ConnectionPool]) -> None:
        """`pool` says where a thread gets its connection, once; each thread runs this anew."""
        self._pool = pool

    @cached_property
    def client(self) -> Redis:
        return Redis(connection_pool=self._pool(), single_connection_client=True)

    def ask(self, *command: str | int) -> Any:
        """Redis's answer to one command, with as many tries as the pool's settings allow.

        As redis-py's client asks. A connection that was lost is made anew by the next try.
        """
        redis: Any = self.client.connection

        def once() -> Any:
            try:
                redis.send_command(*command)
                return redis.read_response()
            except ResponseError:
                raise
            except BaseException:  # or the next command would read this one's answer
                redis.disconnect()
                raise

        return redis.retry.call_with_retry(once, lambda _: redis.disconnect())
