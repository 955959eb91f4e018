"""The version of everything that the model is told. A replay can pick runs whose documents came from older prompts."""

from __future__ import annotations

PROMPT_VERSION = 1
"""Raise it by one with every change of a prompt's text or of a schema; a test holds the two together."""
