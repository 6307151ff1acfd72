"""What a build needs on the controller, and when wheels are downloaded again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import load

FILTERS = load("plugins/filter/build.py")
lacking_wheels, source_errors = FILTERS.lacking_wheels, FILTERS.source_errors
FLASK, MARKUP = "flask-3.1.3-py3-none-any.whl", "markupsafe-3.0.4-cp311-cp311-manylinux2014_x86_64.whl"
LOCK = """\
# written by pip-compile
-i https://pypi.example.com/simple
--extra-index-url https://pypi.example.com/simple

flask==3.1.3 \\
    --hash=sha256:{flask}
    # via -r requirements.in
MarkupSafe==3.0.4 \\
    --hash=sha256:{markup} \\
    --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000
colorama==0.4.6 ; sys_platform == "win32" \\
    --hash=sha256:1111111111111111111111111111111111111111111111111111111111111111
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A service whose wheels are all there."""
    wheels = tmp_path / "webui/wheelhouse"
    wheels.mkdir(parents=True)
    for name in (FLASK, MARKUP):
        (wheels / name).write_text(name)
    lock = LOCK.format(flask=digest(FLASK), markup=digest(MARKUP))
    # As editors of other systems write it
    (tmp_path / "webui/requirements.lock").write_text(lock, encoding="utf-8-sig")
    return tmp_path / "webui"


def lacking(context: Path, python: str = "3.11") -> bool:
    wheelhouse = {"requirements": "requirements.lock", "python": python}
    service: dict[str, Any] = {"name": "webui", "build": {"context": "webui", "wheelhouse": wheelhouse}}
    return bool(lacking_wheels([service], str(context.parent)))


def test_what_is_there_is_not_downloaded(context: Path) -> None:
    assert not lacking(context)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda context: (context / "wheelhouse" / FLASK).unlink(), id="a wheel is missing"),
        pytest.param(lambda context: (context / "wheelhouse" / FLASK).write_text("other"), id="a wheel is another"),
        pytest.param(
            lambda context: (context / "wheelhouse" / FLASK).rename(
                context / "wheelhouse/flask-3.1.2-py3-none-any.whl"
            ),
            id="a wheel is of another version",
        ),
        pytest.param(
            lambda context: (context / "wheelhouse/extra-1.0-py3-none-any.whl").touch(), id="a wheel is not in the lock"
        ),
    ],
)
def test_what_is_not_right_is(context: Path, spoil: Callable[[Path], Any]) -> None:
    spoil(context)
    assert lacking(context)


def test_a_wheel_for_another_python_is(context: Path) -> None:
    assert lacking(context, "3.12")
    assert not lacking(context, "3.11.2")


@pytest.mark.parametrize(
    ("line", "is_lacking"),
    [
        pytest.param('uvloop==0.19 ; sys_platform != "win32"', True, id="a marker that holds"),
        pytest.param('uvloop==0.19 ; sys_platform == "darwin" or platform_machine == "aarch64"', False, id="none"),
        pytest.param('uvloop==0.19 ; python_version < "3.12"', True, id="of the image's Python"),
        pytest.param('uvloop==0.19 ; python_full_version > "3.11.2"', False, id="of its patch release"),
        pytest.param("uvloop[dev]==0.19", True, id="extras"),
        pytest.param("Flask[async]==3.1.3", False, id="extras of what is there"),
    ],
)
def test_what_the_image_needs_is_lacking(context: Path, line: str, is_lacking: bool) -> None:
    with (context / "requirements.lock").open("a") as lock:
        lock.write(f"{line} \\\n    --hash=sha256:{digest(line)}\n    # via -r requirements.in\n")
    assert lacking(context) == is_lacking


def test_a_wheel_that_only_another_python_needs_is_not_kept(context: Path) -> None:
    wheel = context / "wheelhouse/tomli-2.0-py3-none-any.whl"
    wheel.write_text("tomli")
    with (context / "requirements.lock").open("a") as lock:
        lock.write(f'tomli==2.0 ; python_version < "3.11" --hash=sha256:{digest("tomli")}\n')
    assert lacking(context)


def catalogue(context: str, **build: Any) -> dict[str, Any]:
    normal = {"context": context, "dockerfile": "Dockerfile", "wheelhouse": None} | build
    return {"webui": {"build": normal}, "store": {"build": None}}


def test_what_is_to_be_built_is_there(context: Path) -> None:
    (context / "Dockerfile").touch()
    wheelhouse = {"requirements": "requirements.lock", "python": "3.11"}
    assert source_errors(catalogue("webui", wheelhouse=wheelhouse), str(context.parent)) == []


def test_what_is_not_there_is_named(context: Path) -> None:
    folder = context.parent
    assert source_errors(catalogue("webiu"), str(folder)) == [
        f'services.webui.build.context: expected a folder in {folder}, got "webiu"'
    ]
    (context / "requirements.lock").unlink()
    assert source_errors(catalogue("webui", wheelhouse={"requirements": "requirements.lock"}), str(folder)) == [
        f'services.webui.build.dockerfile: expected a file in {context}, got "Dockerfile"',
        f"services.webui.build.wheelhouse.requirements: expected a file in {context}, got "
        '"requirements.lock"; write it with pip-compile --generate-hashes',
    ]


@pytest.mark.parametrize("line", ["./flask.whl", "-r other.lock", "flask=3.1.3"])
def test_a_lock_that_is_none_is_named(context: Path, line: str) -> None:
    (context / "Dockerfile").touch()
    (context / "requirements.lock").write_text(f"{line}\n")
    wheelhouse = {"requirements": "requirements.lock", "python": "3.11"}
    assert source_errors(catalogue("webui", wheelhouse=wheelhouse), str(context.parent)) == [
        "services.webui.build.wheelhouse.requirements: expected locked requirements in "
        f'{context}/requirements.lock, got "{line}"; write it with pip-compile --generate-hashes'
    ]


def test_each_checkout_of_each_controller_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for host in ("laptop", "ci"):
        monkeypatch.setattr(FILTERS.socket, "gethostname", lambda host=host: host)
        names |= {FILTERS.checkout(folder) for folder in ("/srv/deploy", "/srv/deploy2", "/srv/deploy")}
    assert len(names) == 4
    assert all(len(name) == 12 for name in names)
