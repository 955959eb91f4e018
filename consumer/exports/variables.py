"""The variables by which each kind of bucket is known to the rest of the world, as far as obstore has to be told of them.

obstore itself reads most: `AWS_…`, `GOOGLE_…` and `AZURE_…`.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from consumer.errors import ConfigurationError

# What to look at when a store refuses everything.
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "AZURITE_BLOB_STORAGE_URL"),
}
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZUR"}
# The names of Azure's own command line, where obstore has others.
_AZURE_NAMES = {"account_name": "AZURE_STORAGE_ACCOUNT", "account_key": "AZURE_STORAGE_KEY"}
_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"


def store_config(scheme: str) -> dict[str, Any]:
    """What obstore doesn't read from the environment by itself, for `s3`, `gs` or `az`. Once, when the worker starts.

    Raises:
        ConfigurationError: naming a variable that is no endpoint; obstore would panic at each request.
    """
    _forget_empty(_PREFIXES[scheme])
    for name in _ENDPOINTS[scheme]:
        if name in os.environ:
            _require_url(name, os.environ[name])
    if scheme == "gs":
        return _google_emulator()
    return _azure() if scheme == "az" else {}


def _forget_empty(prefix: str) -> None:
    """An empty variable is one that isn't set, as `NAME=${NAME:-}` means it; obstore would take it at its word."""
    for name in [name for name, value in os.environ.items() if name.startswith(prefix) and not value.strip()]:
        del os.environ[name]


def _require_url(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        good = False
    if not good or any(character.isspace() for character in url):
        raise ConfigurationError(f"{name}: expected http://host:port or https://host, perhaps with a path")
    return url


def _google_emulator() -> dict[str, Any]:
    """`STORAGE_EMULATOR_HOST`, which Google's own libraries know and obstore doesn't."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "").strip()
    if not host or "GOOGLE_BASE_URL" in os.environ:
        return {}
    url = _require_url("STORAGE_EMULATOR_HOST", host if "://" in host else f"http://{host}")
    return {"base_url": url.rstrip("/"), "skip_signature": True}


def _azure() -> dict[str, Any]:
    text = os.environ.get(_CONNECTION_STRING)
    if text:
        return _azure_connection(text)
    return {key: os.environ[name] for key, name in _AZURE_NAMES.items() if name in os.environ}


def _azure_connection(text: str) -> dict[str, Any]:
    """The parts of a connection string; its spelling is that of the portal and of Azurite's documentation."""
    parts = dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)
    if parts.get("UseDevelopmentStorage", "").lower() == "true":
        return {"use_emulator": True}
    account, key, sas = (parts.get(name, "") for name in ("AccountName", "AccountKey", "SharedAccessSignature"))
    protocol, suffix = parts.get("DefaultEndpointsProtocol", "https"), parts.get("EndpointSuffix", "core.windows.net")
    endpoint = parts.get("BlobEndpoint") or (account and f"{protocol}://{account}.blob.{suffix}")
    if not endpoint or not (key or sas):
        raise ConfigurationError(f"{_CONNECTION_STRING}: expected AccountName and AccountKey, or SharedAccessSignature")
    found = {
        "account_name": account or _account_of(endpoint),
        "account_key": key,
        "sas_key": sas.lstrip("?"),
        "endpoint": _require_url(_CONNECTION_STRING, endpoint).rstrip("/"),
    }
    return {name: value for name, value in found.items() if value}


def _account_of(endpoint: str) -> str:
    return (urlsplit(endpoint).hostname or "").partition(".")[0]
