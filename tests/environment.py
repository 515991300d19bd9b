"""The Python environments of the tests that need packages: one a folder, at the versions of its
requirements.txt."""

import os
import subprocess
import sys
import venv


def ensure(home, requirements):
    """home/venv with these packages, made unless it is there already; the path of its Python."""
    folder = os.path.join(home, "venv")
    python = os.path.join(folder, "bin", "python3")
    stamp = os.path.join(folder, "installed.txt")
    with open(requirements, encoding="utf-8") as f:
        text = f.read()
    if not os.path.exists(stamp) or open(stamp, encoding="utf-8").read() != text:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [
                python,
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "-r",
                requirements,
            ],
            check=True,
        )
        with open(stamp, "w", encoding="utf-8") as f:
            f.write(text)
    return python


def enter(python):
    """Begins the running program anew in that environment, unless it is there."""
    if os.path.realpath(sys.prefix) != os.path.realpath(os.path.dirname(os.path.dirname(python))):
        os.execv(python, [python, os.path.abspath(sys.argv[0]), *sys.argv[1:]])
