// Package kern is the kernels of the CUDA backend: CUDA C++ sources, and the PTX that the pinned NVRTC
// makes of them (make ptx), and CI checks that it is of these. It is for compute capability 8.0 and
// later, and drivers from 520 on.
package kern

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.ptx
var files embed.FS

// PTX is the text of a source file by its name without extension.
func PTX(name string) (string, error) {
	b, err := files.ReadFile(name + ".ptx")
	if err != nil {
		return "", fmt.Errorf("kern: no kernels %q", name)
	}
	return string(b), nil
}

// Names lists the source files.
func Names() []string {
	entries, _ := files.ReadDir(".") // of an embedded folder: no error
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".ptx"))
	}
	return names
}
