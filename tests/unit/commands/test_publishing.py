"""What `full-pass publish` makes of its options."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.commands.publishing import require_acceptable, to_event
from consumer.errors import ConfigurationError
from consumer.kafka.storage_paths import AllowedPaths

USER = "7f0b0a53-6f7b-4a55-9a7e-3d2b0c7f8a10"
NOON = "2026-11-24T12:00:00Z"


def test_the_options_become_the_event_that_a_publisher_would_send() -> None:
    event = to_event(USER.upper(), "exports/ada.json", "2026-11-24T13:00:00+01:00", None)
    assert (str(event.user_id), event.storage_path) == (USER, "exports/ada.json")
    assert event.completed_at == datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert event.key() == to_event(USER, "exports/ada.json", NOON, None).key()
    assert to_event(USER, "exports/ada.json", NOON, "mine").key() == "mine"


def test_what_intake_would_refuse_is_not_published() -> None:
    paths = AllowedPaths("exports/{user_id}/*")
    require_acceptable(to_event(USER, f"exports/{USER}/ada.json", NOON, None), paths)
    with pytest.raises(ConfigurationError, match=r"^--storage-path: expected one that FULL_PASS_STORAGE_PATH_PATTERN allows$"):
        require_acceptable(to_event(USER, "exports/ada.json", NOON, None), paths)
    for never in ("2099-01-01T00:00:00Z", "1969-01-01T00:00:00Z"):
        with pytest.raises(ConfigurationError, match=r"^--completed-at: expected "):
            require_acceptable(to_event(USER, f"exports/{USER}/ada.json", never, None), paths)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"user_id": "ada"}, "--user-id: expected a UUID"),
        ({"storage_path": "ada.json"}, "--storage-path: expected bucket/key"),
        ({"storage_path": "exports/../ada.json"}, "--storage-path: expected bucket/key"),
        ({"completed_at": "2026-11-24T12:00:00"}, "--completed-at: expected an ISO 8601 time with a zone"),
        ({"completed_at": "1764000000"}, "--completed-at: expected an ISO 8601 time with a zone"),
        ({"completed_at": "0001-01-01T00:00:00+14:00"}, "--completed-at: expected a time between the years 1 and 9999"),
        ({"idempotency_key": ""}, "--idempotency-key: expected 1 to 200 characters"),
        ({"idempotency_key": "a\nb"}, "--idempotency-key: expected 1 to 200 characters"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_expects(changed: dict[str, str], said: str) -> None:
    values: dict[str, Any] = {
        "user_id": USER,
        "storage_path": "exports/ada.json",
        "completed_at": NOON,
        "idempotency_key": None,
        **changed,
    }
    with pytest.raises(ConfigurationError, match=said):
        to_event(**values)
