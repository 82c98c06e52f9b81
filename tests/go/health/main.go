// What GitOps tools make of objects, by the code that they run themselves: kstatus and health expressions in CEL as in Flux
// (Helm 4 has the same kstatus), and a health script in the Lua of Argo CD.
//
// In: {"objects": [...], "script": "...", "expressions": {"current": "...", "failed": "...", "inProgress": "..."}}.
// Out: a verdict for each object, in their order.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Objects     []unstructured.Unstructured      `json:"objects"`
	Script      string                           `json:"script"`
	Expressions kustomize.HealthCheckExpressions `json:"expressions"`
}

type verdict struct {
	Kstatus string `json:"kstatus"`
	Flux    string `json:"flux"`
	Argo    string `json:"argo"`
	Message string `json:"message"`
}

func main() {
	if err := answer(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func answer() error {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	evaluator, err := cel.NewStatusEvaluator(&asked.Expressions)
	if err != nil {
		return err
	}
	verdicts := []verdict{}
	for _, object := range asked.Objects {
		said, err := judge(&object, evaluator, asked.Script)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		verdicts = append(verdicts, said)
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}

func judge(object *unstructured.Unstructured, evaluator *cel.StatusEvaluator, script string) (verdict, error) {
	plain, err := status.Compute(object)
	if err != nil {
		return verdict{}, err
	}
	flux, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return verdict{}, err
	}
	health, message, err := run(script, object)
	return verdict{plain.Status.String(), flux.Status.String(), health, message}, err
}

// run gives the script what Argo CD gives it: the object as the global obj, and no libraries but these (not even string).
func run(script string, object *unstructured.Unstructured) (string, string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return "", "", err
		}
	}
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the script returned %s, where Argo CD wants a table", state.Get(-1).Type())
	}
	return health.RawGetString("status").String(), health.RawGetString("message").String(), nil
}

// value is JSON as Lua sees it.
func value(state *lua.LState, item any) lua.LValue {
	switch item := item.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, member := range item {
			table.RawSetString(key, value(state, member))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, member := range item {
			table.Append(value(state, member))
		}
		return table
	case string:
		return lua.LString(item)
	case bool:
		return lua.LBool(item)
	case int64:
		return lua.LNumber(item)
	case float64:
		return lua.LNumber(item)
	}
	return lua.LNil
}
