"""Files that users name are read whole, exactly and bounded, by whatever reads them; what is wrong is one line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from outrider.bench.workloads import read_workloads
from outrider.check.prompts import read_prompts
from outrider.cli.prompt import read_prediction, read_prompt
from outrider.errors import ModelError, UsageError
from outrider.files import as_text, read_bytes, read_text
from outrider.model.fields import Fields
from outrider.model.tokenizer import Tokenizer
from outrider.recipe import read_recipe
from tests.cli.tiny import make_tiny

READERS = {
    "prompt": lambda path: read_prompt(None, None, path),
    "prediction": read_prediction,
    "recipe": read_recipe,
    "prompts": read_prompts,
    "workload": lambda path: read_workloads([str(path)]),
}


def test_a_text_is_as_it_is_in_the_file(tmp_path):
    path = tmp_path / "a.txt"
    content = "\ufeffgrüße\r\n\x00".encode()
    path.write_bytes(content)
    assert read_text(path, len(content), "the prompt").encode() == content
    with pytest.raises(UsageError, match=f"a.txt has more than {len(content) - 1} bytes, the most that are read"):
        read_text(path, len(content) - 1, "the prompt")


def test_a_stream_is_not_read_to_its_end():
    stream = io.BytesIO(b"x" * 100)
    with pytest.raises(UsageError, match="stdin has more than 10 bytes"):
        read_bytes(stream, 10, "stdin")
    assert stream.tell() == 11
    with pytest.raises(UsageError, match=r"stdin is not UTF-8 text \(byte 1 is 0xff\)"):
        as_text(b"a\xff", "stdin")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_everything_that_reads_says_the_same_in_the_same_words(tmp_path, read):
    def refusal(name):
        with pytest.raises(UsageError) as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)
        return str(error.value)

    (tmp_path / "latin.jsonl").write_bytes(b"gr\xfc\xdfe")
    (tmp_path / "folder.jsonl").mkdir()
    assert refusal("latin.jsonl") == f"{tmp_path / 'latin.jsonl'} is not UTF-8 text (byte 2 is 0xfc): convert it"
    for name, reason in {"gone.jsonl": "No such file or directory", "folder.jsonl": "Is a directory"}.items():
        message = refusal(name)
        assert message.startswith("cannot read the ")
        assert message.endswith(f" from {tmp_path / name} ({reason}): name a readable file")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device that never ends")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_nothing_reads_a_device_for_ever(tmp_path, read):
    endless = tmp_path / "endless.jsonl"
    endless.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=r"endless.jsonl has more than \d+ bytes, the most that are read"):
        read(endless)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device that never ends")
def test_nor_do_a_checkpoints_files(tmp_path):
    folder = make_tiny(tmp_path / "model")
    (folder / "chat_template.jinja").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=r"chat_template.jinja has more than \d+ bytes"):
        Tokenizer.from_folder(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=r"config.json has more than \d+ bytes"):
        Fields.read(folder / "config.json")
