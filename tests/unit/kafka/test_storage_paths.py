"""STORAGE_PATH_PATTERN."""

from __future__ import annotations

import pytest

from consumer.errors import ConfigurationError
from consumer.kafka.storage_paths import AllowedPaths
from tests.unit.kafka.records import USER

OTHER = "00000000-0000-4000-8000-000000000000"


def test_a_pattern_that_can_not_be_read_is_a_mistake_in_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"^FULL_PASS_STORAGE_PATH_PATTERN: "):
        AllowedPaths("exports/[z-a]*")


@pytest.mark.parametrize(
    ("pattern", "path", "allowed"),
    [
        ("", "anything/at all", True),
        ("exports/*", "exports/ada.json", True),
        ("exports/*", "exports/2026/ada.json", False),
        ("exports/**", "exports/2026/11/ada.json", True),
        ("exports/**/ada.json", "exports/2026/11/ada.json", True),
        ("exports/*", "Exports/ada.json", False),
        ("exports/*", "more/exports/ada.json", False),
        ("exports/*.json", "exports/ada_json", False),
        ("exports/ad?.json", "exports/ada.json", True),
        ("exports/ad?.json", "exports/ad/.json", False),
        ("exports/[a-c]*", "exports/ada", True),
        ("exports/[!a-c]*", "exports/ada", False),
        ("exports[!a]ada", "exports/ada", False),
        ("exports/[ada", "exports/[ada", True),
        ("exports/[]a]", "exports/]", True),
        (r"exports/a\d", r"exports/a1", False),
        ("exports/(a|b)+", "exports/a", False),
        ("exports/{user_id}/*", f"exports/{USER}/ada.json", True),
        ("exports/{user_id}/*", f"exports/{OTHER}/ada.json", False),
        ("exports/{user_id}/*", f"exports/{str(USER).upper()}/ada.json", False),
        ("{user_id}/{user_id}*", f"{USER}/{USER}.zip", True),
        ("{user_id}/{user_id}*", f"{USER}/{OTHER}.zip", False),
        ("exports/*{user_id}*", f"exports/{OTHER}{USER}", True),
        ("exports/{user}/*", "exports/{user}/a", True),
    ],
)
def test_a_path_is_allowed_as_the_pattern_says(pattern: str, path: str, allowed: bool) -> None:
    assert AllowedPaths(pattern).allow(path, USER) is allowed
