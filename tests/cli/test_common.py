"""What every command does: the root in the first line, errors in one line, arguments with units."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import jobs
import pytest

from mvl_auto.cli import common, values
from mvl_auto.errors import MvlError, PartlyFailed, Stopped
from mvl_auto.jobs import log_trace, run_jobs
from mvl_auto.logs import LOGGER, log_file
from mvl_auto.version import __version__

COMMANDS = [
    point.name.removeprefix("mvl_") for point in entry_points(group="console_scripts") if point.name.startswith("mvl_")
]
HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "pandas",
    "pydantic",
    "nibabel",
    "SimpleITK",
    "matplotlib",
    "nilearn",
}


def command(run, uses_root: bool = True) -> common.Command:
    return common.Command("mvl_x", "Does x.", "mvl_x 4", lambda parser: None, run, uses_root)


def raising(error: BaseException):
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_the_commands_are_installed():
    assert {"plan_and_preprocess", "train", "predict", "evaluate", "demo", "block"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_and_imports_nothing_heavy(name):
    script = (
        "import sys\n"
        f"from mvl_auto.cli.{name} import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print('IMPORTED', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"}
    )
    assert f"\n  mvl_{name}" in done.stdout, "no example"
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    imported = done.stdout.splitlines()[-1].split()
    assert imported[0] == "IMPORTED"
    assert not HEAVY & set(imported)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_installed_command_tells_its_version(name):
    done = subprocess.run([Path(sys.executable).parent / f"mvl_{name}", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"mvl_{name} {__version__}")


def test_the_first_line_tells_the_root_and_who_chose_it(tmp_path, monkeypatch, capsys):
    roots = []

    def run(args):
        roots.append(args.root)
        return 0

    monkeypatch.setenv("MVL_ROOT", str(tmp_path / "from_environment"))
    assert common.run_command(command(run), []) == 0
    assert common.run_command(command(run), ["--root", str(tmp_path / "given")]) == 0
    monkeypatch.delenv("MVL_ROOT")
    assert common.run_command(command(run), ["-q"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"root: {tmp_path / 'from_environment'} ($MVL_ROOT)"
    assert second == f"root: {tmp_path / 'given'} (--root)"
    assert third == f"root: {Path.home() / 'mvl_auto'} (default)"
    assert roots == [tmp_path / "from_environment", tmp_path / "given", Path.home() / "mvl_auto"]


def test_a_command_without_a_root_prints_only_its_own(capsys):
    assert common.run_command(command(lambda args: sys.stdout.write("mine\n") and 0, uses_root=False), []) == 0
    assert capsys.readouterr().out == "mine\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (MvlError("has a hole", file="a.nii.gz", remedy="Mend it."), 2, "mvl_x: a.nii.gz: has a hole. Mend it.\n"),
        (MvlError("two\nlines"), 2, "mvl_x: two lines.\n"),
        (PartlyFailed("1 of 3 failed"), 1, "mvl_x: 1 of 3 failed.\n"),
        (
            Stopped(15, "step 7 is saved in x"),
            143,
            "mvl_x: stopped by SIGTERM; step 7 is saved in x. To resume: mvl_x\n",
        ),
        (KeyboardInterrupt(), 130, "mvl_x: stopped. Run the same command again to resume.\n"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_an_exit_code(error, code, line, capsys):
    assert common.run_command(command(raising(error)), []) == code
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        common.run_command(command(raising(ZeroDivisionError())), [])


def test_a_reader_that_has_seen_enough_is_no_error():
    script = (
        "import sys; from mvl_auto.cli import common\n"
        "def run(args):\n    for line in range(100_000): print(line)\n    return 0\n"
        "sys.exit(common.run_command(common.Command('mvl_x', '', 'mvl_x', lambda parser: None, run, False), []))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == common.PIPE_CLOSED


def test_a_sign_that_the_terminal_cannot_show_stops_nothing():
    script = (
        "import sys; from mvl_auto.cli import common\n"
        "def run(args):\n    print('0.8 \xb1 0.1')\n    return 0\n"
        "sys.exit(common.run_command(common.Command('mvl_x', '', 'mvl_x', lambda parser: None, run, False), []))"
    )
    narrow = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=narrow)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0.8 ? 0.1\n", b"")


def test_wrong_usage_exits_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        common.run_command(command(lambda args: 0), ["--nonsense"])
    assert end.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "seen"),
    [
        ([], ["info", "warning: careful"]),
        (["-q"], ["warning: careful"]),
        (["-v"], ["debug", "info", "warning: careful"]),
    ],
)
def test_the_log_goes_to_stderr_as_loud_as_asked(argv, seen, capsys):
    def run(args):
        log = logging.getLogger("mvl_auto.somewhere")
        log.debug("debug")
        log.info("info")
        log.warning("careful")
        return 0

    before = (LOGGER.level, list(LOGGER.handlers))
    common.run_command(command(run), argv)
    assert capsys.readouterr().err.splitlines() == seen
    assert (LOGGER.level, LOGGER.handlers) == before


def test_the_trace_of_a_job_is_in_the_log_file_and_not_on_the_screen(tmp_path, capsys):
    def run(args):
        with log_file(tmp_path / "log.txt"):
            outcomes = dict(run_jobs(jobs.fussy, [3], 1))
            log_trace(logging.getLogger("mvl_auto.somewhere"), "job 3", outcomes[3])
        return 0

    for argv in ([], ["-q"], ["-v"]):
        common.run_command(command(run), argv)
        assert "Traceback" not in capsys.readouterr().err
    assert (tmp_path / "log.txt").read_text().count("ERROR job 3: Traceback") == 3
    assert 'raise KeyError("three")' in (tmp_path / "log.txt").read_text()


def test_a_library_that_sets_up_logging_for_itself_does_not_double_the_lines(capsys):
    def run(args):
        handler = logging.StreamHandler(sys.stderr)
        logging.getLogger().addHandler(handler)
        logging.getLogger("mvl_auto.somewhere").info("once")
        logging.getLogger().removeHandler(handler)
        return 0

    common.run_command(command(run), [])
    assert capsys.readouterr().err == "once\n"


def test_shared_arguments_work_ahead_of_and_behind_a_subcommand(tmp_path):
    def add_arguments(parser):
        sub = parser.add_subparsers(required=True).add_parser("list")
        common.add_shared_arguments(sub)

    roots = []
    with_subcommand = common.Command(
        "mvl_x", "", "mvl_x list", add_arguments, lambda args: roots.append(args.root) or 0
    )
    common.run_command(with_subcommand, ["--root", str(tmp_path), "list"])
    common.run_command(with_subcommand, ["list", "--root", str(tmp_path)])
    assert roots == [tmp_path, tmp_path]


@pytest.mark.parametrize(("read", "wrong"), [(values.duration, "10x"), (values.memory, "8XB")])
def test_what_an_argument_must_look_like_is_said_by_argparse(read, wrong):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{wrong}' is not a.* give "):
        read(wrong)
    assert (values.duration("10m"), values.memory("8GB")) == (600, 8 * 10**9)


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:3"])
def test_device(text):
    assert values.device(text) == text


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda3", ""])
def test_no_device(text):
    with pytest.raises(argparse.ArgumentTypeError, match="device"):
        values.device(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "²"])
def test_not_positive(text):
    with pytest.raises(argparse.ArgumentTypeError):
        values.positive(text)


def test_importing_the_package_reads_nothing_from_the_environment():
    script = (
        "import os\n"
        "class Spy(dict):\n"
        "    def __getitem__(self, key): raise AssertionError(key)\n"
        "    get = __getitem__\n"
        "real, os.environ = os.environ, Spy()\n"
        "import mvl_auto, mvl_auto.paths, mvl_auto.errors, mvl_auto.progress, mvl_auto.logs\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)
