"""scripts/images.py without a build: what decides whether something is built anew, and how layers are put together."""

import json
import tarfile
from pathlib import Path

import pytest

from scripts import images


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the images are made of."""
    for recipe in images.RECIPES.values():
        for path in (recipe.dockerfile, *recipe.dependencies, *images.SHARED_CODE):
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((images.ROOT / path).read_bytes())
        for folder in recipe.code:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "code.py").write_text("pass\n")
    monkeypatch.setattr(images, "ROOT", tmp_path)
    return tmp_path


def keys(name: str) -> tuple[str, str]:
    """Of the dependencies, and of the whole image."""
    return images.keys(images.RECIPES[name], "base")


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        pytest.param(
            "operator/darkroom_operator/code.py", {"operator": (False, True), "trainer": (False, False)}, id="operator"
        ),
        pytest.param(
            "trainer-image/darkroom_trainer/code.py",
            {"operator": (False, False), "trainer": (False, True)},
            id="trainer",
        ),
        pytest.param(
            "operator/darkroom_api/code.py", {"operator": (False, True), "trainer": (False, True)}, id="contract"
        ),
        pytest.param(
            "trainer-image/requirements.txt", {"operator": (False, False), "trainer": (True, True)}, id="lock file"
        ),
        pytest.param("pyproject.toml", {"operator": (False, True), "trainer": (False, True)}, id="version"),
    ],
)
def test_a_change_rebuilds_what_it_is_part_of(
    repository: Path, path: str, changes: dict[str, tuple[bool, bool]]
) -> None:
    before = {name: keys(name) for name in changes}
    with (repository / path).open("a") as file:
        file.write("\n# changed\n")
    after = {name: keys(name) for name in changes}
    assert {name: tuple(a != b for a, b in zip(before[name], after[name], strict=True)) for name in changes} == changes


def test_the_last_stage_of_a_dockerfile_leaves_the_dependencies_alone(repository: Path) -> None:
    before = keys("trainer")
    with (repository / "trainer-image/Dockerfile").open("a") as file:
        file.write("LABEL a=b\n")
    after = keys("trainer")
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_bytecode_is_no_input(repository: Path) -> None:
    before = keys("operator")
    cache = repository / "operator/darkroom_api/__pycache__"
    cache.mkdir()
    (cache / "code.pyc").write_bytes(b"")
    assert keys("operator") == before


def layer(number: int) -> images.Json:
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{number:064}", "size": 1}


def test_rebased_puts_layers_and_environment_on_top() -> None:
    below = {
        "config": {"Env": ["PATH=/bin", "LANG=C"]},
        "rootfs": {"diff_ids": ["a", "b"]},
        "history": [{"created_by": "x"}],
    }
    own = {
        "config": {"Env": ["PATH=/opt/bin"], "User": "65532"},
        "rootfs": {"diff_ids": ["c"]},
        "history": [{"created_by": "y"}],
    }
    manifest, config = images.rebased({"layers": [layer(3)]}, own, {"layers": [layer(1), layer(2)]}, below)
    assert manifest == {"layers": [layer(1), layer(2), layer(3)]}
    assert config == {
        "config": {"Env": ["PATH=/opt/bin", "LANG=C"], "User": "65532"},
        "rootfs": {"diff_ids": ["a", "b", "c"]},
        "history": [{"created_by": "x"}, {"created_by": "y"}],
    }


def test_an_archive_reads_as_it_was_written(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"layer")
    archive = images.Archive(tmp_path / "a.tar", "localhost/darkroom/a:dev-1")
    config = {"rootfs": {"diff_ids": []}}
    images.write_layout(archive, {"config": {"digest": "", "size": 0}, "layers": [layer(1)]}, config, {"1" * 64: blob})
    manifest, read = images.read_archive(archive.path)
    assert (manifest["layers"], read) == ([layer(1)], config)
    with tarfile.open(archive.path) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == archive.reference


def test_pips_settings_come_along_but_not_what_only_exists_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "pip_files", lambda _: {"index-url": "https://a.example", "find-links": "/opt/wheels"})
    settings, bundle = images.pip_settings({"PIP_DEFAULT_TIMEOUT": "9", "SSL_CERT_FILE": "/etc/ca.crt"})
    assert settings == {"index-url": "https://a.example", "default-timeout": "9"}
    assert bundle == "/etc/ca.crt"
