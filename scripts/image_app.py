"""Runs while an image is built: lays the project's own code out below a folder that becomes the image's last layer.

    python image_app.py PREFIX PACKAGE... [--command NAME=MODULE:FUNCTION]

`PREFIX/app` gets the packages, their bytecode (the root file system is read-only later) and the distribution's metadata, so
that `importlib.metadata.version("darkroom")` answers; `PREFIX/bin` gets the command.
"""

import argparse
import compileall
import py_compile
import shutil
import sys
import tomllib
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.egg-info")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--command", default="")
    options = parser.parse_args()
    app = options.prefix / "app"
    for package in options.packages:
        shutil.copytree(SOURCE / package, app / package, ignore=NOT_CODE)
    add_metadata(app)
    if options.command:
        add_command(options.prefix / "bin", options.command)
    compile_all(app)


def add_metadata(app: Path) -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    folder = app / f"{project['name']}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
        f"Summary: {project['description']}\nLicense-Expression: {project['license']}\n"
    )
    shutil.copy(SOURCE / "LICENSE", folder / "LICENSE")


def add_command(folder: Path, command: str) -> None:
    name, _, target = command.partition("=")
    module, _, function = target.partition(":")
    folder.mkdir()
    script = folder / name
    script.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n\nraise SystemExit({function}())\n")
    script.chmod(0o755)


def compile_all(app: Path) -> None:
    """By hash of the source, not by its date: the same code gives the same bytes."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(app, quiet=1, stripdir=app, prependdir="/opt/darkroom/app", invalidation_mode=mode):
        raise SystemExit("the code does not compile on this Python")


if __name__ == "__main__":
    main()
