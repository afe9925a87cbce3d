"""A private Valkey (or Redis): password, 127.0.0.1 alone, every write in an append-only file."""

import signal
import subprocess
from pathlib import Path
from typing import ClassVar

import redis

from fintech_core.embedded.binaries import valkey_program
from fintech_core.embedded.files import write_private
from fintech_core.embedded.servers import PrivateServer

# `noeviction`: it is a broker too, and a broker must not forget messages to make room.
CONFIGURATION = """bind 127.0.0.1
port {port}
requirepass {password}
dir ./
appendonly {durable}
save ""
maxmemory-policy noeviction
"""


class ValkeyServer(PrivateServer):
    """One server in one folder; `durable=False` keeps nothing on disk, for tests."""

    name: ClassVar[str] = "Valkey"
    stop_signals = ((signal.SIGTERM, 5.0),)

    def __init__(self, folder: Path, *, durable: bool = True, **options: object) -> None:
        super().__init__(folder, **options)  # type: ignore[arg-type]
        self.program = valkey_program()
        self.durable = durable
        self.data = self.folder / "data"

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"redis://:{self.password('default')}@127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        """Whether it replies to PING with our password; not while it still loads its data."""
        client = redis.Redis.from_url(
            self.url, socket_connect_timeout=2, socket_timeout=2, retry=None
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _launch(self) -> subprocess.Popen[bytes]:
        """The password goes through a private file: arguments are visible to every user."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        configuration = self.folder / "valkey.conf"
        write_private(
            configuration,
            CONFIGURATION.format(
                port=self.port,
                password=self.password("default"),
                durable="yes" if self.durable else "no",
            ),
        )
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(self.program), str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.data,
            )
