// Package shared finds the reference data that some tests compare with. It is not part of the
// repository: where it is absent those tests skip.
package shared

import (
	"os"
	"path/filepath"
	"testing"
)

// Path returns the path of a reference file or directory: under $RUNG_SHARED, else under the folder
// "shared" beside the checkout. The test is skipped where there is none.
func Path(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(append([]string{root(t)}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return p
}

func root(t testing.TB) string {
	t.Helper()
	if d := os.Getenv("RUNG_SHARED"); d != "" {
		return d
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(filepath.Dir(dir), "shared")
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skip("no reference data: not inside the module")
		}
		dir = up
	}
}

// Long skips a test that takes minutes unless $RUNG_LONG is set, as make long sets it.
func Long(t testing.TB) {
	t.Helper()
	if os.Getenv("RUNG_LONG") == "" {
		t.Skip("takes minutes: make long")
	}
}
