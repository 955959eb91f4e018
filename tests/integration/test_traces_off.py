"""What a worker that traces nothing does without."""

from __future__ import annotations

import subprocess
import sys

_ASK = """
import sys
import consumer.app, consumer.commands
from consumer.traces import Traces
Traces.from_environment().close()
print(*(name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))))
"""


def test_opentelemetrys_sdk_is_not_imported_where_nothing_is_traced() -> None:
    """It takes 20 MB and a moment of each start."""
    said = subprocess.run([sys.executable, "-c", _ASK], env={}, capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == ""
