"""The licence in a model card, whatever the card looks like."""

from __future__ import annotations

import pytest

from mvl_auto.llm.formats.repository import Folder, read_licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\nlanguage:\n- en\nlicense: 'mit'   # comment\n---\nlicense: not this\n", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: llama3.2\n---\n", "llama3.2"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: mit\nlicense_name: mine\n---\n", "mit"),
        ("---\nlicense: >-\n  apache-2.0\n---\n", "apache-2.0"),  # a folded YAML string
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [mit, gpl]\n---\n", None),
        ("---\n- license\n---\n", None),
        ("---\n{1: 2, license: mit}\n---\n", None),
        ("---\nlicense: 'mit\n---\n", None),  # the quote is never closed
        ("---\nlicense: mit\n", None),
        ("---\nlicense: !!python/object/apply:os.system ['true']\n---\n", None),
        ("---\nmodel-index: 7\nlicense: mit\n---\n", "mit"),
        ("---\nmodel-index: [x]\ntags: 7\nlicense: mit\n---\n", None),
        ("license: mit\n", None),
        ("", None),
        (None, None),
    ],
)
def test_the_licence_is_that_of_the_metadata(card, licence, tmp_path):
    if card is not None:
        (tmp_path / "README.md").write_bytes(card.encode())
    assert read_licence(Folder(tmp_path)) == licence


def test_a_deeply_nested_card_has_no_licence(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\nx: " + "[" * 100_000 + "\n---\n")
    assert read_licence(Folder(tmp_path)) is None
