"""What the stores are told from the environment beyond what obstore reads there by itself."""

from __future__ import annotations

import os
from typing import Any

import pytest

from consumer.errors import ConfigurationError
from consumer.exports.store import ExportStore
from consumer.exports.variables import store_config

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZUR", "STORAGE_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("scheme", "variable"),
    [
        ("s3", "AWS_ENDPOINT_URL"), ("s3", "AWS_ENDPOINT_URL_S3"), ("s3", "AWS_ENDPOINT"), ("gs", "GOOGLE_BASE_URL"),
        ("gs", "STORAGE_EMULATOR_HOST"), ("az", "AZURE_STORAGE_ENDPOINT"), ("az", "AZURITE_BLOB_STORAGE_URL"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["ftp://u:PRIVATE@host:1", "http://", "http://[x", "http://host:99999", "http://a host/"])
def test_an_endpoint_that_is_no_url_is_a_mistake_in_the_configuration(
    scheme: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """obstore would panic at the first request of every run."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable) as caught:
        ExportStore.from_url(f"{scheme}://")
    assert "PRIVATE" not in str(caught.value)


def test_an_endpoint_needs_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio:9000")
    with pytest.raises(ConfigurationError, match="http://host:port"):
        ExportStore.from_url("s3://")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose passes on what isn't set as empty; obstore would sign with an empty region, and panic at an empty endpoint."""
    for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ENDPOINT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    store_config("s3")
    assert {name for name in os.environ if name.startswith(("AWS_", "AZUR"))} == {"AWS_ACCESS_KEY_ID", "AZURE_STORAGE_ENDPOINT"}


@pytest.mark.parametrize("host", ["http://localhost:4443", "localhost:4443", "http://localhost:4443/"])
def test_googles_emulator_is_named_as_for_googles_own_libraries(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    assert store_config("gs") == {"base_url": "http://localhost:4443", "skip_signature": True}
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://other")
    assert store_config("gs") == {}


@pytest.mark.parametrize(
    ("text", "config"),
    [
        (
            f"DefaultEndpointsProtocol=https;AccountName=ada;AccountKey={KEY};EndpointSuffix=core.windows.net",
            {"account_name": "ada", "account_key": KEY, "endpoint": "https://ada.blob.core.windows.net"},
        ),
        (
            f"DefaultEndpointsProtocol=http;AccountName=ada;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000/ada;",
            {"account_name": "ada", "account_key": KEY, "endpoint": "http://127.0.0.1:10000/ada"},
        ),
        (
            "BlobEndpoint=https://ada.blob.core.windows.net/;SharedAccessSignature=sv=2024&sig=a%3D",
            {"account_name": "ada", "sas_key": "sv=2024&sig=a%3D", "endpoint": "https://ada.blob.core.windows.net"},
        ),
        ("UseDevelopmentStorage=true", {"use_emulator": True}),
    ],
)
def test_a_connection_string_of_azure_is_understood(text: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    assert store_config("az") == config
    ExportStore.from_url("az://")


@pytest.mark.parametrize("text", ["ada", f"AccountKey={KEY}", "AccountName=ada", "AccountName=a b;AccountKey=SECRETKEY"])
def test_a_connection_string_that_lacks_something_is_a_mistake_in_the_configuration(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_CONNECTION_STRING") as caught:
        ExportStore.from_url("az://")
    assert KEY not in str(caught.value)
    assert "SECRETKEY" not in str(caught.value)


def test_the_names_of_azures_command_line_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "ada")
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    assert store_config("az") == {"account_name": "ada", "account_key": KEY}
