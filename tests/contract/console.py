"""What tests of the console look at: words on a page, hidden fields of its forms, the audit log."""

import html
import re
from typing import Any

import httpx
from sqlalchemy import text

__all__ = ["audited", "hidden", "seen", "text_of", "words_of"]


def words_of(answer: httpx.Response) -> str:
    """What somebody reads on a page, more or less."""
    return _words(answer.text.partition("<main")[2])


def text_of(answer: httpx.Response) -> str:
    """What somebody reads on a page that there is."""
    assert answer.status_code == 200, answer.text
    return words_of(answer)


def seen(answer: httpx.Response, region: str = "main") -> str:
    """What somebody reads of the element with this id, or of the page."""
    assert answer.status_code in (200, 201, 409), answer.text
    end = "</main>" if region == "main" else "</section>"
    found = re.search(rf'id="{region}"[^>]*>(.*?){end}', answer.text, re.DOTALL)
    assert found is not None, region
    return _words(found[1])


def hidden(page: str, action: str) -> dict[str, str]:
    """The hidden fields of the form with this address."""
    form = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>.*?</form>', page, re.DOTALL)
    assert form is not None, action
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[0])
    }


def audited(ingest: Any, name: str, value: str) -> list[str]:
    """The actions in the audit log, oldest first, whose detail has this."""
    found = text("SELECT action FROM audit_log WHERE detail->>:name = :value ORDER BY id")
    with ingest.database.transaction() as session:
        return list(session.scalars(found, {"name": name, "value": value}))


def _words(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())
