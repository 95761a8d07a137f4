// Reads YAML or JSON objects of the Prometheus operator, one after another, from standard input, into the operator's own
// types, strictly: an unknown field, or a value of the wrong type, is an error. For the tests of the chart.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
)

func check(document []byte) error {
	data, err := yaml.ToJSON(document)
	if err != nil {
		return err
	}
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.UnmarshalCaseSensitivePreserveInts(data, &head); err != nil {
		return err
	}
	switch head.Kind {
	case monitoring.ServiceMonitorsKind:
		return strictly(data, &monitoring.ServiceMonitor{})
	case monitoring.PrometheusRuleKind:
		return strictly(data, &monitoring.PrometheusRule{})
	}
	return fmt.Errorf("kind %q is not known here", head.Kind)
}

// Names count with their letters' case, as they do in Kubernetes, unlike in Go's own package.
func strictly(data []byte, into any) error {
	unknown, err := json.UnmarshalStrict(data, into)
	if err != nil {
		return err
	}
	return errors.Join(unknown...)
}

func main() {
	documents := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	read := 0
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = check(document)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "object %d: %v\n", read+1, err)
			os.Exit(1)
		}
		read++
	}
	fmt.Printf("%d objects are well\n", read)
}
