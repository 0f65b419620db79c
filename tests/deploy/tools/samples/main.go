// Reads a sample as the program does for which it is, so that a misspelt key is found: samples compose|nomad|operator FILE.
package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/hashicorp/nomad/api"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	kinds := map[string]func(string) error{"compose": compose, "nomad": nomad, "operator": operator}
	if len(os.Args) != 3 || kinds[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: samples compose|nomad|operator FILE")
		os.Exit(2)
	}
	if err := kinds[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// compose does what `docker compose config` does: the schema, the variables, what refers to what.
func compose(path string) error {
	details := types.ConfigDetails{WorkingDir: ".", ConfigFiles: []types.ConfigFile{{Filename: path}}, Environment: types.Mapping{}}
	project, err := loader.LoadWithContext(context.Background(), details, func(options *loader.Options) {
		options.SetProjectName("sample", true)
		options.SkipResolveEnvironment = true
	})
	if err != nil {
		return err
	}
	written, err := project.MarshalYAML()
	if err == nil {
		fmt.Print(string(written))
	}
	return err
}

// nomad does what `nomad fmt -check` does, and looks each key up in the types that the keys of a job are read into.
func nomad(path string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, diagnostics := hclparse.NewParser().ParseHCL(source, path)
	if diagnostics.HasErrors() {
		return diagnostics
	}
	if string(hclwrite.Format(source)) != string(source) {
		return fmt.Errorf("%s: not in the format of nomad fmt", path)
	}
	jobs := 0
	for _, block := range file.Body.(*hclsyntax.Body).Blocks {
		switch block.Type {
		case "variable":
		case "job":
			jobs++
			if err := known(block.Body, reflect.TypeOf(api.Job{}), "job"); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: unknown block %s", block.TypeRange, block.Type)
		}
	}
	if jobs != 1 {
		return fmt.Errorf("%s: %d jobs", path, jobs)
	}
	return nil
}

// known compares a block with the hcl tags of a type.
func known(body *hclsyntax.Body, into reflect.Type, path string) error {
	fields := map[string]reflect.Type{}
	blocks := map[string]bool{}
	for at := range into.NumField() {
		name, kind, _ := strings.Cut(into.Field(at).Tag.Get("hcl"), ",")
		fields[name], blocks[name] = into.Field(at).Type, kind == "block"
	}
	// Made by the parser out of keys of its own.
	if into == reflect.TypeOf(api.TaskGroup{}) || into == reflect.TypeOf(api.Job{}) {
		fields["vault"], blocks["vault"] = reflect.TypeOf(api.Vault{}), true
	}
	for name, attribute := range body.Attributes {
		if _, found := fields[name]; !found || name == "" {
			return fmt.Errorf("%s: %s has no %s", attribute.NameRange, path, name)
		}
	}
	for _, block := range body.Blocks {
		into, found := fields[block.Type]
		if !found || !blocks[block.Type] {
			return fmt.Errorf("%s: %s has no block %s", block.TypeRange, path, block.Type)
		}
		for into.Kind() == reflect.Pointer || into.Kind() == reflect.Slice {
			into = into.Elem()
		}
		// What a driver reads, and tables of a user's own, have any key.
		if into.Kind() != reflect.Struct {
			continue
		}
		if err := known(block.Body, into, path+"."+block.Type); err != nil {
			return err
		}
	}
	return nil
}

// operator reads a ServiceMonitor or a PrometheusRule into the Prometheus operator's type, strictly.
func operator(path string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var object struct {
		Kind string `json:"kind"`
	}
	if err := yaml.Unmarshal(source, &object); err != nil {
		return err
	}
	switch object.Kind {
	case "ServiceMonitor":
		return yaml.UnmarshalStrict(source, &monitoring.ServiceMonitor{})
	case "PrometheusRule":
		return yaml.UnmarshalStrict(source, &monitoring.PrometheusRule{})
	default:
		return fmt.Errorf("%s: the kind %s is not the operator's", path, object.Kind)
	}
}
