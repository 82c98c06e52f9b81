// Helm as it is released, less its test hooks.
package main

import (
	"errors"
	"log/slog"
	"os"

	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
)

func main() {
	// Releases record this name as their field manager; without it the name of the file would be recorded.
	kube.ManagedFieldsManager = "helm"
	command, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err != nil {
		slog.Error("helm could not start", "error", err)
		os.Exit(1)
	}
	if err := command.Execute(); err != nil {
		var failure helmcmd.CommandError
		if errors.As(err, &failure) {
			os.Exit(failure.ExitCode)
		}
		os.Exit(1)
	}
}
