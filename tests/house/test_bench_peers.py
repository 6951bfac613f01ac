"""What the benchmark of peers relies on, without the peers: they are not installed here."""

from pathlib import Path

import psycopg2
import pytest
from bench.limits import SEED
from bench.peers import environment
from bench.peers.workers import commits

ROWS = """
SELECT (SELECT count(*) FROM processing_state WHERE state = 'processed' AND version = 3 AND lease_token IS NULL),
       (SELECT string_agg(state::text, ' ' ORDER BY version) FROM event_update),
       (SELECT count(*) FROM processed_event_log)
"""


def test_a_peer_writes_the_rows_that_holdfast_writes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATABASE_URL", database_url)
    connection = psycopg2.connect(database_url)
    monkeypatch.setattr(commits._mine, "connection", connection, raising=False)
    with connection, connection.cursor() as cursor:
        cursor.execute(SEED.format(events=1))
    (event_id,) = commits.queued()

    commits.claim_and_settle(event_id)

    with connection, connection.cursor() as cursor:
        cursor.execute(ROWS)
        assert cursor.fetchone() == (1, "queued processing processed", 1)
    with pytest.raises(RuntimeError, match="is not queued"):
        commits.claim_and_settle(event_id)
    connection.close()


def test_oban_is_left_out_where_no_python_is_new_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "_candidates", lambda: iter([tmp_path / "python3.12"]))
    said: list[str] = []
    assert environment.for_oban(say=said.append) is None
    assert "needs Python 3.12" in said[0]


def test_an_environment_is_made_again_when_its_lock_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []

    def uv(*arguments: str) -> None:
        made.append(arguments[0])
        if arguments[0] == "venv":
            python = Path(arguments[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()

    monkeypatch.setattr(environment, "_uv", uv)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "FOLDER", tmp_path / "environments")
    monkeypatch.setattr(environment, "LOCKS", tmp_path)
    lock = tmp_path / "requirements.lock"
    for text in ("one", "one", "two"):
        lock.write_text(text)
        environment.for_peers(say=lambda _: None)
    assert made == ["venv", "pip"] * 2
