"""The command line: `python -m localcluster --help`."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from localcluster import binaries, images, packages
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError


def main() -> int:
    options = _parser().parse_args()
    try:
        options.run(options)
    except ClusterError as error:
        print(f"localcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("localcluster: interrupted; the next `up` or `down` clears what is left", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m localcluster", description=sys.modules["localcluster"].__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="darkroom", help="which cluster (default: darkroom)")

    setup = commands.add_parser("setup", help="install the missing Debian packages, then build")
    setup.set_defaults(run=_setup)
    build = commands.add_parser("build", help="build the binaries that are not cached")
    build.set_defaults(run=lambda _: binaries.ensure(_say))

    up = commands.add_parser("up", parents=[named], help="start a cluster; returns at once where it runs")
    up.add_argument("--nodes", default="real", help="none, kwok:COUNT, real or real:COUNT (default: real)")
    up.add_argument("--audit", action="store_true", help="have the API server write down every request (audit.log)")
    up.add_argument(
        "--gangs", action="store_true", help="serve the native gang scheduling API, an alpha of this version"
    )
    up.set_defaults(run=lambda options: _cluster(options).up(options.nodes, audit=options.audit, gangs=options.gangs))
    down = commands.add_parser("down", parents=[named], help="remove a cluster; its image stores stay")
    down.add_argument("--purge", action="store_true", help="remove its image stores too")
    down.set_defaults(run=lambda options: _cluster(options).down(purge=options.purge))
    status = commands.add_parser("status", parents=[named], help="say what runs; exits 1 unless all does")
    status.set_defaults(run=_status)

    load = commands.add_parser("load", parents=[named], help="import image archives into every real node")
    load.add_argument("archives", nargs="+", type=Path, metavar="IMAGE.tar")
    load.set_defaults(run=_load)
    volume = commands.add_parser("volume", parents=[named], help="make a bound claim and print its host folder")
    volume.add_argument("claim")
    volume.add_argument("--namespace", default="default")
    volume.add_argument("--size", default="1Gi")
    volume.add_argument("--read-only", action="store_true", help="ReadOnlyMany, and no write bit on any file")
    volume.add_argument("--from", dest="source", type=Path, metavar="DIR", help="copy this folder in")
    volume.set_defaults(run=_volume)
    kubeconfig = commands.add_parser("kubeconfig", parents=[named], help="print the path of the kubeconfig")
    kubeconfig.set_defaults(run=lambda options: print(_existing(options).kubeconfig))
    environment = commands.add_parser("env", parents=[named], help='print exports for a shell: eval "$(...)"')
    environment.set_defaults(run=_env)
    busybox = commands.add_parser("busybox-image", help="write an archive of localhost/darkroom/busybox:1")
    busybox.add_argument("archive", type=Path, metavar="OUT.tar")
    busybox.set_defaults(run=_busybox_image)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _cluster(options: argparse.Namespace) -> Cluster:
    return Cluster(options.name, _say)


def _existing(options: argparse.Namespace) -> Cluster:
    cluster = _cluster(options)
    cluster.nodes  # noqa: B018 - raises, with advice, when there is no such cluster
    return cluster


def _setup(_options: argparse.Namespace) -> None:
    packages.install(_say)
    binaries.ensure(_say)


def _status(options: argparse.Namespace) -> None:
    cluster = _existing(options)
    for line in cluster.status():
        _say(line)
    if not cluster.is_up():
        raise ClusterError(f"cluster {cluster.name} isn't whole: `up` starts it afresh, `down` removes it")


def _load(options: argparse.Namespace) -> None:
    cluster = _existing(options)
    for archive in options.archives:
        cluster.load(archive)


def _volume(options: argparse.Namespace) -> None:
    folder = _existing(options).volume(
        options.claim,
        namespace=options.namespace,
        size=options.size,
        read_only=options.read_only,
        source=options.source,
    )
    _say(str(folder))


def _env(options: argparse.Namespace) -> None:
    # Only exports may reach stdout, for a shell evaluates it; progress of a first build goes to stderr.
    cluster = Cluster(options.name, lambda line: print(line, file=sys.stderr))
    cluster.nodes  # noqa: B018 - raises, with advice, when there is no such cluster
    _say(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    _say(f"export PATH={shlex.quote(str(cluster.bin))}:$PATH")


def _busybox_image(options: argparse.Namespace) -> None:
    shutil.copyfile(images.busybox_archive(), options.archive)
    _say(f"{options.archive}: {images.BUSYBOX}")


if __name__ == "__main__":
    sys.exit(main())
