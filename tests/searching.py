"""Where a text is: every column of every table, every key of Redis, every log. For tests of what may be nowhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import redis
from psycopg2 import sql

__all__ = ["in_database", "in_logs", "in_redis"]

_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND data_type IN ('text', 'character varying', 'jsonb', 'json', 'bytea', 'ARRAY', 'xml')
ORDER BY table_name, column_name
"""

_HAS = (
    "SELECT EXISTS (SELECT FROM {table} WHERE strpos({shown}, %(plain)s) > 0 OR strpos({shown}, %(hexadecimal)s) > 0)"
)


def in_database(url: str, wanted: str) -> list[str]:
    """Columns that have an ASCII text anywhere in a row, as ``table.column``."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_COLUMNS)
        return [f"{table}.{column}" for table, column in cursor.fetchall() if _has(cursor, table, column, wanted)]


def in_redis(url: str, wanted: str) -> list[str]:
    """Keys that have an ASCII text in their name or in what they hold."""
    client = redis.Redis.from_url(url)
    try:
        keys = sorted(client.scan_iter(count=1000))
        return [key.decode() for key in keys if wanted.encode() in key + _held(client, key)]
    finally:
        client.close()


def in_logs(folder: Path, wanted: str) -> list[str]:
    """Lines that have it, of every log in a folder, each with its file's name."""
    return [
        f"{log.name}: {line}"
        for log in sorted(folder.glob("*.log"))
        for line in log.read_text(errors="replace").splitlines()
        if wanted in line
    ]


def _has(cursor: Any, table: str, column: str, wanted: str) -> bool:
    shown = sql.SQL("CAST({} AS text)").format(sql.Identifier(column))
    asked = sql.SQL(_HAS).format(table=sql.Identifier(table), shown=shown)
    cursor.execute(asked, {"plain": wanted, "hexadecimal": wanted.encode().hex()})
    return bool(cursor.fetchone()[0])


def _held(client: "redis.Redis", key: bytes) -> bytes:
    """What a key holds, as text; nothing where it is gone by now."""
    reads: dict[bytes, Callable[[], Any]] = {
        b"string": lambda: client.get(key), b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1), b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1), b"stream": lambda: client.xrange(key),
    }  # fmt: skip
    kind: Any = client.type(key)
    return repr(reads[kind]()).encode() if kind in reads else b""
