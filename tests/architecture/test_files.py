"""No file says where it was made: no package index, no other host's folders; and what set-up installs is pinned."""

from __future__ import annotations

import re
import tomllib
from itertools import chain

import pytest

from tests.architecture.sources import ROOT, project_files

# Written in two halves, so that this file may be searched too.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"\bpypi\." + "org",
            "python" + "hosted",
            "npm" + "js",
            "debian" + r"\.org",
            "download" + r"\.pytorch",
            r"\.\./" + "shared",
            r"(?<![\w.-])/" + r"(work|root|tmp|opt)/\w",
        ]
    )
)
# A vocabulary is what the tokenizer's training text made it.
DATA = {"tokenizer.json"}


def texts() -> dict[str, str]:
    found = {}
    for path in project_files():
        content = path.read_bytes()
        if path.name not in DATA and b"\0" not in content:
            found[str(path.relative_to(ROOT))] = content.decode(errors="replace")
    return found


def test_no_file_names_a_package_index_or_a_folder_of_this_machine():
    found = {name: match.group() for name, text in texts().items() if (match := FORBIDDEN.search(text))}
    assert not found


@pytest.mark.parametrize("text", ["see /" + "tmp/a", "'/" + "work/main'", "https://pypi." + "org/simple"])
def test_what_is_forbidden_is_found(text):
    assert FORBIDDEN.search(text)


def test_every_requirement_is_pinned():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, backend = settings["project"], settings["build-system"]["requires"]
    requirements = [*backend, *project["dependencies"], *chain(*project["optional-dependencies"].values())]
    wanted = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements} - {"outrider"}
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert wanted <= {name.lower().replace("_", "-") for name in pins}


def test_pins_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
