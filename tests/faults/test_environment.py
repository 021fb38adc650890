"""Surroundings that are not what a command expects: streams, home, working folder, locale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LONGEST = 120  # s
TRAIN = ("mvl_train", "4", "0")  # of a root that has nothing: it is refused
LIST = ("mvl_block", "list")  # prints its result


def run(root: Path, words: tuple[str, ...], shell: str = "", **settings: object) -> subprocess.CompletedProcess[bytes]:
    """A command behind the redirections `shell`, in bytes."""
    environment = os.environ | {"MVL_ROOT": str(root)}
    environment |= settings.pop("env", {})
    program = Path(sys.executable).with_name(words[0])
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {shell}', program, *words[1:]],
        capture_output=True, env=environment, timeout=LONGEST, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(("words", "code"), [(LIST, 0), (TRAIN, 2)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(root, closed, words, code):
    done = run(root, words, closed)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_a_full_stdout_is_one_line_and_a_full_stderr_is_none(root):
    done = run(root, LIST, ">/dev/full")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"the output cannot be written (No space left on device)" in done.stderr
    assert run(root, TRAIN, "2>/dev/full").returncode == 2


def test_a_working_folder_that_is_gone_matters_only_where_it_is_needed(root, tmp_path):
    script = 'mkdir "$2" && cd "$2" && rmdir "$2" && exec "$0" $3 --root "$1"'
    program = Path(sys.executable).with_name("mvl_block")
    for given, code in [(str(root), 0), ("relative", 2)]:
        done = subprocess.run(
            ["sh", "-c", script, program, given, tmp_path / "gone", "list"], capture_output=True, timeout=LONGEST
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
    assert b"the working folder has been deleted" in done.stderr
    done = subprocess.run(
        ["sh", "-c", script, program.with_name("mvl_train"), root, tmp_path / "gone", "4 0"], capture_output=True
    )
    assert done.returncode == 2
    assert done.stderr == b"mvl_train: the working folder has been deleted. Change to a folder that exists.\n"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_a_user_without_a_home_is_told_to_name_a_root(root):
    command = ["setpriv", "--reuid=54321", "--clear-groups", sys.executable, "-c"]
    program = "from mvl_auto.errors import MvlError\nfrom mvl_auto.paths import find_root\n"
    program += "try: print(find_root())\nexcept MvlError as error: print(error)"
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "MVL_ROOT")}
    for more, said in [({}, "the home folder is unknown"), ({"MVL_ROOT": "/there"}, "/there")]:
        done = subprocess.run([*command, program], capture_output=True, text=True, env=environment | more, cwd="/")
        if "No module named" in done.stderr or "Permission" in done.stderr:
            pytest.skip("another user cannot read this environment")
        assert said in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["Größe".encode(), b"not\xffutf8"])
def test_a_locale_that_is_not_utf8_and_a_name_that_is_not(root, name):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(root, ("mvl_train", os.fsdecode(name), "0"), env=plain)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"no planned dataset" in done.stderr
