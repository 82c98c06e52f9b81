"""Programs that only tests run, built as those of localcluster are: `python -m tests.tools` builds what is missing."""

from pathlib import Path

from localcluster.binaries import KUEUE, Module, ensure, ensure_one

GO = Path(__file__).parent / "go"
MODULES = (
    Module(
        "helm3",
        ("helm3",),
        (
            "helm.sh/helm/v3/internal/version.version=v3.22.0",
            # what `helm template` takes for the cluster's version, as in releases: that of its client libraries
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37",
        ),
        package="helm.sh/helm/v3/cmd/helm",
        root=GO,
    ),
    Module("kubeconform", ("kubeconform",), package="github.com/yannh/kubeconform/cmd/kubeconform", root=GO),
    Module("health", ("health",), root=GO),
)


def tool(name: str) -> Path:
    """A program by its name."""
    return ensure(lambda _: None, MODULES) / name


if __name__ == "__main__":
    ensure(lambda line: print(line, flush=True), MODULES)
    ensure_one(KUEUE, lambda line: print(line, flush=True))
