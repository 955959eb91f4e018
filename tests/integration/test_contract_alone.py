"""`schemas/` taken by itself: what the wheel holds of the contract, in a Python that has pydantic and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_of(distribution: str) -> Iterator[Path]:
    """The module of a distribution and those of what it requires."""
    name = distribution.replace("-", "_")
    found = importlib.util.find_spec(name)
    assert found is not None, distribution
    assert found.origin is not None
    yield Path(found.origin).parent if found.submodule_search_locations else Path(found.origin)
    for line in requires(distribution) or ():
        if "extra ==" not in line:
            required = re.match(r"[\w.-]+", line)
            assert required is not None
            try:
                yield from modules_of(required[0])
            except PackageNotFoundError:  # not for this Python
                continue


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `schemas` out of a wheel, and pydantic."""
    folder = tmp_path_factory.mktemp("alone")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "path", [name for name in archive.namelist() if name.startswith("schemas/")])
    for module in set(modules_of("pydantic")):
        (folder / "path" / module.name).symlink_to(module)
    return folder / "path"


def run(alone: Path, code: str) -> str:
    """What Python prints that finds its own library and this folder, and no other package."""
    starting = f"import sys; sys.path.append({str(alone)!r})\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", starting + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_events_need_pydantic_alone(alone: Path) -> None:
    """A publisher or reader in Python takes the models without the service and its forty packages."""
    said = run(
        alone,
        """
import importlib.util
from schemas.events import EVENTS, MemorySaved, derived_idempotency_key
from schemas.examples import COMPLETION, EXAMPLES
assert not any(importlib.util.find_spec(name) for name in ("consumer", "sandbox", "aiokafka", "sqlalchemy", "yaml"))
print(COMPLETION.key() == derived_idempotency_key(COMPLETION.user_id, COMPLETION.storage_path, COMPLETION.completed_at))
print(MemorySaved.model_validate_json(EXAMPLES[MemorySaved].model_dump_json()) == EXAMPLES[MemorySaved])
print(*(event.event_type for event in EVENTS))
""",
    )
    assert said == "True\nTrue\nquick-pass-completed memory-saved v2-completed v2-failed\n"


def test_the_wheel_brings_the_json_schemas_and_the_asyncapi_document(alone: Path) -> None:
    code = """
import json
from importlib.resources import files
from schemas.events import EVENTS
there = files("schemas")
texts = {each.event_type: (there / f"json/{each.event_type}.schema.json").read_text("utf-8") for each in EVENTS}
print(json.dumps([{name: json.loads(text)["$id"] for name, text in texts.items()}, (there / "asyncapi.yaml").is_file()]))
"""
    ids, asyncapi = json.loads(run(alone, code))
    assert asyncapi is True
    assert ids == {name: f"urn:full-pass:schemas:{name}:1" for name in ids}
    assert len(ids) == 4
