"""What can be told without a cluster."""

import io
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from localcluster import Cluster, ClusterError, StartError, images, mounts, packages
from localcluster.binaries import ALL, KUEUE, MODULES
from localcluster.control_plane import Endpoint
from localcluster.errors import tail
from localcluster.paths import name_on_host
from localcluster.processes import Processes
from localcluster.record import Kind, Record, Size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("none", Size(Kind.NONE)),
        ("real", Size(Kind.REAL, 1)),
        ("real:2", Size(Kind.REAL, 2)),
        ("kwok:500", Size(Kind.KWOK, 500)),
    ],
)
def test_size(text: str, size: Size) -> None:
    assert Size.parse(text) == size
    assert Size.parse(str(size)) == size


@pytest.mark.parametrize("text", ["", "kwok", "kwok:0", "real:9", "real:-1", "none:1", "kwok:10000", "fake:2"])
def test_size_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ClusterError, match="--nodes"):
        Size.parse(text)


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a/b", "tail-", "x" * 21])
def test_name_that_does_not_fit_into_file_and_link_names(name: str) -> None:
    with pytest.raises(ClusterError, match="cluster name"):
        Cluster(name)


def test_a_cluster_of_the_same_name_in_another_state_home_has_a_name_of_its_own_on_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert name_on_host("demo") == "demo"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
    one = name_on_host("demo")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "two"))
    assert len({"demo", one, name_on_host("demo")}) == 3


def test_record_survives_the_disk(tmp_path: Path) -> None:
    record = Record(Size(Kind.REAL, 2), Endpoint("198.18.7.1", 6443, (2379, 2380), "darkroom.x"), 7)
    assert Record.load(tmp_path) is None
    record.save(tmp_path)
    assert Record.load(tmp_path) == record


def test_commands_on_a_cluster_that_is_not_there_name_the_one_that_makes_it() -> None:
    with pytest.raises(ClusterError, match="localcluster up --name lc-absent"):
        Cluster("lc-absent").node_names  # noqa: B018


def test_missing_package_names_setup() -> None:
    with pytest.raises(ClusterError, match=r"no-such-package.*localcluster setup"):
        packages.require(["no-such-package"])


def test_start_error_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    log.write_text("\n".join(f"line {number}" for number in range(100_000)))
    message = str(StartError("etcd", "ended", log))
    assert message.startswith("etcd ended")
    assert message.splitlines()[1:] == [f"  line {number}" for number in range(99_980, 100_000)]
    assert "no log" in tail(tmp_path / "missing.log")


def test_start_error_shows_the_cause_of_a_panic_and_not_its_stack(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    calls = [
        f"go.etcd.io/etcd/embed.call{n}({{0x7ff{n}, 0xc}}, ...)\n\tgo.etcd.io/etcd/embed.go:{n} +0x4b"
        for n in range(30)
    ]
    log.write_text(
        "\n".join(["panic: no space left on device", "", "goroutine 1 [running]:", *calls, "main.main()", ""])
    )
    assert tail(log) == "  panic: no space left on device"


def test_processes_finds_its_own_and_kills_no_other(tmp_path: Path) -> None:
    mine, other = Processes(tmp_path / "a"), Processes(tmp_path / "ab")
    mine.start("one", ["sleep", "300"])
    mine.start("two", ["sleep", "300"])
    other.start("one", ["sleep", "300"])
    try:
        assert mine.running("one")
        assert mine.running("two")
        mine.kill("one")
        assert not mine.running("one")
        assert mine.running("two")
        mine.kill()
        assert not mine.pids()
        assert other.running("one")
    finally:
        mine.kill()
        other.kill()


def test_processes_reports_one_that_ends(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("broken", ["sh", "-c", "echo no such flag >&2; exit 3"])
    with pytest.raises(StartError, match=r"broken ended(.|\n)*no such flag"):
        processes.await_ready("broken", lambda: False, 20)


def test_daemon_is_a_session_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C in the terminal of `up` must not reach it."""
    processes = Processes(tmp_path)
    processes.start("one", ["sleep", "300"])
    try:
        assert processes.running("one")
        (pid,) = processes.pids("one")
        assert os.getsid(pid) != os.getsid(0)
    finally:
        processes.kill(sig=signal.SIGTERM)


def test_every_module_is_pinned_and_keyed() -> None:
    modules = (*ALL, KUEUE)
    assert {module.name for module in modules} == {folder.name for folder in MODULES.iterdir()}
    assert len({module.key for module in modules}) == len(modules)
    for module in modules:
        assert (module.folder / "go.sum").exists() or module.name == "pause", "pause requires nothing"


def test_image_archive_is_an_oci_layout_with_true_digests() -> None:
    archive = images.busybox_archive()
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == images.BUSYBOX
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.startswith("blobs/sha256/"):
                content = tar.extractfile(member)
                assert content is not None
                done = subprocess.run(["sha256sum"], input=content.read(), capture_output=True, check=True)
                assert done.stdout.split()[0].decode() == Path(member.name).name


def test_fingerprint_follows_the_table_of_contents_of_either_format(tmp_path: Path) -> None:
    def archive(name: str, entry: str, content: bytes) -> Path:
        with tarfile.open(tmp_path / name, "w") as tar:
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        return tmp_path / name

    oci, docker = archive("a.tar", "index.json", b"{}"), archive("b.tar", "./manifest.json", b"[]")
    assert images.fingerprint(oci) != images.fingerprint(docker)
    assert images.fingerprint(oci) == images.fingerprint(archive("c.tar", "index.json", b"{}"))
    with pytest.raises(ClusterError, match="neither"):
        images.fingerprint(archive("d.tar", "readme", b""))
    (tmp_path / "e.tar").write_text("no archive")
    with pytest.raises(ClusterError, match="can't be read"):
        images.fingerprint(tmp_path / "e.tar")


def test_mounts_below_only_the_folder() -> None:
    assert mounts.below(Path("/proc/no/such/folder")) == []
    assert Path("/proc") in mounts.below(Path("/"))
