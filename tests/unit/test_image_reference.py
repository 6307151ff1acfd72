from __future__ import annotations

import pytest
from ansible.module_utils.qianjiang.image_reference import ImageReference, ImageReferenceError, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("webui", ImageReference(None, "webui", None, None)),
        ("webui:ctx-0123", ImageReference(None, "webui", "ctx-0123", None)),
        (f"webui@{DIGEST}", ImageReference(None, "webui", None, DIGEST)),
        ("registry.hangzhou.lab:5000/webui:1", ImageReference("registry.hangzhou.lab:5000", "webui", "1", None)),
        ("localhost/team/webui", ImageReference("localhost", "team/webui", None, None)),
        ("localhost:15000/webui", ImageReference("localhost:15000", "webui", None, None)),
        ("[::1]:5000/webui:x", ImageReference("[::1]:5000", "webui", "x", None)),
        ("team/web_ui", ImageReference(None, "team/web_ui", None, None)),
        (f"r.lab:5000/a/b:t@{DIGEST}", ImageReference("r.lab:5000", "a/b", "t", DIGEST)),
    ],
)
def test_parse_and_back(text: str, expected: ImageReference) -> None:
    assert parse(text) == expected
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an image reference: '' (expected [registry/]repository[:tag][@sha256:<64 hex digits>])"),
        ("WebUI", "not an image reference: 'WebUI' (a repository is lower case: 'WebUI')"),
        (
            "webui@sha256:abc",
            "not an image reference: 'webui@sha256:abc' (a digest is sha256:<64 hex digits>, got 'sha256:abc')",
        ),
        (
            "webui:-x",
            "not an image reference: 'webui:-x' (a tag is at most 128 letters, digits, '_', '.', '-', got '-x')",
        ),
        ("a b", "not an image reference: 'a b' (expected [registry/]repository[:tag][@sha256:<64 hex digits>])"),
        (
            "https://r.lab/webui",
            "not an image reference: 'https://r.lab/webui' (leave out 'https://': a registry is host[:port])",
        ),
    ],
)
def test_what_is_no_reference_is_named(text: str, message: str) -> None:
    with pytest.raises(ImageReferenceError) as error:
        parse(text)
    assert str(error.value) == message


def test_parts() -> None:
    reference = parse(f"r.lab:5000/webui:t@{DIGEST}")
    assert reference.name == "r.lab:5000/webui"
    assert reference.version == DIGEST
    assert parse("webui:t").version == "t"
    assert parse("webui").version is None
    assert str(parse("webui:t").at("r.lab")) == "r.lab/webui:t"
