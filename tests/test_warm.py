"""A fork that has imported behaves as a process that Python starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import warm

ENDS = {
    "a text": "print('a line')",
    "an exit code": "import sys; print('said', file=sys.stderr); sys.exit(3)",
    "arguments": "import sys; print(sys.argv, __name__)",
    "what it reads": "import sys; print(sys.stdin.read().upper())",
    "its folder and environment": "import os; print(os.getcwd(), os.environ['GIVEN'], os.environ.get('HOME'))",
    "a signal": "import os; print('before', flush=True); os.kill(os.getpid(), 9)",
    "what is said at the end": "import atexit; atexit.register(print, 'bye'); print('hello')",
    "threads": "import threading; threading.Timer(0.01, print, ['late']).start(); print('early')",
    "bytes": "import sys; sys.stdout.buffer.write(bytes([255])); sys.stdout.flush()",
    "streams that are no files": "import sys; print(sys.stdout.seekable(), sys.stdout.isatty(), sys.stdout.encoding)",
    "os._exit": "import os; os._exit(7)",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_a_fork_ends_and_says_what_a_new_process_does(code, tmp_path):
    command = [sys.executable, "-c", code, "one", "two"]
    options = {"cwd": tmp_path, "env": os.environ | {"GIVEN": "value"}, "input": b"text", "capture_output": True}
    new, fork = subprocess.run(command, **options), warm.run(command, **options)
    assert (fork.returncode, fork.stdout, fork.stderr) == (new.returncode, new.stdout, new.stderr)


def test_an_error_that_nobody_catches_is_a_traceback_and_exit_code_1():
    done = warm.run([sys.executable, "-c", "raise ValueError('unforeseen')"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.endswith("\nValueError: unforeseen\n")


def test_a_fork_is_interrupted_and_killed_by_its_id():
    code = "import time; print('begun', flush=True); time.sleep(600)"
    for number in (signal.SIGINT, signal.SIGKILL):
        with warm.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait() == -number


def test_what_is_decided_at_the_start_of_python_starts_one():
    code = "import sys; print(sys.flags.hash_randomization, 'qdrant_client' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert warm.run(command, capture_output=True, text=True).stdout.split()[1] == "True"
    fixed = os.environ | {"PYTHONHASHSEED": "0"}
    assert warm.run(command, env=fixed, capture_output=True, text=True).stdout == "0 False\n"
    isolated = warm.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert isolated.stdout.split()[1] == "False"


def test_what_one_fork_changes_no_other_sees():
    change = "import qdrant_tools.records as records; records.Passage = None; print('changed')"
    see = "import qdrant_tools.records as records; print(records.Passage is None)"
    told = [warm.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for code in (change, see)]
    assert told == ["changed\n", "False\n"]
